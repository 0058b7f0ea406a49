"""The `endpoint` decorator: it bounds a handler's wait for PostgreSQL and describes its route for OpenAPI."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta
from sanic import HTTPResponse, Request

from app.contract.errors import ChatError
from app.contract.fields import ClientMessageId
from app.postgres.database import Database
from app.postgres.errors import RolledBackError

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

Handler = Callable[..., Awaitable[HTTPResponse]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the query or a header; `kind` is a type that msgspec can describe."""

    name: str
    description: str
    kind: Any = str
    where: Literal["query", "header"] = "query"
    default: int | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """The size of a page: `usual` by default, `most` at most."""

    usual: int
    most: int

    @property
    def parameter(self) -> Parameter:
        description = f"How many to give; above {self.most} counts as {self.most}."
        return Parameter("limit", description, Annotated[int, Meta(ge=1)], default=self.usual)


CURSOR = Parameter("cursor", "The `nextCursor` of the page before.")
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "Makes a repeated call answer with what the first one made.",
    ClientMessageId,
    "header",
)


@dataclass(frozen=True, slots=True)
class Operation:
    """The description of a route: what it takes and gives.

    `answers` maps a status to the type of its JSON, to a media type for what is no JSON, or to None for nothing.
    `errors` are those beside what follows from the path, the body and who may call.
    """

    summary: str
    description: str
    answers: Mapping[int, Any]
    body: Any
    parameters: tuple[Parameter, ...]
    errors: tuple[type[ChatError], ...]


_described: dict[Handler, Operation] = {}


def endpoint(
    *,
    answers: Mapping[int, Any],
    body: Any = None,
    parameters: tuple[Parameter, ...] = (),
    errors: tuple[type[ChatError], ...] = (),
    needs_database: bool = True,
) -> Callable[[Handler], Handler]:
    """Describe a handler, whose docstring is part of it, and bound what it waits for PostgreSQL where it does."""

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def bounded(request: Request, *args: Any, **kwargs: Any) -> HTTPResponse:
            database: Database = request.app.ctx.deps.database
            # What `serve` does, without the calls that every request would pay for it.
            async with database.deadline():
                try:
                    return await handler(request, *args, **kwargs)
                except RolledBackError:
                    return await database.serve_again(lambda: handler(request, *args, **kwargs))

        served = bounded if needs_database else handler
        summary, _, description = (inspect.getdoc(handler) or "").partition("\n")
        _described[served] = Operation(
            summary.removesuffix("."), description.strip(), answers, body, parameters, errors
        )
        return served

    return decorate


def operation_of(handler: Handler) -> Operation:
    """Give the record of a handler; raises KeyError where it has none, so that no such route is ever served."""
    return _described[handler]
