"""What this service relies on inside of libraries: an upgrade that moves it must be seen here first."""

import ast
import inspect
import ssl
from importlib.metadata import version

import engineio
import pytest
from engineio.async_socket import AsyncSocket
from jwt.algorithms import HMACAlgorithm
from redis.asyncio.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection

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


def test_redis_py_describes_a_connection_as_links_read_it():
    url = "rediss://anna:pw@redis:1/2?client_name=chat&decode_responses=true&ssl_cert_reqs=none"
    described = ConnectionPool.from_url(url)
    described.connection_kwargs["protocol"] = 2
    server = described.make_connection()
    assert (server.host, server.port, server.db) == ("redis", 1, 2)
    assert (server.username, server.password, server.client_name) == ("anna", "pw", "chat")
    assert server.encoder.encoding == "utf-8"
    assert server.encoder.decode_responses
    assert isinstance(server, SSLConnection)
    assert server.ssl_context.get().verify_mode == ssl.CERT_NONE
    server = ConnectionPool.from_url("unix:///run/redis.sock").make_connection()
    assert isinstance(server, UnixDomainSocketConnection)
    assert server.path == "/run/redis.sock"
