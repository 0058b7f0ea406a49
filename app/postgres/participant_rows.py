"""Rows of participants: who is in a conversation, and which conversations somebody is in."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from app.postgres.statements import statement
from app.postgres.transactions import POOL, Executor, Row

MEMBERSHIP = statement("membership")
MEMBERSHIPS = statement("memberships")
PARTICIPANTS = statement("list_participants")
NAMED_PARTICIPANTS = statement("named_participants")
PARTICIPANT_COUNT = statement("participant_count")
JOINED_SINCE = statement("joined_since")
ADMISSIONS = statement("admissions")


async def membership(conversation_id: UUID, user_id: str) -> tuple[bool, bool]:
    """Tell whether the conversation exists, and whether the user is in it."""
    found = await POOL.row(MEMBERSHIP, conversation_id, user_id)
    return (found["known"], found["member"]) if found else (False, False)


async def memberships(conversation_ids: Sequence[UUID], user_id: str) -> dict[UUID, tuple[bool, bool]]:
    """Tell of each conversation whether it exists, and whether the user is in it."""
    found = await POOL.rows(MEMBERSHIPS, list(conversation_ids), user_id)
    return {one["conversation_id"]: (one["known"], one["member"]) for one in found}


async def participants(conversation_ids: list[UUID], reader: str, most: int) -> list[Row]:
    """Read the participants of conversations, the reader first, at most so many of each."""
    return await POOL.rows(PARTICIPANTS, conversation_ids, reader, most)


async def named_participants(conversation_id: UUID, user_ids: Sequence[str]) -> list[Row]:
    """Read those of the users who are in a conversation."""
    return await POOL.rows(NAMED_PARTICIPANTS, conversation_id, list(user_ids))


async def participant_count(executor: Executor, conversation_id: UUID) -> int:
    found = await executor.row(PARTICIPANT_COUNT, conversation_id)
    return found["count"] if found else 0


async def joined_since(user_id: str, since: datetime) -> list[UUID]:
    """List the conversations that somebody has joined since a time, and is in."""
    found = await POOL.rows(JOINED_SINCE, user_id, since)
    return [joined["conversation_id"] for joined in found]


async def admissions(tokens: Sequence[tuple[str, int]]) -> list[list[UUID] | None]:
    """List the conversations of each user; None where the token, of a second, was revoked by their deletion."""
    admitted: list[list[UUID]] = [[] for _ in tokens]
    refused: set[int] = set()
    found = await POOL.rows(ADMISSIONS, [user_id for user_id, _ in tokens], [second for _, second in tokens])
    for one in found:
        place = one["place"] - 1
        if one["conversation_id"] is None:
            refused.add(place)
        else:
            admitted[place].append(one["conversation_id"])
    return [None if place in refused else mine for place, mine in enumerate(admitted)]
