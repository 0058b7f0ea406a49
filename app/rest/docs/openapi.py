"""The OpenAPI 3.1 document of every route that is registered: made of their records, and of the types they use."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated, Any

from msgspec import Meta
from sanic_routing import Route

from app import __version__
from app.contract.errors import (
    ChatError,
    Conflict,
    Forbidden,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    ServiceUnavailable,
    Unauthorized,
    ValidationFailed,
)
from app.contract.schemas import ErrorView
from app.rest.docs.components import REF, Describe, components
from app.rest.endpoint import METHODS, Operation, Parameter, operation_of
from app.rest.errors import STATUS

DESCRIPTION = """\
Conversations, messages, reactions and receipts, and the internal calls of the host application. Changes are sent
over Socket.IO, on a port of its own; `/asyncapi.json` describes its events.

The host application owns the users: any id that it gives somebody will do, in a token and in `participantIds`
alike. One that was never synced is that of a user without a profile, who has no `displayName` and no `avatarUrl`.

Ids are opaque. Times are ISO 8601 in UTC with milliseconds. Unknown fields of a request are ignored. Every error
has one shape, with a `code` for programs and a `message` for people. Limits in descriptions are
those of the default settings."""

USER, INTERNAL = "userToken", "internalSecret"
SECURITY = {
    USER: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token that the host application signs for a user (HS256). "
        "It grants `chat:read`, `chat:write` or both.",
    },
    INTERNAL: {
        "type": "apiKey",
        "in": "header",
        "name": "X-Internal-Secret",
        "description": "The secret that the host application shares with the service; "
        "never beside a user's token.",
    },
}

# Each blueprint: what it is about, and who may call it.
TAGS: dict[str, tuple[str, str | None]] = {
    "conversations": ("Conversations and their participants.", USER),
    "messages": ("Messages, reactions and read receipts.", USER),
    "users": ("Profiles, which the host application owns.", INTERNAL),
    "admin": ("Conversations, statistics and webhooks, for operators of the host application.", INTERNAL),
    "health": ("Whether this process is alive and can serve.", None),
    "metrics": ("Metrics of this process.", None),
    "docs": ("This document, that of the socket's events, and a page that shows both.", None),
}

ERRORS: dict[type[ChatError], str] = {
    ValidationFailed: "The request is malformed; `details.field` names the field.",
    Unauthorized: "The token or the secret is missing, wrong or expired, or the user was deleted.",
    Forbidden: "The token does not grant this, or the caller is not a participant or not the one who may.",
    NotFound: "There is no such thing.",
    Conflict: "The present state does not allow it.",
    PayloadTooLarge: "The request is too large.",
    RateLimited: "The user did too much of this; try again after so many seconds.",
    ServiceUnavailable: "PostgreSQL is away or too slow; try again soon.",
}

PATH = {
    "conversation_id": ("conversationId", str, "The id of a conversation: `conv_…`."),
    "message_id": ("messageId", str, "The id of a message: `msg_…`."),
    "webhook_id": ("webhookId", str, "The id of a webhook: `wh_…`."),
    "user_id": (
        "userId",
        Annotated[str, Meta(min_length=1, max_length=128)],
        "A user's id, the host application's; one that was never synced is that of a user without a profile.",
    ),
    "emoji": ("emoji", Annotated[str, Meta(min_length=1, max_length=64)], "The emoji, percent-encoded."),
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Describe routes; raises KeyError for one without a record, and for a blueprint or a path unknown here."""
    found = sorted(((route, operation_of(route.handler)) for route in routes), key=lambda one: _place(one[0]))
    describe, schemas = components(_kinds(operation for _, operation in found))
    paths: dict[str, dict[str, Any]] = {}
    for route, operation in found:
        path = "/" + re.sub(r"<(\w+):\w+>", lambda match: f"{{{PATH[match[1]][0]}}}", route.path)
        for method in route.methods:
            paths.setdefault(path, {})[method.lower()] = _operation(route, operation, describe)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Chat service", "version": __version__, "description": DESCRIPTION},
        "tags": [{"name": name, "description": description} for name, (description, _) in TAGS.items()],
        "paths": paths,
        "components": {
            "securitySchemes": SECURITY,
            "responses": {error.__name__: _error(error) for error in ERRORS},
            "schemas": schemas,
        },
    }


def _place(route: Route) -> tuple[int, str, int]:
    """Sort routes by what they are about, then by path, then as people think of methods."""
    return list(TAGS).index(_tag(route)), route.path, min(METHODS.index(method) for method in route.methods)


def _tag(route: Route) -> str:
    """Give the tag of a route: how the name of its blueprint begins, which stands before the handler's."""
    return str(route.name.split(".")[-2]).partition("_")[0]


def _kinds(operations: Iterable[Operation]) -> list[Any]:
    kinds: list[Any] = [ErrorView]
    for operation in operations:
        kinds += [kind for kind in (operation.body, *operation.answers.values()) if not _is_plain(kind)]
        kinds += [parameter.kind for parameter in operation.parameters]
    return kinds + [kind for _, kind, _ in PATH.values()]


def _is_plain(kind: Any) -> bool:
    """Tell whether a body is none, or named by its media type."""
    return kind is None or isinstance(kind, str)


def _operation(route: Route, operation: Operation, describe: Describe) -> dict[str, Any]:
    tag = _tag(route)
    security = TAGS[tag][1]
    names = re.findall(r"<(\w+):", route.path)
    answers = {
        str(status): {"description": HTTPStatus(status).phrase, **_content(kind, describe)}
        for status, kind in operation.answers.items()
    }
    errors = {
        str(STATUS[error.code]): {"$ref": f"#/components/responses/{error.__name__}"}
        for error in _errors(operation, security, names)
    }
    found: dict[str, Any] = {
        "operationId": re.sub(r"_(\w)", lambda match: match[1].upper(), route.handler.__name__),
        "tags": [tag],
        "summary": operation.summary,
        "security": [] if security is None else [{security: []}],
        "responses": dict(sorted({**answers, **errors}.items())),
    }
    if operation.description:
        found["description"] = operation.description
    if parameters := [*_path(names, describe), *(_parameter(one, describe) for one in operation.parameters)]:
        found["parameters"] = parameters
    if operation.body is not None:
        found["requestBody"] = {"required": True, **_content(operation.body, describe)}
    return found


def _errors(operation: Operation, security: str | None, names: list[str]) -> list[type[ChatError]]:
    """List the errors that follow from what a route takes and who may call it, and those that it adds."""
    found = list(operation.errors)
    if operation.body is not None or operation.parameters:
        found.append(ValidationFailed)
    if operation.body is not None:
        found.append(PayloadTooLarge)
    if names:
        found.append(NotFound)
    if security is not None:
        found += [Unauthorized, ServiceUnavailable]
    if security == USER:
        found += [Forbidden, RateLimited]
    return found


def _content(kind: Any, describe: Describe) -> dict[str, Any]:
    if kind is None:
        return {}
    if isinstance(kind, str):
        return {"content": {kind: {"schema": {"type": "string"}}}}
    return {"content": {"application/json": {"schema": describe(kind)}}}


def _path(names: list[str], describe: Describe) -> list[dict[str, Any]]:
    return [
        {
            "name": PATH[name][0],
            "in": "path",
            "required": True,
            "description": PATH[name][2],
            "schema": describe(PATH[name][1]),
        }
        for name in names
    ]


def _parameter(parameter: Parameter, describe: Describe) -> dict[str, Any]:
    schema = describe(parameter.kind)
    if parameter.default is not None:
        schema = {**schema, "default": parameter.default}
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "schema": schema,
    }


def _error(error: type[ChatError]) -> dict[str, Any]:
    schema = {"$ref": REF + "Error", "properties": {"code": {"const": error.code}}}
    found: dict[str, Any] = {
        "description": f"`{error.code}`: {ERRORS[error]}",
        "content": {"application/json": {"schema": schema}},
    }
    if error is RateLimited:
        found["headers"] = {
            "Retry-After": {
                "description": "Seconds to wait.",
                "required": True,
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return found
