"""What tests of both documents, OpenAPI and AsyncAPI, ask of them."""

from collections.abc import Iterator
from typing import Any


def references(value: Any) -> Iterator[str]:
    """Find every `$ref`."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolve(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found
