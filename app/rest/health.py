"""Liveness and readiness."""

from sanic import Blueprint, HTTPResponse, Request

blueprint = Blueprint("health", url_prefix="/health")


@blueprint.get("/live")
async def live(_: Request) -> HTTPResponse:
    return HTTPResponse(status=200)


@blueprint.get("/ready")
async def ready(request: Request) -> HTTPResponse:
    return HTTPResponse(status=200 if await request.app.ctx.health.is_ready() else 503)
