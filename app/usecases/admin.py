"""What the master's operators see and do."""

import asyncio
import time
from uuid import UUID

import msgspec

from app import cursors, ids, queries, store, views
from app.deps import Deps
from app.schemas import ConversationPage
from app.usecases.changing import changing
from app.usecases.conversations import dissolve

STATS_AGE = 30.0
# Below this the planner's estimate is not trusted: the rows are counted.
EXACT_BELOW = 1_000_000

# The upper bound leaves nothing out: it tells the planner that a day is little, who would guess a third of it all.
STATS = """
SELECT (SELECT count(*) FROM users WHERE deleted_at IS NULL) AS users,
       (SELECT count(*) FROM conversations) AS conversations,
       (SELECT reltuples FROM pg_class WHERE oid = 'messages'::regclass)::bigint AS estimate,
       (SELECT count(*) FROM messages
        WHERE id BETWEEN $1 AND 'ffffffff-ffff-ffff-ffff-ffffffffffff') AS last24h,
       (SELECT count(*) FROM webhooks WHERE state IN ('new', 'due')) AS webhooks_pending,
       (SELECT count(*) FROM webhooks WHERE state = 'dead') AS webhooks_dead
"""

COUNT_MESSAGES = "SELECT count(*) AS count FROM messages"


class MessageCount(msgspec.Struct, rename="camel"):
    total: int
    last24h: int
    total_is_estimate: bool


class WebhookCount(msgspec.Struct):
    pending: int
    dead: int


class StatsView(msgspec.Struct, rename="camel"):
    """What is there, over all pods."""

    users: int
    conversations: int
    messages: MessageCount
    sockets: int
    users_online: int
    webhooks: WebhookCount


class Stats:
    """What `GET /api/admin/stats` answers, read at most every 30 s."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._found: StatsView | None = None
        self._read_at = 0.0

    async def get(self, deps: Deps) -> StatsView:
        async with self._lock:
            if self._found is None or time.monotonic() - self._read_at > STATS_AGE:
                self._found = await self._read(deps)
                self._read_at = time.monotonic()
            return self._found

    async def _read(self, deps: Deps) -> StatsView:
        async with deps.database.dear_reads:
            counted = await store.row(STATS, ids.first_of(time.time() - 86_400))
            assert counted is not None
            is_estimate = counted["estimate"] >= EXACT_BELOW
            total = counted["estimate"]
            if not is_estimate:
                exact = await store.row(COUNT_MESSAGES)
                total = exact["count"] if exact else 0
        sockets, users_online = await deps.presence.counts()
        return StatsView(
            users=counted["users"],
            conversations=counted["conversations"],
            messages=MessageCount(total, counted["last24h"], is_estimate),
            sockets=sockets,
            users_online=users_online,
            webhooks=WebhookCount(counted["webhooks_pending"], counted["webhooks_dead"]),
        )


async def list_conversations(
    deps: Deps, limit: int, cursor: str | None, kind: str | None, user_id: str | None
) -> ConversationPage:
    """Show a page of all conversations, by id; raises ValidationFailed."""
    after = None if cursor is None else cursors.read_id_cursor(ids.CONVERSATION, cursor, "cursor")
    async with deps.database.dear_reads:
        rows = await queries.all_conversations(after, kind, user_id, limit + 1)
        shown = rows[:limit]
        found_ids = [row["id"] for row in shown]
        people = views.by_conversation(await queries.participants(found_ids, "", views.LISTED_PARTICIPANTS))
    page = ConversationPage(items=[views.conversation(row, people.get(row["id"], [])) for row in shown])
    if len(rows) > limit:
        page.next_cursor = cursors.id_cursor(ids.CONVERSATION, shown[-1]["id"])
    return page


async def delete_conversation(deps: Deps, conversation_id: UUID) -> None:
    """Delete a conversation for everybody; raises NotFound, also the second time."""
    async with changing(deps, conversation_id, None) as conversation:
        await dissolve(conversation)
