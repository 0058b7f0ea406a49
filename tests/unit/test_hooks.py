"""What this service relies on inside of libraries: an upgrade that moves it must be seen here first."""

import ast
import inspect
import ssl
import tomllib
from importlib.metadata import version
from pathlib import Path

import engineio
import jwt
import pytest
from engineio.async_socket import AsyncSocket
from engineio.packet import OPEN
from engineio.packet import Packet as EngineIOPacket
from jwt.algorithms import HMACAlgorithm
from packaging.requirements import Requirement
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from socketio.packet import BINARY_EVENT, CONNECT, DISCONNECT, EVENT

from app.config.types import Url
from app.identity.tokens import _HS256, _key
from app.realtime.engineio.engine import Engine
from app.realtime.engineio.session import Session
from app.realtime.socketio import packets
from app.redis import resp
from app.redis.connection import BatchingRedis

HOOKS = [
    (Engine, engineio.AsyncServer, ["generate_id", "_handle_connect"]),
    (Session, AsyncSocket, ["send", "poll", "close", "schedule_ping", "check_ping_timeout"]),
    (Session, AsyncSocket, ["handle_post_request"]),
    (_HS256, HMACAlgorithm, ["prepare_key", "sign"]),
    (BatchingRedis, Redis, ["execute_command", "pipeline", "aclose"]),
    (type(BatchingRedis().pipeline()), Pipeline, ["execute"]),
]


# Each library of which something is touched that is not its public interface, and the test that watches it.
WRITTEN_FOR = {
    "asyncpg": "0.32",  # test_hooks_postgres
    "pyjwt": "2.15",
    "python-engineio": "4.15",
    "python-socketio": "5.18",
    "redis": "8.1",
    "sanic": "25.12",  # test_hooks_sanic
    "tortoise-orm": "1.1",  # test_hooks_postgres
}


@pytest.mark.parametrize("package", WRITTEN_FOR)
def test_the_versions_are_those_that_the_hooks_were_written_for(package):
    assert version(package).startswith(f"{WRITTEN_FOR[package]}.")


def test_the_project_allows_no_other_versions_of_them():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    bounded = {}
    for line in project["dependencies"]:
        found = Requirement(line)
        if any(bound.operator == "<" for bound in found.specifier):
            bounded[found.name] = found.specifier
    assert bounded.keys() == WRITTEN_FOR.keys()
    for name, written_for in WRITTEN_FOR.items():
        major, minor = map(int, written_for.split("."))
        assert version(name) in bounded[name], name
        assert not bounded[name].contains(f"{major}.{minor - 1}.99"), name
        assert not bounded[name].contains(f"{major}.{minor + 1}"), name


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


async def test_redis_py_leaves_commands_and_replies_to_the_client_that_batches(monkeypatch):
    sent = []

    async def run(packed):
        sent.extend(packed)
        return [b"7"] * len(packed)

    redis = BatchingRedis.from_pool(resp.pool(Url("redis://nowhere:1")))
    monkeypatch.setattr(redis._batcher, "_run", run)
    assert "SCARD" not in redis.response_callbacks
    assert await redis.scard("a") == b"7"
    async with redis.pipeline(transaction=False) as pipe:
        pipe.scard("b").zscore("c", "d")
        assert await pipe.execute() == [b"7", 7.0]
    assert [name for name, _ in sent] == ["SCARD", "SCARD", "ZSCORE"]


def test_pyjwt_verifies_by_the_algorithm_that_a_key_has(monkeypatch):
    signed = []

    def sign(self, msg, key):
        signed.append(msg)
        return HMACAlgorithm.sign(self, msg, key)

    monkeypatch.setattr(_HS256, "sign", sign)
    token = jwt.encode({"a": 1}, "s" * 32, "HS256")
    assert jwt.decode(token, _key("s" * 32), algorithms=["HS256"]) == {"a": 1}
    assert signed == [token.rpartition(".")[0].encode()]


def test_the_requests_of_polling_are_handled_by_what_the_engine_overrides_and_reads():
    handles = inspect.getsource(engineio.AsyncServer.handle_request)
    assert "self.sockets" in handles
    assert "self._async['translate_request']" in handles
    assert "await self._handle_connect(" in handles
    assert "self.generate_id()" in inspect.getsource(engineio.AsyncServer._handle_connect)
    assert {"packets", "jsonp_index"} <= set(inspect.signature(engineio.AsyncServer._ok).parameters)
    made = engineio.AsyncServer(async_mode="asgi")
    assert (made.ping_interval, made.ping_timeout, made.sockets) == (25, 20, {})
    assert made._ok([EngineIOPacket(OPEN, "{}")])["response"] == b"0{}"


@pytest.mark.parametrize(
    ("text", "kind", "namespace", "number", "attachments"),
    [
        ("0", CONNECT, "/", None, 0),
        ('0/a,{"token":"x"}', CONNECT, "/a", None, 0),
        ("1", DISCONNECT, "/", None, 0),
        ('217["a"]', EVENT, "/", 17, 0),
        ('52-/a,3["b",{"_placeholder":true,"num":0}]', BINARY_EVENT, "/a", 3, 2),
    ],
)
def test_python_socketio_reads_the_head_of_a_packet(text, kind, namespace, number, attachments):
    read = packets._Packet(encoded_packet=text)
    assert (read.packet_type, read.namespace or "/", read.id) == (kind, namespace, number)
    assert read.attachment_count == attachments


@pytest.mark.parametrize("text", ["none", "", "x", "99-[]"])
def test_what_python_socketio_cannot_read_is_an_error_that_is_caught(text):
    with pytest.raises(packets.PacketError):
        packets.read_packet(text, 1000)
