"""Routes of messages: send, history, edit, delete, reactions, read receipts."""

from urllib.parse import unquote

from msgspec import structs
from sanic import Blueprint, HTTPResponse, Request

from app.contract import ids
from app.contract.errors import Conflict, ValidationFailed
from app.contract.schemas import AddReaction, EditMessage, MessagePage, MessageView, ReadView, SendMessage
from app.rest.authentication import actor_of, sender_of
from app.rest.endpoint import IDEMPOTENCY_KEY, Limit, Parameter, endpoint
from app.rest.parameters import answer, body_of, deps_of, key_of, limit_of, query_of
from app.usecases import messages, reactions, receipts

blueprint = Blueprint("messages", url_prefix="/api")

EMPTY = 204
LISTED = Limit(usual=50, most=100)
BEFORE = Parameter("before", "A `nextCursor`, or the id of a message: what is older, newest first.")
AFTER = Parameter("after", "A `nextCursor`, or the id of a message: what is newer, oldest first.")


@blueprint.post("/conversations/<conversation_id:str>/messages")
@endpoint(
    body=SendMessage,
    parameters=(IDEMPOTENCY_KEY,),
    answers={201: MessageView, 200: MessageView},
    errors=(Conflict,),
)
async def send_message(request: Request, conversation_id: str) -> HTTPResponse:
    """Send a message.

    The same `clientMessageId` (or `Idempotency-Key`; the body's wins) from the same sender answers 200 with the
    first message as it now is, whenever it is repeated; with other content or attachments, 409.
    """
    actor = sender_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    command = body_of(request, SendMessage)
    if command.client_message_id is None:
        command = structs.replace(command, client_message_id=key_of(request))
    view, created = await messages.send_message(deps_of(request), actor, wanted, command)
    return answer(view, 201 if created else 200)


@blueprint.get("/conversations/<conversation_id:str>/messages", ignore_body=False)
@endpoint(parameters=(LISTED.parameter, BEFORE, AFTER), answers={200: MessagePage})
async def list_messages(request: Request, conversation_id: str) -> HTTPResponse:
    """Read the history.

    The newest comes first, or the oldest with `after`; `before` and `after` exclude each other. Deleted
    messages stay as tombstones: `deletedAt` is set, `content` and `attachments` are empty.
    """
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    limit = limit_of(request, LISTED)
    before, after = query_of(request, "before"), query_of(request, "after")
    return answer(await messages.list_messages(deps_of(request), actor, wanted, limit, before, after))


@blueprint.patch("/messages/<message_id:str>")
@endpoint(body=EditMessage, answers={200: MessageView}, errors=(Conflict,))
async def edit_message(request: Request, message_id: str) -> HTTPResponse:
    """Change the content of a message.

    Only its author may; one that was deleted stays so.
    """
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.MESSAGE, message_id)
    command = body_of(request, EditMessage)
    return answer(await messages.edit_message(deps_of(request), actor, wanted, command))


@blueprint.delete("/messages/<message_id:str>", ignore_body=False)
@endpoint(answers={EMPTY: None})
async def delete_message(request: Request, message_id: str) -> HTTPResponse:
    """Delete a message, for everybody.

    Its author may, and the owner of the group; it is no error the second time.
    """
    actor = await actor_of(request)
    await messages.delete_message(deps_of(request), actor, ids.from_wire(ids.MESSAGE, message_id))
    return HTTPResponse(status=EMPTY)


@blueprint.post("/messages/<message_id:str>/reactions")
@endpoint(body=AddReaction, answers={201: MessageView, 200: MessageView}, errors=(Conflict,))
async def add_reaction(request: Request, message_id: str) -> HTTPResponse:
    """React to a message.

    The same reaction again answers 200. A message has 30 different ones at most.
    """
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.MESSAGE, message_id)
    command = body_of(request, AddReaction)
    view, created = await reactions.add_reaction(deps_of(request), actor, wanted, command)
    return answer(view, 201 if created else 200)


@blueprint.delete("/messages/<message_id:str>/reactions/<emoji:str>", ignore_body=False)
@endpoint(answers={EMPTY: None}, errors=(ValidationFailed,))
async def remove_reaction(request: Request, message_id: str, emoji: str) -> HTTPResponse:
    """Take a reaction back.

    It is no error where there is none.
    """
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.MESSAGE, message_id)
    await reactions.remove_reaction(deps_of(request), actor, wanted, unquote(emoji))
    return HTTPResponse(status=EMPTY)


@blueprint.put("/messages/<message_id:str>/read")
@endpoint(answers={200: ReadView})
async def read_message(request: Request, message_id: str) -> HTTPResponse:
    """Mark everything up to a message as read.

    This never moves back.
    """
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.MESSAGE, message_id)
    return answer(await receipts.read_message(deps_of(request), actor, wanted))
