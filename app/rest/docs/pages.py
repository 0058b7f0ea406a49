"""`/openapi.json`, `/asyncapi.json`, and `/docs`, a page that shows both and needs nothing from any network."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from sanic import Blueprint, HTTPResponse, Request

from app.rest.endpoint import endpoint
from app.rest.parameters import answer

blueprint = Blueprint("docs")

_HERE = Path(__file__).parent


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """Write the CSP source that lets in exactly this text (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# One file, so that the page is one route; style and script are let in by their hashes, and nothing else is.
_STYLE, _SCRIPT = _read("page.css"), _read("events.js") + _read("page.js")
_PAGE = _read("index.html").replace("/* style */", _STYLE).replace("/* script */", _SCRIPT)
_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"style-src {_source(_STYLE)}",
            f"script-src {_source(_SCRIPT)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@blueprint.get("/openapi.json")
@endpoint(needs_database=False, answers={200: dict[str, Any]})
async def openapi(request: Request) -> HTTPResponse:
    """Give this document."""
    return answer(request.app.ctx.openapi)


@blueprint.get("/asyncapi.json")
@endpoint(needs_database=False, answers={200: dict[str, Any]})
async def asyncapi(request: Request) -> HTTPResponse:
    """Give the document of the socket's events."""
    return answer(request.app.ctx.asyncapi)


@blueprint.get("/docs")
@endpoint(needs_database=False, answers={200: "text/html"})
async def docs(_: Request) -> HTTPResponse:
    """Show both documents to people."""
    return HTTPResponse(_PAGE, headers=_HEADERS, content_type="text/html; charset=utf-8")
