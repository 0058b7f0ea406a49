"""Use cases of webhooks, for the master's operators: list them, replay one."""

from typing import Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType
from tortoise.exceptions import IntegrityError

from app.contract import cursors, ids
from app.contract.errors import Conflict, NotFound
from app.contract.fields import Timestamp
from app.contract.schemas import timestamp
from app.postgres.statements import statement
from app.postgres.transactions import POOL, Row
from app.usecases.deps import Deps

Status = Literal["pending", "delivered", "dead"]

LIST = statement("list_webhooks")
LIST_ALL = statement("list_all_webhooks")

_STATES: dict[Status, tuple[str, str | None]] = {
    "pending": ("new", "due"),
    "delivered": ("delivered", None),
    "dead": ("dead", None),
}

REPLAY = statement("replay_webhook")
EXISTS = statement("webhook_exists")


class WebhookView(msgspec.Struct, rename="camel"):
    """One webhook; `nextAttemptAt` is there while it is pending."""

    id: str
    event: str
    status: Status
    attempts: int
    created_at: Timestamp
    last_status_code: int | UnsetType = UNSET
    last_error: str | UnsetType = UNSET
    next_attempt_at: Timestamp | UnsetType = UNSET
    delivered_at: Timestamp | UnsetType = UNSET


class WebhookPage(msgspec.Struct, rename="camel"):
    items: list[WebhookView]
    next_cursor: str | UnsetType = UNSET


async def list_webhooks(status: Status | None, limit: int, cursor: str | None) -> WebhookPage:
    """Show a page of the webhooks of one status, or of all, the oldest first; raises ValidationFailed."""
    after = UUID(int=0) if cursor is None else cursors.read_id_cursor(ids.WEBHOOK, cursor, "cursor")
    if status is None:
        rows = await POOL.rows(LIST_ALL, after, limit + 1)
    else:
        rows = await POOL.rows(LIST, *_STATES[status], after, limit + 1)
    page = WebhookPage([_view(row) for row in rows[:limit]])
    if len(rows) > limit:
        page.next_cursor = cursors.id_cursor(ids.WEBHOOK, rows[limit - 1]["id"])
    return page


def _view(row: Row) -> WebhookView:
    return WebhookView(
        id=ids.to_wire(ids.WEBHOOK, row["id"]),
        event=row["event"],
        status="pending" if row["state"] in {"new", "due"} else row["state"],
        attempts=row["attempts"],
        created_at=timestamp(row["created_at"]),
        last_status_code=UNSET if row["last_status_code"] is None else row["last_status_code"],
        last_error=row["last_error"] or UNSET,
        next_attempt_at=timestamp(row["due_at"]) if row["due_at"] else UNSET,
        delivered_at=timestamp(row["delivered_at"]) if row["delivered_at"] else UNSET,
    )


async def replay_webhook(deps: Deps, webhook_id: UUID) -> None:
    """Have a webhook sent again under the same id; raises NotFound, and Conflict where a newer one replaces it."""
    try:
        is_replayed = await POOL.row(REPLAY, webhook_id) is not None
    except IntegrityError:
        # The newer one was written at the same moment.
        is_replayed = False
    if not is_replayed and await POOL.row(EXISTS, webhook_id) is not None:
        raise Conflict("There is a newer change of the same user's presence")
    if not is_replayed:
        raise NotFound(f"There is no webhook {ids.to_wire(ids.WEBHOOK, webhook_id)!r}")
    deps.outbox.wake()
