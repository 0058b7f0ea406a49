"""Who talks with whom."""

from uuid import UUID

from app import cursors, events, ids, store, views
from app.auth import policy
from app.auth.actor import Actor
from app.deps import Deps
from app.schemas import ConversationPage, ConversationView, CreateConversation
from app.store import NewConversation
from app.usecases.access import require_participant


async def create_conversation(
    deps: Deps, actor: Actor, command: CreateConversation
) -> tuple[ConversationView, bool]:
    """Create a conversation and tell its people; False with the first one where that pair has one.

    Raises ValidationFailed and Forbidden.
    """
    policy.require_write(actor)
    others = policy.others_of(deps.settings, actor, command)
    metadata = policy.check_metadata(deps.settings, command.metadata or {})
    is_group = command.type == "group"
    pair = None if is_group else _pair(actor.user_id, others[0])
    new = NewConversation(
        id=ids.new_id(),
        type=command.type,
        title=command.title,
        metadata=metadata.decode(),
        created_by=actor.user_id,
        owner_id=actor.user_id if is_group else None,
        direct_pair=pair,
        people=[actor.user_id, *others],
    )
    if not await store.create_conversation(new):
        assert pair is not None
        return await _view(actor, await store.direct_conversation(*pair)), False
    view = await _view(actor, new.id)
    listed = await _view(actor, new.id, views.LISTED_PARTICIPANTS)
    deps.fanout.announce_to(new.people, new.id, view.last_seq, events.conversation_new(listed))
    return view, True


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


async def get_conversation(actor: Actor, conversation_id: UUID) -> ConversationView:
    """Show a conversation with all its participants; raises Forbidden and NotFound."""
    policy.require_read(actor)
    await require_participant(conversation_id, actor)
    return await _view(actor, conversation_id)


async def list_conversations(actor: Actor, limit: int, cursor: str | None) -> ConversationPage:
    """Show a page of the actor's conversations, the one with the latest message first."""
    policy.require_read(actor)
    before = None if cursor is None else cursors.read_activity_cursor(actor.user_id, cursor, "cursor")
    rows = await store.list_conversations(actor.user_id, before, limit + 1)
    shown = rows[:limit]
    people = views.by_conversation(
        await store.participants([row["id"] for row in shown], actor.user_id, views.LISTED_PARTICIPANTS)
    )
    page = ConversationPage(items=[views.conversation(row, people[row["id"]]) for row in shown])
    if len(rows) > limit:
        last = shown[-1]
        page.next_cursor = cursors.activity_cursor(actor.user_id, last["activity_at"], last["id"])
    return page


async def _view(actor: Actor, conversation_id: UUID | None, most: int = 2**31 - 1) -> ConversationView:
    assert conversation_id is not None
    row = await store.get_conversation(conversation_id, actor.user_id)
    people = await store.participants([conversation_id], actor.user_id, most)
    assert row is not None
    return views.conversation(row, people)
