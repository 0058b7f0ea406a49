"""The schemas that both documents share: msgspec describes the types, under the names that the contract has."""

from collections.abc import Callable
from typing import Any

import msgspec

from app.rest.docs.payloads import LoggedEvent, ReactionView
from app.rest.errors import STATUS

REF = "#/components/schemas/"

Describe = Callable[[Any], dict[str, Any]]


def components(kinds: list[Any]) -> tuple[Describe, dict[str, Any]]:
    """Let msgspec describe all types at once; gives how to look one up, and the named ones."""
    # What views carry ready written: no type names these.
    kinds = [*kinds, ReactionView, LoggedEvent]
    described, named = msgspec.json.schema_components(kinds, ref_template=REF + "{name}")
    schemas = {_public(name): _renamed(schema) for name, schema in named.items()}
    # An `EventView` is one of these, told apart by its name; which, no type of a view can say.
    schemas["Event"] = {"title": "Event", **_renamed(described[kinds.index(LoggedEvent)])}
    for name in schemas.keys() & {"Error", "ErrorEvent"}:
        schemas[name]["properties"]["code"]["enum"] = list(STATUS)
    return lambda kind: _renamed(described[kinds.index(kind)]), dict(sorted(schemas.items()))


def _public(name: str) -> str:
    """Give the name that the contract has for a type: that it is a view concerns nobody outside."""
    return name.removesuffix("View")


def _renamed(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _public(inner) if key == "title" and isinstance(inner, str) else _renamed(inner)
            for key, inner in schema.items()
        }
    if isinstance(schema, list):
        return [_renamed(inner) for inner in schema]
    return _public(schema) if isinstance(schema, str) and schema.startswith(REF) else schema
