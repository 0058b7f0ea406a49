"""The documentation, as tests read it: its pages, and the fenced blocks of code in them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and its text without the indent of a list that it may stand in."""

    language: str
    text: str


def names() -> list[str]:
    """List every page, by its path from the root."""
    at_the_root = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "UPGRADING.md"]
    in_docs = sorted(f"{file.relative_to(ROOT)}" for file in DOCS.rglob("*.md"))
    return [*at_the_root, *in_docs, "helm/chat-service/README.md"]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[Block]:
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", page(name), re.MULTILINE | re.DOTALL)
    return [
        Block(language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)) for indent, language, text in found
    ]


def code(name: str, language: str) -> list[str]:
    """Give the blocks of a page in one language, in their order."""
    return [block.text for block in blocks(name) if block.language == language]


def without_code(text: str) -> str:
    """Leave fenced blocks and code in lines out."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL))
