"""What a client missed."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from msgspec import Raw

from app import eventlog, ids, queries, store
from app.auth import policy
from app.auth.actor import Actor
from app.codec import encode, reject
from app.deps import Deps
from app.errors import ChatError
from app.limits import Action
from app.schemas import ErrorView, EventPage, EventView, SocketSync
from app.usecases.access import require_participant

SYNC_ITEMS = 100
# What the JSON around the events takes, at most.
OVERHEAD = 256
OVERHEAD_PER_CONVERSATION = 200
OVERHEAD_PER_EVENT = 64


async def list_events(deps: Deps, actor: Actor, conversation_id: UUID, after: int, limit: int) -> EventPage:
    """Read the changes after a seq, in order, as a socket was sent them; raises Forbidden and NotFound.

    `gap` tells that some of them are no longer kept, or that `after` is ahead of the conversation: load afresh.
    """
    policy.require_read(actor)
    await deps.limits.check(Action.READ, actor.user_id)
    await require_participant(conversation_id, actor)
    async with deps.database.dear_reads:
        return await _page(conversation_id, after, limit)


async def _page(conversation_id: UUID, after: int, limit: int) -> EventPage:
    last_seq, is_kept = await eventlog.place(conversation_id, after) or (0, False)
    if after == last_seq:
        return EventPage(items=[], last_seq=last_seq, has_more=False, gap=False)
    if after > last_seq or not is_kept:
        return EventPage(items=[], last_seq=last_seq, has_more=False, gap=True)
    changes = await eventlog.changes_after({conversation_id: after}, limit)
    items = [EventView(change.seq, change.event.name, Raw(change.event.data)) for change in changes]
    end = items[-1].seq if items else after
    last_seq = max(last_seq, end)
    return EventPage(items=items, last_seq=last_seq, has_more=end < last_seq, gap=False)


async def sync(deps: Deps, actor: Actor, command: SocketSync) -> dict[str, Any]:
    """Read what a client missed of many conversations, and which it has entered since; at most 256 KiB of it.

    What does not fit is told by `hasMore`: the client asks again from where it is then.
    """
    policy.require_read(actor)
    await deps.limits.check(Action.SYNC, actor.user_id)
    since = None if command.since is None else _utc(command.since)
    conversation_ids = await store.conversations_of(actor.user_id)
    mine = set(conversation_ids)
    found: dict[str, Any] = {}
    named: dict[str, UUID] = {}
    for text in command.conversations:
        try:
            conversation_id = ids.from_wire(ids.CONVERSATION, text)
            if conversation_id not in mine:
                await require_participant(conversation_id, actor)
        except ChatError as error:
            found[text] = {"error": ErrorView(error.code, error.message)}
        else:
            named[text] = conversation_id
    entered = [] if since is None else await queries.joined_since(actor.user_id, since)
    known = set(named.values())
    joined = [ids.to_wire(ids.CONVERSATION, one) for one in entered if one not in known]
    answer = {"ok": True, "events": found, "joined": joined}
    room = deps.settings.max_body_bytes - len(encode(answer)) - OVERHEAD
    is_first = True
    for text, conversation_id in named.items():
        # One page at a time, so that those who sync much let the others have their turn.
        async with deps.database.dear_reads:
            page = await _page(conversation_id, command.conversations[text], SYNC_ITEMS)
        page, size = _fitting(page, room, is_first=is_first)
        room -= size + len(text) + OVERHEAD_PER_CONVERSATION
        is_first = is_first and not page.items
        found[text] = page
    return answer


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
