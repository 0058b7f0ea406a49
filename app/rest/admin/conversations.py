"""Routes of the master's calls about conversations: list all, delete one."""

from typing import Literal

from sanic import Blueprint, HTTPResponse, Request

from app.contract import ids
from app.contract.codec import reject
from app.contract.schemas import ConversationPage
from app.rest.authentication import require_internal
from app.rest.endpoint import CURSOR, Limit, Parameter, endpoint
from app.rest.parameters import answer, deps_of, limit_of, query_of
from app.usecases import admin

blueprint = Blueprint("admin_conversations", url_prefix="/api/admin/conversations")
blueprint.middleware(require_internal, "request")

EMPTY = 204
LISTED = Limit(usual=20, most=100)
TYPE = Parameter("type", "Only those of this type.", Literal["direct", "group"])
USER = Parameter("userId", "Only those that this user is in.")


@blueprint.get("", ignore_body=False)
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


@blueprint.delete("/<conversation_id:str>", ignore_body=False)
@endpoint(answers={EMPTY: None})
async def delete_conversation(request: Request, conversation_id: str) -> HTTPResponse:
    """Delete a conversation, for everybody and at once."""
    wanted = ids.from_wire(ids.CONVERSATION, conversation_id)
    await admin.delete_conversation(deps_of(request), wanted)
    return HTTPResponse(status=EMPTY)
