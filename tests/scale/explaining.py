"""What PostgreSQL really does for a statement."""

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from app.postgres.transactions import POOL

# A table that grows with use: reading one from end to end is the mistake.
GROWING = {
    "messages",
    "events",
    "participants",
    "reactions",
    "conversation_heads",
    "conversations",
    "users",
    "webhooks",
}


class Recorded(Exception):  # noqa: N818 - nothing went wrong
    """A statement as the code was about to run it."""

    def __init__(self, statement: str, values: tuple[Any, ...]) -> None:
        self.statement, self.values = statement, values


async def recorded(call: Callable[[], Awaitable[Any]], monkeypatch) -> tuple[str, tuple[Any, ...]]:
    """Give the statement that a function of the service runs, and the values that it gives to it."""

    async def record(statement: str, *values: Any) -> list[Any]:
        raise Recorded(statement, values)

    with monkeypatch.context() as patch:
        patch.setattr(POOL, "rows", record)
        try:
            await call()
        except Recorded as found:
            return found.statement, found.values
    raise AssertionError("no statement was run")


@dataclass(frozen=True)
class Explained:
    """What a statement cost; `read` is the rows that its scans looked at, whether they were of use or not."""

    plan: dict[str, Any]
    milliseconds: float

    def nodes(self) -> Iterator[dict[str, Any]]:
        waiting = [self.plan]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.get("Plans", [])

    @property
    def returned(self) -> int:
        return round(self.plan["Actual Rows"])

    @property
    def removed(self) -> int:
        """How many rows were looked at in vain."""
        kinds = ("Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter")
        return sum(round(node.get(kind, 0) * node["Actual Loops"]) for node in self.nodes() for kind in kinds)

    @property
    def read(self) -> int:
        scans = [node for node in self.nodes() if "Relation Name" in node and "Scan" in node["Node Type"]]
        found = sum(round(node["Actual Rows"] * node["Actual Loops"]) for node in scans)
        return found + self.removed

    @property
    def buffers(self) -> int:
        """How many pages were visited; an index that is searched from its start to its end shows only here."""
        # What a WITH writes is no part of what the node above it did.
        return max(int(node["Shared Hit Blocks"] + node["Shared Read Blocks"]) for node in self.nodes())

    @property
    def sequential(self) -> set[str]:
        scans = (node for node in self.nodes() if node["Node Type"] == "Seq Scan")
        return {node["Relation Name"] for node in scans if node["Actual Loops"]} & GROWING


def literal(value: Any) -> str:
    """Write a value in SQL, without a type: it gets that of the parameter, as with asyncpg."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        value = f"\\x{value.hex()}"
    elif isinstance(value, datetime):
        value = value.isoformat()
    elif isinstance(value, list):
        texts = (f"\\x{item.hex()}" if isinstance(item, bytes) else item for item in value)
        items = ("NULL" if item is None else json.dumps(str(item), ensure_ascii=False) for item in texts)
        value = "{" + ",".join(items) + "}"
    elif not isinstance(value, str | int | UUID):
        raise TypeError(value)
    return "'" + str(value).replace("'", "''") + "'"


async def explain(connection: asyncpg.Connection, mode: str, statement: str, values: tuple[Any, ...]) -> Explained:
    """Run a prepared statement, and undo it; `mode` is `force_custom_plan` or `force_generic_plan`."""
    assert len(values) == max((int(number) for number in re.findall(r"\$(\d+)", statement)), default=0)
    arguments = f"({', '.join(literal(value) for value in values)})" if values else ""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"SET LOCAL plan_cache_mode = {mode}")
        await connection.execute(f"PREPARE explained AS {statement}")
        # The second run finds the pages in memory and the catalogue read.
        for _ in range(2):
            answer = await connection.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE explained {arguments}"
            )
            if any(word in statement for word in ("INSERT", "UPDATE", "DELETE")):
                break
    finally:
        await transaction.rollback()
    await connection.execute("DEALLOCATE explained")
    (found,) = json.loads(answer)
    return Explained(found["Plan"], found["Planning Time"] + found["Execution Time"])
