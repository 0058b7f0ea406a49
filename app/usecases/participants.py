"""Who comes into a conversation, and who goes."""

from collections.abc import Sequence
from uuid import UUID

from app.contract import events
from app.contract.errors import Conflict, NotFound
from app.contract.schemas import AddParticipants, ConversationView, timestamp
from app.identity import policy
from app.identity.actor import Actor
from app.identity.rate_limits import Action
from app.messages import views
from app.postgres import store
from app.usecases.access import lock_users, require_known
from app.usecases.changing import Changing, changing
from app.usecases.conversations import conversation_view, dissolve, hide, note_update, welcome
from app.usecases.deps import Deps

# Those who are in already are left as they are; a newcomer starts with nothing unread.
ENTER = """
WITH entered AS (
    INSERT INTO participants (conversation_id, user_id, role, joined_at, last_read_seq)
    SELECT $1, person.user_id, 'member', clock_timestamp(), $3
    FROM unnest($2::text[]) WITH ORDINALITY AS person (user_id, place)
    ORDER BY person.place
    ON CONFLICT (conversation_id, user_id) DO NOTHING
    RETURNING user_id, role, joined_at, last_read_seq, last_read_at
), noticed AS (
    INSERT INTO notices (kind, user_id, conversation_id) SELECT 'joined', user_id, $1 FROM entered
)
SELECT * FROM entered ORDER BY joined_at
"""

COUNT = "SELECT count(*) AS count FROM participants WHERE conversation_id = $1"

PROFILES = "SELECT id, display_name, avatar_url FROM users WHERE id = ANY($1::text[])"

LEAVE = """
WITH gone AS (
    DELETE FROM participants WHERE conversation_id = $1 AND user_id = $2 RETURNING conversation_id, user_id
), remembered AS (
    INSERT INTO former_participants (user_id, conversation_id)
    SELECT user_id, conversation_id FROM gone
    ON CONFLICT DO NOTHING
)
SELECT user_id FROM gone
"""

# The one who has been there longest takes over, then the one with the lower id.
HEIR = """
SELECT user_id FROM participants WHERE conversation_id = $1 ORDER BY joined_at, user_id COLLATE "C" LIMIT 1
"""

HAND_OVER = """
WITH owned AS (UPDATE conversations SET owner_id = $2, updated_at = clock_timestamp() WHERE id = $1)
UPDATE participants SET role = 'owner' WHERE conversation_id = $1 AND user_id = $2
"""

# Those that somebody was in when they were deleted: what they entered since, having come back, they stay in.
GROUPS = """
SELECT p.conversation_id
FROM participants p
JOIN conversations c ON c.id = p.conversation_id
JOIN users u ON u.id = p.user_id
WHERE p.user_id = $1 AND c.type = 'group' AND p.joined_at < to_timestamp(u.refused_until + 1)
ORDER BY p.conversation_id
LIMIT $2
"""


async def add_participants(
    deps: Deps, actor: Actor, conversation_id: UUID, command: AddParticipants
) -> ConversationView:
    """Add people to a group; who is in already is no error.

    Raises ValidationFailed, Forbidden, NotFound, and Conflict for a direct conversation, for one participant too
    many, and for a user who was deleted and not synced again.
    """
    policy.require_write(actor)
    await deps.limits.check(Action.CREATE, actor.user_id)
    wanted = policy.people_of(command)
    async with changing(deps, conversation_id, actor) as conversation:
        policy.require_group(conversation.type)
        await lock_users(wanted)
        await require_known(wanted)
        added = await _enter(conversation, actor.user_id, wanted)
        count = await store.row(COUNT, conversation_id)
        if count is None or count["count"] > deps.settings.max_participants:
            raise Conflict(f"A conversation has {deps.settings.max_participants} participants at most")
    if added:
        await welcome(deps, conversation_id, added)
    return await conversation_view(actor.user_id, conversation_id)


async def _enter(conversation: Changing, added_by: str, wanted: Sequence[str]) -> list[str]:
    entered = await store.rows(ENTER, conversation.conversation_id, list(wanted), conversation.last_seq)
    profiles = {row["id"]: row for row in await store.rows(PROFILES, [row["user_id"] for row in entered])}
    nobody = {"display_name": None, "avatar_url": None}
    for row in entered:
        person = views.participant({**row, **profiles.get(row["user_id"], nobody)})
        change = events.participant_added(conversation.conversation_id, conversation.next_seq, person, added_by)
        data = {
            "userId": row["user_id"],
            "role": row["role"],
            "joinedAt": timestamp(row["joined_at"]),
            "lastReadSeq": row["last_read_seq"],
            "addedBy": added_by,
        }
        conversation.add(change, data=data)
    return [row["user_id"] for row in entered]


async def remove_participant(deps: Deps, actor: Actor, conversation_id: UUID, user_id: str) -> None:
    """Take somebody out of a group: oneself, or others where one is the owner; nobody where they are not in.

    Raises Forbidden, NotFound, and Conflict for a direct conversation.
    """
    policy.require_write(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    async with changing(deps, conversation_id, actor) as conversation:
        policy.require_group(conversation.type)
        policy.check_removal(actor, user_id, conversation.owner_id)
        await depart(conversation, user_id, actor.user_id)


async def leave_conversation(deps: Deps, actor: Actor, conversation_id: UUID) -> None:
    """Leave a group, or hide a direct conversation from oneself; raises Forbidden and NotFound."""
    policy.require_write(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    async with changing(deps, conversation_id, actor) as conversation:
        is_hidden = False
        if conversation.type == "group":
            await depart(conversation, actor.user_id, actor.user_id)
        else:
            is_hidden = await hide(conversation, actor.user_id)
    if is_hidden:
        deps.fanout.tell([actor.user_id], events.conversation_hidden(conversation_id))


async def depart(conversation: Changing, user_id: str, removed_by: str) -> None:
    """Take somebody out, hand over what they own, and dissolve what nobody is left in."""
    conversation_id = conversation.conversation_id
    if await store.row(LEAVE, conversation_id, user_id) is None:
        return
    heir = await store.row(HEIR, conversation_id)
    if heir is None:
        await dissolve(conversation)
        return
    change = events.participant_removed(conversation_id, conversation.next_seq, user_id, removed_by)
    conversation.add(change, data={"userId": user_id, "removedBy": removed_by})
    if conversation.owner_id == user_id:
        await store.row(HAND_OVER, conversation_id, heir["user_id"])
        await note_update(conversation)


async def leave_groups(deps: Deps, user_id: str, most: int) -> bool:
    """Take a user who was deleted out of their groups, so many at most; True where some may be left."""
    found = await store.rows(GROUPS, user_id, most)
    for group in found:
        try:
            async with changing(deps, group["conversation_id"], None) as conversation:
                await depart(conversation, user_id, user_id)
        except NotFound:
            continue
    return len(found) == most
