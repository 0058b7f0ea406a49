"""Route of the usage statistics."""

from sanic import Blueprint, HTTPResponse, Request

from app.rest.authentication import require_internal
from app.rest.endpoint import endpoint
from app.rest.parameters import answer, deps_of
from app.usecases import stats

blueprint = Blueprint("admin_stats", url_prefix="/api/admin/stats")
blueprint.middleware(require_internal, "request")

_stats = stats.Stats()


@blueprint.get("", ignore_body=False)
@endpoint(answers={200: stats.StatsView})
async def get_stats(request: Request) -> HTTPResponse:
    """Count users, conversations, messages and sockets.

    The counts are over all pods, and at most a minute old. Beyond 250,000 they are estimates; of webhooks 250000
    means that or more.
    """
    return answer(await _stats.get(deps_of(request)))
