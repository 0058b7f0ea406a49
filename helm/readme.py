"""Writes the table of values in the chart's README, from the `# --` comments of values.yaml."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "chat-service"
BEGIN, END = "<!-- values -->", "<!-- end of values -->"


def documented(text: str) -> Iterator[tuple[str, str]]:
    """Give the path and the comment of each value that has one."""
    path: list[tuple[int, str]] = []
    comment = None
    for line in text.splitlines():
        if found := re.match(r" *# -- (.*)", line):
            comment = found[1]
        elif found := re.match(r"( *)([\w./-]+):", line):
            indent = len(found[1])
            path = [each for each in path if each[0] < indent] + [(indent, found[2])]
            if comment is not None:
                yield ".".join(key for _, key in path), comment
            comment = None


def default(values: Any, path: str) -> str:
    for key in path.split("."):
        values = values[key]
    return json.dumps(values, ensure_ascii=False)


def table(text: str) -> str:
    values = yaml.safe_load(text)
    rows = [f"| `{path}` | `{default(values, path)}` | {comment} |" for path, comment in documented(text)]
    return "\n".join(["| value | default | what it is |", "| --- | --- | --- |", *rows])


def written(readme: str, text: str) -> str:
    """Give the README with the table as the values have it now."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table(text)}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    file = CHART / "README.md"
    file.write_text(written(file.read_text(), (CHART / "values.yaml").read_text()))
