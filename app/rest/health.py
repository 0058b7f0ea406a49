"""Health checks of the REST listener: liveness and readiness."""

from sanic import Blueprint, HTTPResponse, Request

from app.rest.endpoint import endpoint

blueprint = Blueprint("health", url_prefix="/health")


@blueprint.get("/live")
@endpoint(needs_database=False, answers={200: None})
async def live(_: Request) -> HTTPResponse:
    """Tell that the process runs."""
    return HTTPResponse(status=200, content_type="text/plain")


@blueprint.get("/ready")
@endpoint(needs_database=False, answers={200: None, 503: None})
async def ready(request: Request) -> HTTPResponse:
    """Tell whether PostgreSQL answers and the process is not draining."""
    status = 200 if await request.app.ctx.health.is_ready() else 503
    return HTTPResponse(status=status, content_type="text/plain")
