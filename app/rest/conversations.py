"""The routes of conversations."""

from sanic import Blueprint, HTTPResponse, Request

from app import ids
from app.rest.guards import actor_of, answer, body_of, deps_of, endpoint, limit_of, query_of
from app.schemas import CreateConversation
from app.usecases import conversations

blueprint = Blueprint("conversations", url_prefix="/api/conversations")


@blueprint.post("/")
@endpoint
async def create_conversation(request: Request) -> HTTPResponse:
    actor = actor_of(request)
    command = body_of(request, CreateConversation)
    view, created = await conversations.create_conversation(deps_of(request), actor, command)
    return answer(view, 201 if created else 200)


@blueprint.get("/", ignore_body=False)
@endpoint
async def list_conversations(request: Request) -> HTTPResponse:
    actor = actor_of(request)
    limit = limit_of(request, default=20, most=100)
    return answer(await conversations.list_conversations(actor, limit, query_of(request, "cursor")))


@blueprint.get("/<conversation_id:str>", ignore_body=False)
@endpoint
async def get_conversation(request: Request, conversation_id: str) -> HTTPResponse:
    actor = actor_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    return answer(await conversations.get_conversation(actor, wanted))
