"""What the REST listener relies on inside of Sanic: an upgrade that moves it must be seen here first.

What of it makes a difference to clients is compared with Sanic's own way in `tests/rest/test_both_ways.py`.
"""

import inspect
from asyncio import Protocol
from types import SimpleNamespace

import pytest
from sanic import Request, Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.handlers import ErrorHandler
from sanic.headers import format_http1_response
from sanic.http import Http, Stage
from sanic.http.constants import HTTP
from sanic.server import AsyncioServer, HttpProtocol
from sanic.server.protocols.base_protocol import SanicProtocol

from app.rest.app import App
from app.rest.connection import Connection, Exchange, Send, ServiceRequest
from app.rest.errors import ErrorAnswers

OVERRIDDEN = [
    (ServiceRequest, Request, ["receive_body"]),
    (Exchange, Http, ["http1_request_header", "init_for_request"]),
    (Connection, HttpProtocol, ["connection_made", "connection_lost", "data_received"]),
    (App, Sanic, ["handle_request"]),
    (ErrorAnswers, ErrorHandler, ["default"]),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "name"), [(ours, theirs, name) for ours, theirs, names in OVERRIDDEN for name in names]
)
def test_what_is_overridden_is_still_there(ours, theirs, name):
    assert getattr(ours, name) is not getattr(theirs, name)
    taken = inspect.signature(getattr(ours, name)).parameters
    given = inspect.signature(getattr(theirs, name)).parameters
    assert [one.kind for one in taken.values()] == [one.kind for one in given.values()]
    assert inspect.iscoroutinefunction(getattr(ours, name)) == inspect.iscoroutinefunction(getattr(theirs, name))


def test_what_is_overridden_is_still_called():
    exchange = inspect.getsource(Http.http1)
    assert "while self.keep_alive and self.stage is Stage.IDLE:\n            self.init_for_request()" in exchange
    assert "await self.http1_request_header()" in exchange
    assert "await self.protocol.request_handler(self.request)" in exchange
    assert "self._http = self.HTTP_CLASS(self" in inspect.getsource(HttpProtocol._setup_connection)
    assert "self.request_handler = self.app.handle_request" in inspect.getsource(HttpProtocol._setup)
    assert "await request.receive_body()" in inspect.getsource(Sanic.handle_request)
    assert issubclass(HttpProtocol, Protocol)


def test_an_exchange_has_what_is_read_and_set_of_it():
    used = {
        "_send",
        "expecting_continue",
        "keep_alive",
        "protocol",
        "recv_buffer",
        "request",
        "request_body",
        "stage",
    }
    assert used <= {*Http.__slots__}
    # Set for each request, and by the reading of what is left of a body that was refused.
    assert "self.request_max_size = self.protocol.request_max_size" in inspect.getsource(Http.init_for_request)
    assert inspect.iscoroutinefunction(Http.read)
    assert isinstance(Http.HEADER_MAX_SIZE, int)
    assert "self._send = protocol.send" in inspect.getsource(Http.__init__)
    assert inspect.iscoroutinefunction(HttpProtocol.send)
    # What was answered whole is over: nothing is left for Sanic to send, and the next request is read.
    assert "if self.stage is Stage.RESPONSE:" in inspect.getsource(Http.http1)
    assert {"IDLE", "REQUEST", "HANDLER", "RESPONSE"} <= set(Stage.__members__)
    # What TouchUp makes anew of `Http` is what `Exchange` calls.
    assert "http1_request_header" in Http.__touchup__


def test_a_connection_has_what_is_read_and_set_of_it():
    slots = {*HttpProtocol.__slots__, *SanicProtocol.__slots__}
    assert {"app", "transport", "keep_alive_timeout", "_time"} <= slots
    assert isinstance(HttpProtocol.http, property)
    assert callable(HttpProtocol.close)
    assert callable(HttpProtocol.abort)
    # What counts as silence begins with `_time`; before the first request the time is that of keeping alive.
    timeouts = inspect.getsource(HttpProtocol.check_timeouts)
    assert "duration = current_time() - self._time" in timeouts
    assert "stage is Stage.IDLE and duration > self.keep_alive_timeout" in timeouts
    assert "self._time = current_time()" in inspect.getsource(HttpProtocol.data_received)


def test_a_request_that_is_read_here_is_made_as_sanic_makes_one():
    expected = ["self", "url_bytes", "headers", "version", "method", "transport", "app"]
    assert list(inspect.signature(Request.__init__).parameters)[:7] == expected
    assert {"body", "head", "headers", "method", "route", "stream"} <= {*Request.__slots__}
    # Pairs of text are as good to it as its own headers.
    made = Send(b"/a", [("A", "b")], "1.1", "POST", None, SimpleNamespace())
    assert made.headers.get("a") == "b"
    assert made.route is None


def test_the_head_of_an_answer_is_written_as_sanic_writes_it():
    assert format_http1_response(200, [(b"a", b"b")]) == b"HTTP/1.1 200 OK\r\na: b\r\n\r\n"


def test_the_application_is_served_as_the_listener_serves_it():
    assert {"sock", "backlog", "return_asyncio_server", "access_log", "protocol"} <= set(
        inspect.signature(Sanic.create_server).parameters
    )
    assert {"connections", "server"} <= set(AsyncioServer.__slots__)
    for name in ("startup", "start_serving", "close"):
        assert callable(getattr(AsyncioServer, name))
    assert "run_middleware" in inspect.signature(Sanic.handle_exception).parameters
    # So that Sanic knows of HTTP/1.1 alone, and sends no `alt-svc`.
    assert ApplicationServerInfo(settings={"version": HTTP.VERSION_1}).settings["version"] is HTTP.VERSION_1
