"""What this service relies on inside of libraries: an upgrade that moves it must be seen here first."""

import ast
import inspect
from importlib.metadata import version

import engineio
import pytest
from engineio.async_socket import AsyncSocket
from jwt.algorithms import HMACAlgorithm
from redis._parsers.hiredis import _AsyncHiredisParser
from redis.asyncio.connection import AbstractConnection, DefaultParser

from app.identity.tokens import _HS256
from app.realtime.engineio.engine import Engine
from app.realtime.engineio.session import Session

HOOKS = [
    (Engine, engineio.AsyncServer, ["generate_id", "_handle_connect"]),
    (Session, AsyncSocket, ["send", "poll", "close", "schedule_ping", "check_ping_timeout"]),
    (Session, AsyncSocket, ["handle_post_request"]),
    (_HS256, HMACAlgorithm, ["prepare_key", "sign"]),
]


@pytest.mark.parametrize(
    ("package", "written_for"),
    [
        ("python-engineio", "4.15."),
        ("python-socketio", "5.18."),
        ("redis", "8.1."),
        ("pyjwt", "2.15."),
    ],
)
def test_the_versions_are_those_that_the_hooks_were_written_for(package, written_for):
    assert version(package).startswith(written_for)


@pytest.mark.parametrize(
    ("ours", "theirs", "name"), [(ours, theirs, name) for ours, theirs, names in HOOKS for name in names]
)
def test_what_is_overridden_is_still_there(ours, theirs, name):
    assert getattr(ours, name) is not getattr(theirs, name)
    taken = inspect.signature(getattr(ours, name)).parameters.values()
    given = inspect.signature(getattr(theirs, name)).parameters.values()
    assert [one.kind for one in taken] == [one.kind for one in given]


def test_the_parts_of_engineio_that_a_session_stands_in_for_are_still_used():
    uses = inspect.getsource(AsyncSocket.handle_get_request)
    assert "self.poll()" in uses
    assert "exceptions.QueueEmpty" in uses
    assert "self.upgrading or self.upgraded" in uses
    assert "await socket.handle_post_request(environ)" in inspect.getsource(engineio.AsyncServer.handle_request)
    assert {"translate_request", "make_response", "websocket"} <= set(engineio.async_drivers.asgi._async)


def test_a_session_has_all_that_engineio_reads_of_it():
    nodes = ast.walk(ast.parse(inspect.getsource(AsyncSocket)))
    owned = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    read = {node.attr for node in owned if node.value.id == "self"}
    assert read <= set(dir(Session))


def test_redis_py_keeps_the_transport_and_the_parser_of_a_connection_where_links_take_them():
    assert {"_writer", "_parser"} <= set(AbstractConnection.__slots__)
    assert DefaultParser is _AsyncHiredisParser
    prepares = inspect.getsource(_AsyncHiredisParser.on_connect)
    assert "self._reader = hiredis.Reader(**kwargs)" in prepares
    assert '"notEnoughData": NOT_ENOUGH_DATA' in prepares
    assert '"replyError": self.parse_error' in prepares
    # Without a writer it has nothing to close any more.
    assert "if self._writer:" in inspect.getsource(AbstractConnection._close)
    assert "self._writer is not None" in inspect.getsource(AbstractConnection.is_connected.fget)
