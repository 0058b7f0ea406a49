"""Routes of the master's calls about users: sync a profile, sync many, show one, delete one."""

from typing import Literal, cast

from sanic import Blueprint, HTTPResponse, Request

from app.contract.codec import reject
from app.contract.errors import NotFound, PayloadTooLarge
from app.contract.schemas import SyncUser, SyncUsers, UserView, decode_users
from app.rest.authentication import require_internal
from app.rest.connection import Exchange
from app.rest.endpoint import Parameter, endpoint
from app.rest.parameters import answer, body_of, deps_of, query_of, user_id_of
from app.usecases import users

blueprint = Blueprint("users", url_prefix="/api/users")
blueprint.middleware(require_internal, "request")

EMPTY = 204
MAX_BATCH_BYTES = 8 << 20
# So many of those are read and stored at the same time.
BATCHES_AT_ONCE = 2
ERASE = Parameter("erase", "`messages`: each of their messages is deleted too.", Literal["messages"])


@blueprint.post("/sync")
@endpoint(body=SyncUser, answers={200: users.Synced})
async def sync_user(request: Request) -> HTTPResponse:
    """Store a profile as the host application has it."""
    await users.sync_user(deps_of(request), body_of(request, SyncUser))
    return answer(users.Synced(success=True))


@blueprint.post("/sync/batch", stream=True)
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


@blueprint.get("/<user_id:str>", ignore_body=False)
@endpoint(answers={200: UserView})
async def get_user(_: Request, user_id: str) -> HTTPResponse:
    """Show a profile.

    There is none of a user who was never synced, or was deleted: 404.
    """
    return answer(await users.get_user(user_id_of(user_id)))


# Of `/sync` Sanic takes only the methods that it has a route of its own for.
@blueprint.get("/sync", ignore_body=False)
@endpoint(answers={200: UserView}, errors=(NotFound,))
async def get_user_called_sync(_: Request) -> HTTPResponse:
    """Show the profile of the user whose id is `sync`."""
    return answer(await users.get_user("sync"))


@blueprint.delete("/<user_id:str>", ignore_body=False)
@endpoint(parameters=(ERASE,), answers={EMPTY: None})
async def delete_user(request: Request, user_id: str) -> HTTPResponse:
    """Forget a user.

    The profile goes, sockets are closed, groups are left, and tokens issued so far are refused for good. Direct
    conversations stay. It is no error the second time.
    """
    return await _delete_user(request, user_id_of(user_id))


@blueprint.delete("/sync", ignore_body=False)
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
