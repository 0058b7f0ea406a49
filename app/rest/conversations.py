"""Routes of conversations and participants: create, list, show, change, leave, add, remove, events."""

from typing import Annotated

from msgspec import Meta
from sanic import Blueprint, HTTPResponse, Request

from app.contract import ids
from app.contract.codec import reject
from app.contract.errors import Conflict
from app.contract.schemas import (
    AddParticipants,
    ConversationPage,
    ConversationView,
    CreateConversation,
    EventPage,
    ReadView,
    UpdateConversation,
)
from app.rest.authentication import actor_of
from app.rest.endpoint import CURSOR, IDEMPOTENCY_KEY, Limit, Parameter, endpoint
from app.rest.parameters import answer, body_of, deps_of, key_of, limit_of, query_of, user_id_of
from app.usecases import catchup, conversations, participants, presence, receipts

blueprint = Blueprint("conversations", url_prefix="/api/conversations")

EMPTY = 204
ADD_PARTICIPANTS = Annotated[
    AddParticipants, Meta(extra_json_schema={"anyOf": [{"required": ["userId"]}, {"required": ["userIds"]}]})
]
LISTED = Limit(usual=20, most=100)
LOGGED = Limit(usual=100, most=500)
AFTER_SEQ = Parameter("after", "The last seq that is known.", Annotated[int, Meta(ge=0)], default=0)


@blueprint.post("/")
@endpoint(
    body=CreateConversation,
    parameters=(IDEMPOTENCY_KEY,),
    answers={201: ConversationView, 200: ConversationView},
    errors=(Conflict,),
)
async def create_conversation(request: Request) -> HTTPResponse:
    """Create a conversation.

    The caller is always a participant, named or not. A `direct` one wants exactly one other person; where the two
    have one already, that is the answer, with 200. `Idempotency-Key` counts for groups.
    """
    actor = await actor_of(request)
    command = body_of(request, CreateConversation)
    key = key_of(request)
    view, created = await conversations.create_conversation(deps_of(request), actor, command, key)
    return answer(view, 201 if created else 200)


@blueprint.get("/", ignore_body=False)
@endpoint(parameters=(LISTED.parameter, CURSOR), answers={200: ConversationPage})
async def list_conversations(request: Request) -> HTTPResponse:
    """List one's conversations.

    The one with the latest message, or else created last, comes first. Of its participants each shows 20 at most:
    oneself, in a direct one the other, then the longest-standing.
    """
    actor = await actor_of(request)
    limit = limit_of(request, LISTED)
    cursor = query_of(request, "cursor")
    return answer(await conversations.list_conversations(deps_of(request), actor, limit, cursor))


@blueprint.get("/<conversation_id:str>", ignore_body=False)
@endpoint(answers={200: ConversationView})
async def get_conversation(request: Request, conversation_id: str) -> HTTPResponse:
    """Show a conversation.

    It shows all its participants; one that is hidden is found here too.
    """
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    return answer(await conversations.get_conversation(deps_of(request), actor, wanted))


@blueprint.patch("/<conversation_id:str>")
@endpoint(body=UpdateConversation, answers={200: ConversationView}, errors=(Conflict,))
async def update_conversation(request: Request, conversation_id: str) -> HTTPResponse:
    """Change title and metadata of a group.

    What is left out stays; a `title` of null goes.
    """
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    command = body_of(request, UpdateConversation)
    return answer(await conversations.update_conversation(deps_of(request), actor, wanted, command))


@blueprint.delete("/<conversation_id:str>", ignore_body=False)
@endpoint(answers={EMPTY: None})
async def leave_conversation(request: Request, conversation_id: str) -> HTTPResponse:
    """Leave a group, or hide a direct conversation.

    An owner who leaves hands over to the longest-standing member; the last one out deletes the group. A direct
    conversation is hidden from the caller alone, until somebody writes.
    """
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    await participants.leave_conversation(deps_of(request), actor, wanted)
    return HTTPResponse(status=EMPTY)


@blueprint.post("/<conversation_id:str>/participants")
@endpoint(body=ADD_PARTICIPANTS, answers={201: ConversationView}, errors=(Conflict,))
async def add_participants(request: Request, conversation_id: str) -> HTTPResponse:
    """Add people to a group.

    Who is in already is no error; a group has 500 participants at most.
    """
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    command = body_of(request, AddParticipants)
    return answer(await participants.add_participants(deps_of(request), actor, wanted, command), 201)


@blueprint.delete("/<conversation_id:str>/participants/<user_id:str>", ignore_body=False)
@endpoint(answers={EMPTY: None}, errors=(Conflict,))
async def remove_participant(request: Request, conversation_id: str, user_id: str) -> HTTPResponse:
    """Take somebody out of a group.

    The owner may remove others, anyone themselves; it is no error if they are not in.
    """
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    await participants.remove_participant(deps_of(request), actor, wanted, user_id_of(user_id))
    return HTTPResponse(status=EMPTY)


@blueprint.get("/<conversation_id:str>/presence", ignore_body=False)
@endpoint(answers={200: presence.PresenceView})
async def get_presence(request: Request, conversation_id: str) -> HTTPResponse:
    """Tell which participants are online."""
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    return answer(await presence.conversation_presence(deps_of(request), actor, wanted))


@blueprint.get("/<conversation_id:str>/events", ignore_body=False)
@endpoint(parameters=(AFTER_SEQ, LOGGED.parameter), answers={200: EventPage})
async def list_events(request: Request, conversation_id: str) -> HTTPResponse:
    """List what a client missed.

    The events come in order, as its socket would have been sent them; an edited message may come as it now is.
    `gap` tells that the events after that seq are no longer all kept, or that there is no such seq: load afresh.
    """
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    limit = limit_of(request, LOGGED)
    text = query_of(request, "after") or "0"
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise reject("after", "must be a seq, a whole number from 0 up")
    return answer(await catchup.list_events(deps_of(request), actor, wanted, int(text), limit))


@blueprint.put("/<conversation_id:str>/read")
@endpoint(answers={200: ReadView})
async def read_conversation(request: Request, conversation_id: str) -> HTTPResponse:
    """Mark a conversation as read, up to its latest message."""
    actor = await actor_of(request)
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    return answer(await receipts.read_conversation(deps_of(request), actor, wanted))
