"""What this service relies on inside of libraries: an upgrade that moves it must be seen here first."""

import ast
import inspect
import re
from importlib.metadata import version

import engineio
import engineio.payload
import jwt
import pytest
import socketio
from engineio.async_socket import AsyncSocket
from jwt.algorithms import HMACAlgorithm
from redis._parsers.hiredis import _AsyncHiredisParser
from redis.asyncio.connection import AbstractConnection, DefaultParser

from app.auth import jws
from app.realtime.engine import Engine
from app.realtime.packets import packet_class
from app.realtime.protocol import Clients, SocketIO
from app.realtime.session import Session

HOOKS = [
    (Engine, engineio.AsyncServer, ["generate_id", "_handle_connect"]),
    (Session, AsyncSocket, ["send", "poll", "close", "schedule_ping", "check_ping_timeout"]),
    (SocketIO, socketio.AsyncServer, ["_engineio_server_class", "_handle_eio_message"]),
    (SocketIO, socketio.AsyncServer, ["_handle_connect", "_handle_disconnect", "_handle_event"]),
    (Clients, socketio.AsyncManager, ["sid_from_eio_sid"]),
    (packet_class(1), socketio.packet.Packet, ["decode", "add_attachment"]),
    (jws._HS256, HMACAlgorithm, ["prepare_key", "sign"]),
    (jws._JWS, jwt.PyJWS, ["_decode_base64url_segment"]),
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
    assert "self.schedule_ping()" in inspect.getsource(AsyncSocket.receive)
    assert "self.max_decode_packets" in inspect.getsource(engineio.payload.Payload.decode)
    assert {"translate_request", "make_response", "websocket"} <= set(engineio.async_drivers.asgi._async)


def test_of_the_clients_socketio_asks_nothing_but_what_is_answered_here():
    server = socketio.AsyncServer
    read = [server._handle_eio_message, server._handle_event, server._handle_event_internal, server._handle_ack]
    asked = re.findall(r"\.manager\.(\w+)", "".join(map(inspect.getsource, read)))
    # What acknowledges an event of ours, which none asks for, is looked for and not found.
    assert set(asked) == {"is_connected", "sid_from_eio_sid", "trigger_callback"}


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


def test_pyjwt_reads_tokens_by_the_object_that_is_put_in_the_place_of_its_own():
    assert isinstance(jwt.PyJWT()._jws, jwt.PyJWS)
    assert "self._jws.decode_complete(" in inspect.getsource(jwt.PyJWT.decode_complete)
    assert inspect.getsource(jwt.PyJWS._load).count("self._decode_base64url_segment(") == 3
