"""What was committed since a pod last looked, whichever transaction committed late.

A timestamp or a serial would lose that; and what is not older than the oldest transaction that runs would be read
again and again while somebody leaves one open, be it in another database. So a pod keeps the snapshot of its last
look, and reads what was written by transactions that ran then or began since. The new snapshot is that of the
statement itself.
"""

from typing import NamedTuple, Self
from uuid import UUID

from app.postgres.statements import statement
from app.postgres.transactions import POOL, Row

COMMITTED_SINCE = statement("committed_since")
NOTICES_SINCE = statement("notices_since")
SNAPSHOT = statement("snapshot")


class Seen(NamedTuple):
    """The transactions that a pod has seen: all below `xmax` but those that ran then."""

    xmax: int
    running: frozenset[int] = frozenset()

    @classmethod
    def in_snapshot(cls, text: str) -> Self:
        """Read what PostgreSQL writes of a snapshot: `xmin:xmax:running,…`."""
        _, xmax, running = text.split(":")
        return cls(int(xmax), frozenset(map(int, running.split(","))) if running else frozenset())

    def values(self) -> tuple[str, list[str]]:
        return str(self.xmax), [str(xid) for xid in sorted(self.running)]

    def until(self, last: int, snapshot: "Seen") -> "Seen":
        """Give what was seen once what a snapshot shows was read, in order and no further than a transaction."""
        if last < self.xmax:
            return Seen(self.xmax, frozenset(xid for xid in self.running if xid > last or xid in snapshot.running))
        return Seen(last + 1, frozenset(xid for xid in snapshot.running if xid <= last))


class Committed(NamedTuple):
    """What was written since a look, by conversation; with `has_more` only the beginning of that."""

    last_seqs: dict[UUID, int]
    seen: Seen
    has_more: bool


class Noticed(NamedTuple):
    """The notices since a look, in their order; with `has_more` only the beginning of them."""

    notices: list[Row]
    seen: Seen
    has_more: bool


async def seen_now() -> Seen:
    """Give what can be seen now."""
    found = await POOL.row(SNAPSHOT)
    assert found is not None
    return Seen.in_snapshot(found["snapshot"])


def _read_page(found: list[Row], before: Seen, most: int) -> tuple[list[Row], Seen, bool]:
    """Take the snapshot off a page of what was written; gives what was seen then, and whether there is more."""
    snapshot = Seen.in_snapshot(next(one["snapshot"] for one in found if one["snapshot"] is not None))
    written = [one for one in found if one["snapshot"] is None]
    if len(written) < most:
        return written, snapshot, False
    return written, before.until(max(int(one["xid"]) for one in written), snapshot), True


async def committed_since(before: Seen, most: int) -> Committed:
    """Read what was committed since a look, so many rows and the rest of their last transaction at most."""
    found = await POOL.rows(COMMITTED_SINCE, *before.values(), most)
    written, seen, has_more = _read_page(found, before, most)
    last_seqs: dict[UUID, int] = {}
    for one in written:
        last_seqs[one["conversation_id"]] = max(one["seq"], last_seqs.get(one["conversation_id"], 0))
    return Committed(last_seqs, seen, has_more)


async def notices_since(before: Seen, most: int) -> Noticed:
    """Read the notices that were committed since a look, as `committed_since` does."""
    found = await POOL.rows(NOTICES_SINCE, *before.values(), most)
    notices, seen, has_more = _read_page(found, before, most)
    return Noticed(sorted(notices, key=lambda notice: int(notice["id"])), seen, has_more)
