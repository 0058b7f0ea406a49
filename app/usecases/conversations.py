"""Who talks with whom."""

import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from msgspec import UNSET, structs
from tortoise.exceptions import IntegrityError

from app.contract import cursors, events, ids
from app.contract.codec import encode, read_json
from app.contract.errors import Conflict, Unauthorized
from app.contract.schemas import (
    ConversationPage,
    ConversationView,
    CreateConversation,
    UpdateConversation,
    timestamp,
)
from app.delivery.rooms import Invitation
from app.identity import policy
from app.identity.actor import Actor
from app.identity.rate_limits import Action
from app.messages import views
from app.observability import tracing
from app.postgres import queries, store
from app.postgres.database import transaction
from app.usecases.access import admit, is_refused, lock_users, require_known, require_participant
from app.usecases.changing import Changing, changing
from app.usecases.deps import Deps

# Two people who create their conversation at the same moment get the same one: the loser waits and finds it.
CREATE = """
WITH created AS (
    INSERT INTO conversations (id, type, title, metadata, created_by, owner_id, direct_low, direct_high,
                               creation_key, fingerprint, created_at, updated_at)
    SELECT $1, $2, $3, $4::text::jsonb, $5::varchar, $6::varchar, $7, $8, $10, $11, now(), now()
    WHERE NOT EXISTS (SELECT 1 FROM users WHERE id = $5::varchar AND refused_until >= $12)
          AND NOT EXISTS (
              SELECT 1 FROM users WHERE id = ANY($9::text[]) AND id <> $5::varchar AND deleted_at IS NOT NULL
          )
    ON CONFLICT (direct_low, direct_high) DO NOTHING
    RETURNING id, created_at
), noticed AS (
    INSERT INTO notices (kind, user_id, conversation_id)
    SELECT 'joined', person.user_id, created.id FROM created, unnest($9::text[]) AS person (user_id)
), head AS (
    INSERT INTO conversation_heads (conversation_id, last_seq, last_message_seq, activity_at)
    SELECT id, 0, 0, created_at FROM created
), told AS (
    INSERT INTO webhooks (id, event, conversation_id, seq, user_id, data, created_at, traceparent)
    SELECT id, 'conversation.created', id, 0, $5::varchar,
           json_build_object('type', $2::text, 'participantIds', $9::text[])::jsonb, created_at, $14
    FROM created WHERE $13
)
INSERT INTO participants (conversation_id, user_id, role, joined_at, last_read_seq)
SELECT created.id, person.user_id, CASE WHEN person.user_id = $6::varchar THEN 'owner' ELSE 'member' END,
       created.created_at, 0
FROM created, unnest($9::text[]) AS person (user_id)
RETURNING conversation_id
"""

DIRECT = "SELECT id FROM conversations WHERE direct_low = $1 AND direct_high = $2"

CREATED_AS = "SELECT id, fingerprint FROM conversations WHERE created_by = $1 AND creation_key = $2"

UPDATE = """
UPDATE conversations SET title = $2, metadata = $3::text::jsonb, updated_at = clock_timestamp() WHERE id = $1
"""

STATE = "SELECT title, metadata, owner_id, updated_at FROM conversations WHERE id = $1"

HIDE = """
WITH head AS (
    UPDATE conversation_heads SET is_hidden = true WHERE conversation_id = $1 RETURNING last_message_seq
)
UPDATE participants SET hidden_seq = head.last_message_seq
FROM head
WHERE conversation_id = $1 AND user_id = $2 AND (hidden_seq IS NULL OR hidden_seq < head.last_message_seq)
RETURNING id
"""

SHOW = """
UPDATE participants p SET hidden_seq = NULL
FROM conversation_heads h
WHERE h.conversation_id = $1 AND p.conversation_id = $1 AND p.user_id = $2 AND p.hidden_seq >= h.last_message_seq
RETURNING p.id
"""

# What takes long, the messages above all, goes in the background.
DISSOLVE = """
WITH gone AS (
    DELETE FROM participants WHERE conversation_id = $1 RETURNING conversation_id, user_id
), remembered AS (
    INSERT INTO former_participants (user_id, conversation_id)
    SELECT user_id, conversation_id FROM gone
    ON CONFLICT DO NOTHING
), head AS (
    DELETE FROM conversation_heads WHERE conversation_id = $1
), noticed AS (
    INSERT INTO notices (kind, conversation_id) VALUES ('dissolved', $1)
), chore AS (
    INSERT INTO chores (kind, subject) VALUES ('purge', $1::uuid::text) ON CONFLICT DO NOTHING
)
DELETE FROM conversations WHERE id = $1
"""


async def create_conversation(
    deps: Deps, actor: Actor, command: CreateConversation, key: str | None
) -> tuple[ConversationView, bool]:
    """Create a conversation and tell its people; False with the first one where that pair, or `key`, has one.

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
        async with transaction():
            await lock_users(people)
            created = await store.row(
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
        await require_known(others)
        if await is_refused(actor):
            raise Unauthorized("The user was deleted")
        raise Conflict("Another conversation took this place at the same moment, create it again")
    deps.outbox.wake()
    await welcome(deps, new_id, people)
    return await conversation_view(actor.user_id, new_id), True


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


async def _created_before(actor: Actor, key: str | None, fingerprint: bytes) -> ConversationView | None:
    found = await store.row(CREATED_AS, actor.user_id, key)
    if found is None:
        return None
    if found["fingerprint"] != fingerprint:
        raise Conflict("Idempotency-Key: was used for another conversation")
    await require_participant(found["id"], actor)
    return await conversation_view(actor.user_id, found["id"])


async def _direct_before(deps: Deps, actor: Actor, pair: tuple[str | None, str | None]) -> ConversationView | None:
    found = await store.row(DIRECT, *pair)
    if found is None:
        return None
    if await store.row(SHOW, found["id"], actor.user_id) is not None:
        await welcome(deps, found["id"], [actor.user_id])
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
    async with deps.database.dear_reads:
        rows = await queries.list_conversations(actor.user_id, before, limit + 1)
        shown = rows[:limit]
        people = views.by_conversation(
            await queries.participants([row["id"] for row in shown], actor.user_id, views.LISTED_PARTICIPANTS)
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
    async with changing(deps, conversation_id, actor) as conversation:
        policy.require_group(conversation.type)
        title = conversation.title if command.title is UNSET else command.title
        is_other = metadata is not None and read_json(metadata) != read_json(conversation.metadata)
        if title != conversation.title or is_other:
            text = metadata.decode() if metadata is not None else conversation.metadata
            await store.rows(UPDATE, conversation_id, title, text)
            await note_update(conversation)
    return await conversation_view(actor.user_id, conversation_id)


async def note_update(conversation: Changing) -> None:
    """Log what title, metadata and owner are now."""
    state = await store.row(STATE, conversation.conversation_id)
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


async def hide(conversation: Changing, user_id: str) -> bool:
    """Hide the direct conversation that is held from somebody's list, until somebody writes; False if it is."""
    return await store.row(HIDE, conversation.conversation_id, user_id) is not None


async def dissolve(conversation: Changing) -> None:
    """Delete the conversation that is held: it is gone for everybody with the commit."""
    await store.rows(DISSOLVE, conversation.conversation_id)
    conversation.dissolved = True


async def welcome(deps: Deps, conversation_id: UUID, user_ids: Sequence[str]) -> None:
    """Send `conversation:new` to people who are in, wherever their sockets are."""
    for invitation in await _invitations(conversation_id, user_ids):
        deps.fanout.invite(invitation)


async def invitation(conversation_id: UUID, user_id: str) -> Invitation | None:
    """Read what somebody who is in a conversation is told of it; None for who is not."""
    found = await _invitations(conversation_id, [user_id])
    return found[0] if found else None


async def _invitations(conversation_id: UUID, user_ids: Sequence[str]) -> list[Invitation]:
    """Write `conversation:new` for people: each sees themselves first among twenty."""
    row = await _seen_by_one_of(conversation_id, user_ids)
    if row is None:
        return []
    everybody = await queries.participants([conversation_id], "", len(user_ids) + views.LISTED_PARTICIPANTS)
    view = views.conversation(row, [])
    found: list[Invitation] = []
    for person in await queries.named_participants(conversation_id, user_ids):
        others = [other for other in everybody if other["user_id"] != person["user_id"]]
        shown = [views.participant(one) for one in [person, *others][: views.LISTED_PARTICIPANTS]]
        event = events.conversation_new(structs.replace(view, participants=shown))
        found.append(Invitation(person["user_id"], conversation_id, view.last_seq, event))
    return found


async def _seen_by_one_of(conversation_id: UUID, user_ids: Sequence[str]) -> store.Row | None:
    """Read a conversation as one of those sees it who have not been taken out again meanwhile."""
    for user_id in user_ids:
        if (row := await queries.get_conversation(conversation_id, user_id)) is not None:
            return row
    return None


async def conversation_view(user_id: str, conversation_id: UUID) -> ConversationView:
    """Read a conversation whole, as one of its participants sees it.

    Raises Forbidden and NotFound for who was removed at the same moment, or the conversation with them.
    """
    row = await queries.get_conversation(conversation_id, user_id)
    people = await queries.participants([conversation_id], user_id, 2**31 - 1)
    if row is None:
        admit(conversation_id, *await queries.membership(conversation_id, user_id))
        raise Conflict("You left the conversation and came back at the same moment, ask again")
    return views.conversation(row, people)
