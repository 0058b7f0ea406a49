"""Statements of SQL by name, from the files in `sql/`: read, put together and checked once, at import.

    -- name: lock_conversation
    -- Why it is as it is: not part of what is sent.
    SELECT ... WHERE {name_of_a_fragment}

`{name}` stands for the text of another statement. What a module takes by `statement` is a plain `str`.
"""

import re
from collections.abc import Iterable
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n(?:--.*\n)*", re.MULTILINE)
_INCLUDE = re.compile(r"\{(\w+)\}")


def parse(texts: Iterable[str]) -> dict[str, str]:
    """Read the statements of files by their names; raises ValueError for a name that comes twice or is unknown."""
    found: dict[str, str] = {}
    for text in texts:
        before, *parts = _NAME.split(text)
        if before.strip():
            raise ValueError(f"SQL without a name: {before[:100]!r}")
        for name, sql in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"two statements are named {name!r}")
            found[name] = sql.strip()
    return {name: _whole(name, found) for name in found}


def _whole(name: str, found: dict[str, str], within: tuple[str, ...] = ()) -> str:
    """Put a statement together with the fragments that it names."""
    if name not in found or name in within:
        raise ValueError(f"no statement can be included as {name!r}")
    return _INCLUDE.sub(lambda include: _whole(include[1], found, (*within, name)), found[name])


_STATEMENTS = parse(
    file.read_text("utf-8")
    for file in files("app.postgres").joinpath("sql").iterdir()
    if file.name.endswith(".sql")
)


def statement(name: str) -> str:
    """Give a statement by its name; raises ValueError where there is none."""
    if name not in _STATEMENTS:
        raise ValueError(f"no statement is named {name!r}")
    return _STATEMENTS[name]
