"""Use cases of catching up: the event log of a conversation after a seq, and `sync` of many conversations."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from msgspec import Raw

from app.contract import ids
from app.contract.codec import encode, reject
from app.contract.errors import ChatError, NotFound
from app.contract.events import Change
from app.contract.schemas import ErrorView, EventPage, EventView, SocketSync
from app.identity import policy
from app.identity.actor import Actor
from app.identity.rate_limits import Action
from app.messages import event_log
from app.postgres import participant_rows
from app.usecases.access import admit, no_conversation, require_participant
from app.usecases.deps import Deps

SYNC_ITEMS = 100
# How many changes one statement reads for `sync`: a little more than its answer usually has room for.
SYNC_ROWS = 400
# What the JSON around the events takes, at most.
OVERHEAD = 256
OVERHEAD_PER_CONVERSATION = 200
OVERHEAD_PER_EVENT = 64


async def list_events(deps: Deps, actor: Actor, conversation_id: UUID, after: int, limit: int) -> EventPage:
    """Read the changes after a seq, in order, as a socket was sent them; raises Forbidden and NotFound.

    `gap` means that some of them are no longer kept, or that `after` is ahead of the conversation: load afresh.
    """
    policy.require_read(actor)
    await deps.limits.check(Action.READ, actor.user_id)
    await require_participant(conversation_id, actor)
    async with deps.database.heavy_reads:
        found = (await event_log.places({conversation_id: after})).get(conversation_id)
        if found is None:
            raise no_conversation(conversation_id)
        place = _Place(after, *found)
        changes = await event_log.changes_after({conversation_id: after}, limit) if place.is_behind else None
    return place.page_of(changes)


class _Place(NamedTuple):
    """Where a client is in a conversation, where that stands, and whether the entry in between is kept."""

    after: int
    last_seq: int
    is_kept: bool

    @property
    def is_behind(self) -> bool:
        """Whether there is something to read."""
        return self.after < self.last_seq and self.is_kept

    def page_of(self, changes: list[Change] | None) -> EventPage:
        """Make the page of what was read; None is where nothing was."""
        if changes is None and self.is_behind:
            return EventPage(items=[], last_seq=self.last_seq, has_more=True, gap=False)
        if not changes:
            # Ahead, no longer kept, dropped since, or lost by a failover; or there is nothing to know.
            return EventPage(items=[], last_seq=self.last_seq, has_more=False, gap=self.after != self.last_seq)
        items = [EventView(change.seq, change.event.name, Raw(change.event.data)) for change in changes]
        end = items[-1].seq
        last_seq = max(self.last_seq, end)
        return EventPage(items=items, last_seq=last_seq, has_more=end < last_seq, gap=False)


async def sync(deps: Deps, actor: Actor, command: SocketSync) -> dict[str, Any]:
    """Read what a client missed of many conversations, and which it has entered since; at most 256 KiB of it.

    Where not all fits there is `hasMore`: the client asks again from where it is then. However many conversations
    there are, they are asked for together, and no more is read than a little above what fits.
    """
    policy.require_read(actor)
    await deps.limits.check(Action.SYNC, actor.user_id)
    since = None if command.since is None else _utc(command.since)
    found: dict[str, Any] = {}
    named = await _readable(actor, command.conversations, found)
    entered = [] if since is None else await participant_rows.joined_since(actor.user_id, since)
    known = set(named.values())
    joined = [ids.to_wire(ids.CONVERSATION, one) for one in entered if one not in known]
    places = await _places(command.conversations, named, found)
    answer = {"ok": True, "events": found, "joined": joined}
    room = deps.settings.max_body_bytes - len(encode(answer)) - OVERHEAD
    room -= sum(len(text) + OVERHEAD_PER_CONVERSATION for text in places)
    is_first = True
    for together in _in_portions(places):
        # Where nothing fits any more, nothing is read.
        positions = {named[text]: places[text].after for text in together if places[text].is_behind}
        # One portion at a time, so that those who sync much let the others have their turn.
        changes = await _missed(deps, positions) if room > 0 or is_first else {}
        for text in together:
            page, size = _fitting(places[text].page_of(changes.get(named[text])), room, is_first=is_first)
            room -= size
            is_first = is_first and not page.items
            found[text] = page
    return answer


async def _readable(actor: Actor, texts: Iterable[str], found: dict[str, Any]) -> dict[str, UUID]:
    """Give the conversations that the actor may read, by their names; `found` gets the error of each other one."""
    named: dict[str, UUID] = {}
    for text in texts:
        try:
            named[text] = ids.from_wire(ids.CONVERSATION, text)
        except NotFound as error:
            found[text] = _error(error)
    known = await participant_rows.memberships(list(named.values()), actor.user_id)
    for text, conversation_id in list(named.items()):
        try:
            admit(conversation_id, *known[conversation_id])
        except ChatError as error:
            found[text] = _error(error)
            del named[text]
    return named


async def _places(
    positions: Mapping[str, int], named: Mapping[str, UUID], found: dict[str, Any]
) -> dict[str, _Place]:
    """Give where the client is in each conversation; `found` gets the error of one that was deleted meanwhile."""
    standing = await event_log.places(
        {conversation_id: positions[text] for text, conversation_id in named.items()}
    )
    for text, conversation_id in named.items():
        if conversation_id not in standing:
            found[text] = _error(no_conversation(conversation_id))
    return {
        text: _Place(positions[text], *standing[conversation_id])
        for text, conversation_id in named.items()
        if conversation_id in standing
    }


def _in_portions(places: Mapping[str, _Place]) -> Iterator[list[str]]:
    """Divide conversations so that of each portion SYNC_ROWS changes are read at most, or those of one alone."""
    portion: list[str] = []
    rows = 0
    for text, place in places.items():
        missing = min(place.last_seq - place.after, SYNC_ITEMS) if place.is_behind else 0
        if portion and rows + missing > SYNC_ROWS:
            yield portion
            portion, rows = [], 0
        portion.append(text)
        rows += missing
    if portion:
        yield portion


async def _missed(deps: Deps, positions: dict[UUID, int]) -> dict[UUID, list[Change]]:
    if not positions:
        return {}
    changes: dict[UUID, list[Change]] = {conversation_id: [] for conversation_id in positions}
    async with deps.database.heavy_reads:
        found = await event_log.changes_after(positions, SYNC_ITEMS)
    for change in found:
        changes[change.conversation_id].append(change)
    return changes


def _error(error: ChatError) -> dict[str, ErrorView]:
    return {"error": ErrorView(error.code, error.message)}


def _utc(at: datetime) -> datetime:
    """Give a time in UTC; raises ValidationFailed for one before the first year there, or after the last."""
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise reject("since", "is no time that there is in UTC") from error


def _fitting(page: EventPage, room: int, *, is_first: bool) -> tuple[EventPage, int]:
    """Cut a page to what there is room for; the first with events keeps one: there is always progress."""
    kept: list[EventView] = []
    size = 0
    for item in page.items:
        size += len(bytes(item.data)) + OVERHEAD_PER_EVENT
        if size > room and (kept or not is_first):
            break
        kept.append(item)
    if len(kept) == len(page.items):
        return page, size
    return EventPage(items=kept, last_seq=page.last_seq, has_more=True, gap=False), size
