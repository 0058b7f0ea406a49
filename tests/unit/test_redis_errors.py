"""Whatever goes wrong between this process and Redis is *away*, under both event loops, and holds nobody long."""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import uvloop
from hiredis import Reader
from pods import free_port

from app.config.types import Rate, Url
from app.delivery.receipts import Receipts
from app.identity.rate_limits import Action, RateLimits
from app.redis import connection as redis_connection
from app.redis import errors as redis_errors
from app.redis import resp
from app.redis.connection import AWAY
from app.redis.scripts import Script

PATIENCE = 5
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
OK = b"+OK\r\n"


def reset(writer):
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def resets_at_once(_, writer):
    reset(writer)


async def closes_at_once(_, writer):
    writer.close()


async def commands(reader, writer, greeting=OK):
    """Give what is asked, past the greeting of the driver, each command of which gets the same answer."""
    parser = Reader()
    while data := await reader.read(1000):
        parser.feed(data)
        while (command := parser.gets()) is not False:
            if command[0] == b"CLIENT":
                writer.write(greeting)
            else:
                yield command


async def closes_when_asked(reader, writer):
    async for _ in commands(reader, writer):
        writer.close()


async def resets_when_asked(reader, writer):
    async for _ in commands(reader, writer):
        reset(writer)


async def stays_silent(reader, _):
    await reader.read()


async def falls_silent(reader, writer):
    async for _ in commands(reader, writer):
        pass


async def answers_half(reader, writer):
    async for _ in commands(reader, writer):
        writer.write(b"*2\r\n$1\r\nx\r\n")
        await writer.drain()
        writer.close()


def answers(reply, greeting=OK):
    async def serve(reader, writer):
        async for _ in commands(reader, writer, greeting):
            writer.write(reply)

    return serve


SERVERS = {
    "resets at once": resets_at_once,
    "closes at once": closes_at_once,
    "closes when asked": closes_when_asked,
    "resets when asked": resets_when_asked,
    "stays silent": stays_silent,
    "falls silent": falls_silent,
    "speaks HTTP": answers(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "says MOVED and not whither": answers(b"-MOVED\r\n"),
    "says so at once": answers(OK, greeting=b"-MOVED\r\n"),
    "has too many clients": answers(b"-ERR max number of clients reached\r\n"),
    "says what nobody knows": answers(b"-WEIRD things happen\r\n"),
    "answers with another type": answers(b"*1\r\n$1\r\nx\r\n"),
    "answers half and closes": answers_half,
}


@asynccontextmanager
async def listening(serve):
    served = set()

    async def tracked(reader, writer):
        served.add(asyncio.current_task())
        try:
            await serve(reader, writer)
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(tracked, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)


async def is_away_for_all(url):
    """Check what each kind of caller gets, and that limits and receipts go on."""
    redis = redis_connection.connect(Url(url))
    limits = RateLimits(redis, SimpleNamespace(**{f"rate_limit_{action}": Rate(1, 5) for action in Action}))
    receipts = Receipts(redis, None, None)

    async def together():
        async with redis.pipeline(transaction=False) as pipe:
            pipe.scard("x")
            pipe.zadd("y", {"z": 1})
            return await pipe.execute()

    async with asyncio.timeout(PATIENCE):
        found = await asyncio.gather(
            redis.time(),
            redis.hset("x", "y", "z"),
            together(),
            Script(redis, "return nil")(keys=["x"]),
            return_exceptions=True,
        )
        # An answer of another type may pass for one where any would do.
        assert all(isinstance(one, AWAY) or not isinstance(one, BaseException) for one in found), found
        assert any(isinstance(one, AWAY) for one in found)
        await limits.check(Action.SEND, "somebody")
        receipt = SimpleNamespace(conversation_id=SimpleNamespace(hex="0"), user_id="x", seq=1)
        assert await receipts._wait(receipt) in {0, 1}
    await redis.aclose()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", SERVERS)
async def test_whatever_a_server_does_is_away(kind, loop):
    async def scenario():
        async with listening(SERVERS[kind]) as port:
            await is_away_for_all(f"redis://127.0.0.1:{port}/0")

    await asyncio.to_thread(run, scenario, loop)


def run(scenario, loop):
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("url", ["redis://127.0.0.1:{}", "redis://no.such.host.invalid:{}", "unix:///no/such/{}"])
async def test_a_server_that_is_not_there_is_away(url, loop):
    await asyncio.to_thread(run, lambda: is_away_for_all(url.format(free_port())), loop)


async def test_a_server_without_tls_is_away_for_one_who_wants_it():
    async with listening(answers(OK)) as port:
        await is_away_for_all(f"rediss://127.0.0.1:{port}/0")


@pytest.mark.parametrize("loop", LOOPS)
async def test_every_connection_has_the_limits_of_its_socket(server_urls, loop):
    async def scenario():
        link = await resp.connect(resp.pool(Url(server_urls[1])))
        found = link._transport.get_extra_info("socket")
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == resp.TCP_USER_TIMEOUT_MS
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
        assert link.own_host == "127.0.0.1"
        link.close()

    await asyncio.to_thread(run, scenario, loop)


async def test_a_connection_that_says_more_than_was_asked_is_not_used():
    async def babble(reader, writer):
        writer.write(OK * 3)
        await reader.read()

    async with listening(babble) as port:
        with pytest.raises(AWAY):
            await resp.connect(resp.pool(Url(f"redis://127.0.0.1:{port}/0")))


async def test_a_reply_that_nobody_asked_for_ends_the_connection():
    async with listening(answers(b":1\r\n" * 2)) as port:
        link = await resp.connect(resp.pool(Url(f"redis://127.0.0.1:{port}/0")))
        with pytest.raises(AWAY):
            await link.ask([resp.pack("TIME")])
        assert link.is_lost


async def test_while_redis_is_away_it_is_not_tried_again_for_each_command():
    tries = 0

    async def count(_, writer):
        nonlocal tries
        tries += 1
        reset(writer)

    async with listening(count) as port:
        redis = redis_connection.connect(Url(f"redis://127.0.0.1:{port}/0"))
        for _ in range(200):
            with pytest.raises(AWAY):
                await redis.get("x")
        assert 0 < tries <= 20


async def test_each_kind_of_error_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(redis_errors, "_limiter", redis_errors.LogLimiter())
    async with listening(answers(b"-MISCONF no disk\r\n")) as port:
        redis = redis_connection.connect(Url(f"redis://127.0.0.1:{port}/0"))
        for _ in range(50):
            with pytest.raises(AWAY):
                await redis.set("x", "y")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "MISCONF" in caplog.text
