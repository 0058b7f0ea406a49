"""The routes of the master's own calls: profiles, and what its operators see and do."""

from typing import Literal, cast, get_args

from sanic import Blueprint, HTTPResponse, Request

from app.contract import ids
from app.contract.codec import reject
from app.contract.errors import Conflict, NotFound, PayloadTooLarge
from app.contract.schemas import ConversationPage, SyncUser, SyncUsers, UserView, decode_users
from app.rest.connection import Exchange
from app.rest.guards import answer, body_of, deps_of, limit_of, query_of, require_internal, user_id_of
from app.rest.operations import CURSOR, Limit, Parameter, endpoint
from app.usecases import admin, stats, users, webhooks

users_blueprint = Blueprint("users", url_prefix="/api/users")
admin_blueprint = Blueprint("admin", url_prefix="/api/admin")
users_blueprint.middleware(require_internal, "request")
admin_blueprint.middleware(require_internal, "request")

ACCEPTED = 202
EMPTY = 204
MAX_BATCH_BYTES = 8 << 20
# So many of those are read and stored at the same time.
BATCHES_AT_ONCE = 2
LISTED = Limit(usual=20, most=100)
ERASE = Parameter("erase", "`messages`: each of their messages is deleted too.", Literal["messages"])
TYPE = Parameter("type", "Only those of this type.", Literal["direct", "group"])
STATUS = Parameter("status", "Only those with this status.", webhooks.Status)
USER = Parameter("userId", "Only those that this user is in.")

_stats = stats.Stats()


@users_blueprint.post("/sync")
@endpoint(body=SyncUser, answers={200: users.Synced})
async def sync_user(request: Request) -> HTTPResponse:
    """Store a profile as the host application has it."""
    await users.sync_user(deps_of(request), body_of(request, SyncUser))
    return answer(users.Synced(success=True))


@users_blueprint.post("/sync/batch", stream=True)
@endpoint(body=SyncUsers, answers={200: users.SyncReport}, needs_database=False)
async def sync_users(request: Request) -> HTTPResponse:
    """Store many profiles.

    They are 1,000 at most, in 8 MiB. A bad entry does not sink the others: it is listed in `failed`. Of duplicates
    the last wins.
    """
    deps = deps_of(request)
    # Those that wait here are not read from: many at once would take more room than all bodies may.
    async with request.app.ctx.large_bodies:
        # How long it takes to come is not PostgreSQL's doing.
        command = decode_users(await _large_body(request))
        return answer(await deps.database.serve(lambda: users.sync_users(deps, command)))


async def _large_body(request: Request) -> bytes:
    """Read a body that may be larger than others; raises PayloadTooLarge before it is read whole."""
    stream = cast("Exchange", request.stream)
    if stream is None:
        raise reject("body", "is missing")
    stream.request_max_size = MAX_BATCH_BYTES
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BATCH_BYTES:
        raise PayloadTooLarge(f"The body is larger than {MAX_BATCH_BYTES} bytes")
    parts = []
    while (part := await stream.read()) is not None:
        parts.append(part)
    stream.protocol.app.ctx.connections.work(stream.protocol)
    return b"".join(parts)


@users_blueprint.get("/<user_id:str>", ignore_body=False)
@endpoint(answers={200: UserView})
async def get_user(_: Request, user_id: str) -> HTTPResponse:
    """Show a profile.

    There is none of a user who was never synced, or was deleted: 404.
    """
    return answer(await users.get_user(user_id_of(user_id)))


# Of `/sync` Sanic takes only the methods that it has a route of its own for.
@users_blueprint.get("/sync", ignore_body=False)
@endpoint(answers={200: UserView}, errors=(NotFound,))
async def get_user_called_sync(_: Request) -> HTTPResponse:
    """Show the profile of the user whose id is `sync`."""
    return answer(await users.get_user("sync"))


@users_blueprint.delete("/<user_id:str>", ignore_body=False)
@endpoint(parameters=(ERASE,), answers={EMPTY: None})
async def delete_user(request: Request, user_id: str) -> HTTPResponse:
    """Forget a user.

    The profile goes, sockets are closed, groups are left, and tokens issued so far are refused for good. Direct
    conversations stay. It is no error the second time.
    """
    return await _delete_user(request, user_id_of(user_id))


@users_blueprint.delete("/sync", ignore_body=False)
@endpoint(parameters=(ERASE,), answers={EMPTY: None})
async def delete_user_called_sync(request: Request) -> HTTPResponse:
    """Forget the user whose id is `sync`."""
    return await _delete_user(request, "sync")


async def _delete_user(request: Request, user_id: str) -> HTTPResponse:
    erase = query_of(request, "erase")
    if erase not in {None, "messages"}:
        raise reject("erase", "must be `messages` or left out")
    await users.delete_user(deps_of(request), user_id, erase=erase is not None)
    return HTTPResponse(status=EMPTY)


@admin_blueprint.get("/conversations", ignore_body=False)
@endpoint(parameters=(LISTED.parameter, CURSOR, TYPE, USER), answers={200: ConversationPage})
async def list_all_conversations(request: Request) -> HTTPResponse:
    """List all conversations.

    They come by id, and with nobody's unread count: that is 0.
    """
    kind = query_of(request, "type")
    if kind not in {None, "direct", "group"}:
        raise reject("type", "must be `direct` or `group`")
    user_id = query_of(request, "userId")
    if user_id is not None and "\x00" in user_id:
        raise reject("userId", "must not contain NUL characters")
    limit = limit_of(request, LISTED)
    cursor = query_of(request, "cursor")
    return answer(await admin.list_conversations(deps_of(request), limit, cursor, kind, user_id))


@admin_blueprint.delete("/conversations/<conversation_id:str>", ignore_body=False)
@endpoint(answers={EMPTY: None})
async def delete_conversation(request: Request, conversation_id: str) -> HTTPResponse:
    """Delete a conversation, for everybody and at once."""
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    await admin.delete_conversation(deps_of(request), wanted)
    return HTTPResponse(status=EMPTY)


@admin_blueprint.get("/stats", ignore_body=False)
@endpoint(answers={200: stats.StatsView})
async def get_stats(request: Request) -> HTTPResponse:
    """Count users, conversations, messages and sockets.

    The counts are over all pods, and at most a minute old. Beyond 250,000 they are estimates; of webhooks 250000
    means that or more.
    """
    return answer(await _stats.get(deps_of(request)))


@admin_blueprint.get("/webhooks", ignore_body=False)
@endpoint(parameters=(LISTED.parameter, CURSOR, STATUS), answers={200: webhooks.WebhookPage})
async def list_webhooks(request: Request) -> HTTPResponse:
    """List webhooks.

    They come by id, which is the order in which they were written.
    """
    status = query_of(request, "status")
    if status is not None and status not in get_args(webhooks.Status):
        raise reject("status", "must be `pending`, `delivered` or `dead`")
    limit = limit_of(request, LISTED)
    page = await webhooks.list_webhooks(cast("webhooks.Status | None", status), limit, query_of(request, "cursor"))
    return answer(page)


@admin_blueprint.post("/webhooks/<webhook_id:str>/replay")
@endpoint(answers={ACCEPTED: None}, errors=(Conflict,))
async def replay_webhook(request: Request, webhook_id: str) -> HTTPResponse:
    """Send a webhook again.

    It goes soon, under the same id and in its present form, with a new schedule of retries. A dead change of
    presence is not sent again where a newer one is on its way.
    """
    await webhooks.replay_webhook(deps_of(request), ids.from_wire(ids.WEBHOOK, webhook_id))
    return HTTPResponse(status=ACCEPTED, content_type="text/plain")
