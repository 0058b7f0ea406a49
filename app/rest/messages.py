"""The routes of messages."""

from msgspec import structs
from sanic import Blueprint, HTTPResponse, Request

from app import ids
from app.rest.guards import actor_of, answer, body_of, deps_of, endpoint, limit_of, query_of
from app.schemas import SendMessage, client_message_id
from app.usecases import messages

blueprint = Blueprint("messages", url_prefix="/api")


@blueprint.post("/conversations/<conversation_id:str>/messages")
@endpoint
async def send_message(request: Request, conversation_id: str) -> HTTPResponse:
    actor = actor_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    command = body_of(request, SendMessage)
    key = request.headers.get("idempotency-key")
    if command.client_message_id is None and key is not None:
        command = structs.replace(command, client_message_id=client_message_id(key))
    view, created = await messages.send_message(deps_of(request), actor, wanted, command)
    return answer(view, 201 if created else 200)


@blueprint.get("/conversations/<conversation_id:str>/messages", ignore_body=False)
@endpoint
async def list_messages(request: Request, conversation_id: str) -> HTTPResponse:
    actor = actor_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    limit = limit_of(request, default=50, most=100)
    before, after = query_of(request, "before"), query_of(request, "after")
    return answer(await messages.list_messages(actor, wanted, limit, before, after))
