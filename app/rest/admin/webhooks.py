"""Routes of the master's calls about webhooks: list them, replay one."""

from typing import cast, get_args

from sanic import Blueprint, HTTPResponse, Request

from app.contract import ids
from app.contract.codec import reject
from app.contract.errors import Conflict
from app.rest.authentication import require_internal
from app.rest.endpoint import CURSOR, Limit, Parameter, endpoint
from app.rest.parameters import answer, deps_of, limit_of, query_of
from app.usecases import webhooks

blueprint = Blueprint("admin_webhooks", url_prefix="/api/admin/webhooks")
blueprint.middleware(require_internal, "request")

ACCEPTED = 202
LISTED = Limit(usual=20, most=100)
STATUS = Parameter("status", "Only those with this status.", webhooks.Status)


@blueprint.get("", ignore_body=False)
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


@blueprint.post("/<webhook_id:str>/replay")
@endpoint(answers={ACCEPTED: None}, errors=(Conflict,))
async def replay_webhook(request: Request, webhook_id: str) -> HTTPResponse:
    """Send a webhook again.

    It goes soon, under the same id and in its present form, with a new schedule of retries. A dead change of
    presence is not sent again where a newer one is on its way.
    """
    await webhooks.replay_webhook(deps_of(request), ids.from_wire(ids.WEBHOOK, webhook_id))
    return HTTPResponse(status=ACCEPTED, content_type="text/plain")
