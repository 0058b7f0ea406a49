"""Use cases of conversations, for the master's operators: list all, delete one."""

from uuid import UUID

from app.contract import cursors, ids
from app.contract.schemas import ConversationPage
from app.messages import views
from app.postgres import conversation_rows, participant_rows
from app.usecases.changing import changing
from app.usecases.conversations import dissolve
from app.usecases.deps import Deps


async def list_conversations(
    deps: Deps, limit: int, cursor: str | None, kind: str | None, user_id: str | None
) -> ConversationPage:
    """Show a page of all conversations, by id; raises ValidationFailed."""
    after = None if cursor is None else cursors.read_id_cursor(ids.CONVERSATION, cursor, "cursor")
    async with deps.database.heavy_reads:
        rows = await conversation_rows.all_conversations(after, kind, user_id, limit + 1)
        shown = rows[:limit]
        found_ids = [row["id"] for row in shown]
        people = views.by_conversation(
            await participant_rows.participants(found_ids, "", views.LISTED_PARTICIPANTS)
        )
    page = ConversationPage(items=[views.conversation(row, people.get(row["id"], [])) for row in shown])
    if len(rows) > limit:
        page.next_cursor = cursors.id_cursor(ids.CONVERSATION, shown[-1]["id"])
    return page


async def delete_conversation(deps: Deps, conversation_id: UUID) -> None:
    """Delete a conversation for everybody; raises NotFound, also the second time."""
    async with changing(deps, conversation_id, None) as (tx, conversation):
        await dissolve(tx, conversation)
