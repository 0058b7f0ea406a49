"""Use cases of conversations: create, list, show, change, hide and delete."""

import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from msgspec import UNSET, structs
from tortoise.exceptions import IntegrityError

from app.contract import cursors, events, ids
from app.contract.codec import encode, read_json
from app.contract.errors import Conflict
from app.contract.schemas import (
    ConversationPage,
    ConversationView,
    CreateConversation,
    UpdateConversation,
    timestamp,
)
from app.delivery.rooms import Invitation
from app.identity import policy, revocation
from app.identity.actor import Actor
from app.identity.rate_limits import Action
from app.messages import views
from app.observability import tracing
from app.postgres import conversation_rows, participant_rows
from app.postgres.statements import statement
from app.postgres.transactions import POOL, Row, Transaction, transaction
from app.usecases.access import admit, lock_users, require_known, require_participant
from app.usecases.changing import Changing, changing
from app.usecases.deps import Deps

CREATE = statement("create_conversation")
DIRECT = statement("find_direct_conversation")
CREATED_AS = statement("find_conversation_created_as")
UPDATE = statement("update_conversation")
STATE = statement("conversation_state")
HIDE = statement("hide_conversation")
SHOW = statement("show_conversation")
DISSOLVE = statement("dissolve_conversation")


async def create_conversation(
    deps: Deps, actor: Actor, command: CreateConversation, key: str | None
) -> tuple[ConversationView, bool]:
    """Create a conversation and announce it; False with the first one where that pair, or `key`, has one.

    Raises ValidationFailed, Forbidden, and Conflict where a deleted user is named or the key was used before for
    another group.
    """
    policy.require_write(actor)
    await deps.limits.check(Action.CREATE, actor.user_id)
    others = policy.others_of(deps.settings, actor, command)
    metadata = policy.check_metadata(deps.settings, command.metadata or {})
    is_group = command.type == "group"
    pair = (None, None) if is_group else _pair(actor.user_id, others[0])
    fingerprint = hashlib.blake2b(encode(command), digest_size=16).digest()
    people = [actor.user_id, *others]
    new_id = ids.new_id()
    try:
        async with transaction() as tx:
            await lock_users(tx, people)
            created = await tx.row(
                CREATE,
                new_id,
                command.type,
                command.title,
                metadata.decode(),
                actor.user_id,
                actor.user_id if is_group else None,
                *pair,
                people,
                key if is_group else None,
                fingerprint,
                actor.issued_second,
                deps.outbox.is_on,
                tracing.traceparent(),
            )
    except IntegrityError:
        created = None
    if created is None:
        before = _created_before(actor, key, fingerprint) if is_group else _direct_before(deps, actor, pair)
        if (view := await before) is not None:
            return view, False
        await require_known(POOL, others)
        await revocation.require_valid(actor)
        raise Conflict("Another conversation took this place at the same moment, create it again")
    deps.outbox.wake()
    await announce_new(deps, new_id, people)
    return await conversation_view(actor.user_id, new_id), True


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


async def _created_before(actor: Actor, key: str | None, fingerprint: bytes) -> ConversationView | None:
    found = await POOL.row(CREATED_AS, actor.user_id, key)
    if found is None:
        return None
    if found["fingerprint"] != fingerprint:
        raise Conflict("Idempotency-Key: was used for another conversation")
    await require_participant(found["id"], actor)
    return await conversation_view(actor.user_id, found["id"])


async def _direct_before(deps: Deps, actor: Actor, pair: tuple[str | None, str | None]) -> ConversationView | None:
    found = await POOL.row(DIRECT, *pair)
    if found is None:
        return None
    if await POOL.row(SHOW, found["id"], actor.user_id) is not None:
        await announce_new(deps, found["id"], [actor.user_id])
    return await conversation_view(actor.user_id, found["id"])


async def get_conversation(deps: Deps, actor: Actor, conversation_id: UUID) -> ConversationView:
    """Show a conversation with all its participants; raises Forbidden and NotFound."""
    policy.require_read(actor)
    await deps.limits.check(Action.READ, actor.user_id)
    await require_participant(conversation_id, actor)
    return await conversation_view(actor.user_id, conversation_id)


async def list_conversations(deps: Deps, actor: Actor, limit: int, cursor: str | None) -> ConversationPage:
    """Show a page of the actor's conversations, the one with the latest message first."""
    policy.require_read(actor)
    await deps.limits.check(Action.READ, actor.user_id)
    before = None if cursor is None else cursors.read_activity_cursor(actor.user_id, cursor, "cursor")
    async with deps.database.heavy_reads:
        rows = await conversation_rows.list_conversations(actor.user_id, before, limit + 1)
        shown = rows[:limit]
        people = views.by_conversation(
            await participant_rows.participants(
                [row["id"] for row in shown], actor.user_id, views.LISTED_PARTICIPANTS
            )
        )
    # One without anybody was deleted between the two statements.
    page = ConversationPage(
        items=[views.conversation(row, people[row["id"]]) for row in shown if row["id"] in people]
    )
    if len(rows) > limit:
        last = shown[-1]
        page.next_cursor = cursors.activity_cursor(actor.user_id, last["activity_at"], last["id"])
    return page


async def update_conversation(
    deps: Deps, actor: Actor, conversation_id: UUID, command: UpdateConversation
) -> ConversationView:
    """Change title and metadata of a group; raises ValidationFailed, Forbidden, NotFound and Conflict."""
    policy.require_write(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    metadata = None if command.metadata is UNSET else policy.check_metadata(deps.settings, command.metadata)
    async with changing(deps, conversation_id, actor) as (tx, conversation):
        policy.require_group(conversation.type)
        title = conversation.title if command.title is UNSET else command.title
        is_other = metadata is not None and read_json(metadata) != read_json(conversation.metadata)
        if title != conversation.title or is_other:
            text = metadata.decode() if metadata is not None else conversation.metadata
            await tx.execute(UPDATE, conversation_id, title, text)
            await note_update(tx, conversation)
    return await conversation_view(actor.user_id, conversation_id)


async def note_update(tx: Transaction, conversation: Changing) -> None:
    """Log what title, metadata and owner are now."""
    state = await tx.row(STATE, conversation.conversation_id)
    assert state is not None
    data: dict[str, Any] = {
        "title": state["title"],
        "metadata": read_json(state["metadata"]),
        "ownerId": state["owner_id"],
        "updatedAt": timestamp(state["updated_at"]),
    }
    conversation.add(
        events.conversation_updated(conversation.conversation_id, conversation.next_seq, data), data=data
    )


async def hide(tx: Transaction, conversation: Changing, user_id: str) -> bool:
    """Hide the direct conversation that is locked from somebody's list, until somebody writes; False if it is."""
    return await tx.row(HIDE, conversation.conversation_id, user_id) is not None


async def dissolve(tx: Transaction, conversation: Changing) -> None:
    """Delete the conversation that is locked: it is gone for everybody with the commit."""
    await tx.execute(DISSOLVE, conversation.conversation_id)
    conversation.dissolved = True


async def announce_new(deps: Deps, conversation_id: UUID, user_ids: Sequence[str]) -> None:
    """Send `conversation:new` to participants, wherever their sockets are."""
    for invitation in await _invitations(conversation_id, user_ids):
        deps.fanout.invite(invitation)


async def invitation(conversation_id: UUID, user_id: str) -> Invitation | None:
    """Read `conversation:new` as a participant is sent it; None for who is none."""
    found = await _invitations(conversation_id, [user_id])
    return found[0] if found else None


async def _invitations(conversation_id: UUID, user_ids: Sequence[str]) -> list[Invitation]:
    """Write `conversation:new` for people: each sees themselves first among twenty."""
    row = await _seen_by_one_of(conversation_id, user_ids)
    if row is None:
        return []
    everybody = await participant_rows.participants(
        [conversation_id], "", len(user_ids) + views.LISTED_PARTICIPANTS
    )
    view = views.conversation(row, [])
    found: list[Invitation] = []
    for person in await participant_rows.named_participants(conversation_id, user_ids):
        others = [other for other in everybody if other["user_id"] != person["user_id"]]
        shown = [views.participant(one) for one in [person, *others][: views.LISTED_PARTICIPANTS]]
        event = events.conversation_new(structs.replace(view, participants=shown))
        found.append(Invitation(person["user_id"], conversation_id, view.last_seq, event))
    return found


async def _seen_by_one_of(conversation_id: UUID, user_ids: Sequence[str]) -> Row | None:
    """Read a conversation as one of those sees it who have not been taken out again meanwhile."""
    for user_id in user_ids:
        if (row := await conversation_rows.get_conversation(conversation_id, user_id)) is not None:
            return row
    return None


async def conversation_view(user_id: str, conversation_id: UUID) -> ConversationView:
    """Read a conversation whole, as one of its participants sees it.

    Raises Forbidden and NotFound for who was removed at the same moment, or the conversation with them.
    """
    row = await conversation_rows.get_conversation(conversation_id, user_id)
    people = await participant_rows.participants([conversation_id], user_id, 2**31 - 1)
    if row is None:
        admit(conversation_id, *await participant_rows.membership(conversation_id, user_id))
        raise Conflict("You left the conversation and came back at the same moment, ask again")
    return views.conversation(row, people)
