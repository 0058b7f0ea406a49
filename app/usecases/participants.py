"""Use cases of participants: add, remove, leave, and hand over a group."""

from collections.abc import Sequence
from uuid import UUID

from app.contract import events
from app.contract.errors import Conflict, NotFound
from app.contract.schemas import AddParticipants, ConversationView, timestamp
from app.identity import policy
from app.identity.actor import Actor
from app.identity.rate_limits import Action
from app.messages import views
from app.postgres import participant_rows
from app.postgres.statements import statement
from app.postgres.transactions import POOL, Transaction
from app.usecases.access import lock_users, require_known
from app.usecases.changing import Changing, changing
from app.usecases.conversations import announce_new, conversation_view, dissolve, hide, note_update
from app.usecases.deps import Deps

ADD = statement("add_participants")
PROFILES = statement("profiles")
REMOVE = statement("remove_participant")
NEXT_OWNER = statement("next_owner")
HAND_OVER = statement("hand_over_group")
GROUPS = statement("groups_of_deleted_user")


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
    async with changing(deps, conversation_id, actor) as (tx, conversation):
        policy.require_group(conversation.type)
        await lock_users(tx, wanted)
        await require_known(tx, wanted)
        added = await _add(tx, conversation, actor.user_id, wanted)
        if await participant_rows.participant_count(tx, conversation_id) > deps.settings.max_participants:
            raise Conflict(f"A conversation has {deps.settings.max_participants} participants at most")
    if added:
        await announce_new(deps, conversation_id, added)
    return await conversation_view(actor.user_id, conversation_id)


async def _add(tx: Transaction, conversation: Changing, added_by: str, wanted: Sequence[str]) -> list[str]:
    added = await tx.rows(ADD, conversation.conversation_id, list(wanted), conversation.last_seq)
    profiles = {row["id"]: row for row in await tx.rows(PROFILES, [row["user_id"] for row in added])}
    nobody = {"display_name": None, "avatar_url": None}
    for row in added:
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
    return [row["user_id"] for row in added]


async def remove_participant(deps: Deps, actor: Actor, conversation_id: UUID, user_id: str) -> None:
    """Take somebody out of a group: oneself, or others where one is the owner; nobody where they are not in.

    Raises Forbidden, NotFound, and Conflict for a direct conversation.
    """
    policy.require_write(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    async with changing(deps, conversation_id, actor) as (tx, conversation):
        policy.require_group(conversation.type)
        policy.check_removal(actor, user_id, conversation.owner_id)
        await depart(tx, conversation, user_id, actor.user_id)


async def leave_conversation(deps: Deps, actor: Actor, conversation_id: UUID) -> None:
    """Leave a group, or hide a direct conversation from oneself; raises Forbidden and NotFound."""
    policy.require_write(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    async with changing(deps, conversation_id, actor) as (tx, conversation):
        is_hidden = False
        if conversation.type == "group":
            await depart(tx, conversation, actor.user_id, actor.user_id)
        else:
            is_hidden = await hide(tx, conversation, actor.user_id)
    if is_hidden:
        deps.fanout.publish_to_users([actor.user_id], events.conversation_hidden(conversation_id))


async def depart(tx: Transaction, conversation: Changing, user_id: str, removed_by: str) -> None:
    """Take somebody out, hand over what they own, and dissolve what nobody is left in."""
    conversation_id = conversation.conversation_id
    if await tx.row(REMOVE, conversation_id, user_id) is None:
        return
    next_owner = await tx.row(NEXT_OWNER, conversation_id)
    if next_owner is None:
        await dissolve(tx, conversation)
        return
    change = events.participant_removed(conversation_id, conversation.next_seq, user_id, removed_by)
    conversation.add(change, data={"userId": user_id, "removedBy": removed_by})
    if conversation.owner_id == user_id:
        await tx.execute(HAND_OVER, conversation_id, next_owner["user_id"])
        await note_update(tx, conversation)


async def leave_groups(deps: Deps, user_id: str, most: int) -> bool:
    """Take a user who was deleted out of their groups, so many at most; True where some may be left."""
    found = await POOL.rows(GROUPS, user_id, most)
    for group in found:
        try:
            async with changing(deps, group["conversation_id"], None) as (tx, conversation):
                await depart(tx, conversation, user_id, user_id)
        except NotFound:
            continue
    return len(found) == most
