"""Requests that are passed on to another pod: what becomes of a session where that fails on the way."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientTimeout
from pods import free_port, until

from app.config.types import Secret
from app.realtime.http import forwarding
from app.realtime.http.capacity import Capacity
from app.realtime.http.forwarding import SessionForwarding
from app.realtime.http.requests import Request
from app.realtime.http.session_ids import SessionIds
from app.redis.connection import AWAY

OWNER = "owner"
MAX_ANSWER = 1000
CAPACITY = Capacity(files=100, http=100, hops_to_one=2, hops=3, pipes=1, anonymous=10)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


class Addresses:
    """In the place of what Redis knows."""

    def __init__(self, *addresses: str | None) -> None:
        self.known = dict(zip((OWNER, "other"), addresses, strict=False))
        self.forgotten = []
        self.failure = None

    async def of(self, pod):
        if self.failure is not None:
            raise self.failure
        return self.known.get(pod)

    def forget(self, pod):
        self.forgotten.append(pod)


class Owner:
    """A pod, as far as it listens; what it does with a connection is a test's matter."""

    def __init__(self, behave) -> None:
        self._behave = behave
        self.heads = []
        self.ended = asyncio.Event()

    async def serve(self, reader, writer):
        try:
            await self._behave(self, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            self.ended.set()
        finally:
            writer.close()

    async def has(self, count):
        return len(self.heads) == count

    async def read(self, reader):
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        return head


@asynccontextmanager
async def owned_by(behave):
    """Pass requests on to a pod that behaves so."""
    owner = Owner(behave)
    server = await asyncio.start_server(owner.serve, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    sessions = SessionForwarding(Addresses(address, address), ids(), None, CAPACITY, MAX_ANSWER)
    try:
        async with asyncio.timeout(20):
            yield sessions, owner
    finally:
        await sessions.close()
        server.close()


def ids():
    return SessionIds("own", Secret("secret"))


def request(method="GET", **headers):
    return Request(method, "/socket.io/?sid=x", headers=headers, body=b"3" if method == "POST" else b"")


async def answering(owner, reader, writer):
    while True:
        await owner.read(reader)
        writer.write(ANSWER)


async def hanging_up(owner, reader, _):
    await owner.read(reader)


async def cutting_its_answer(owner, reader, writer):
    await owner.read(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nonly this")
    await writer.drain()


async def answering_too_much(owner, reader, writer):
    await owner.read(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_ANSWER + 1) + b"x" * (MAX_ANSWER + 1))
    await writer.drain()


async def waiting(owner, reader, _):
    await owner.read(reader)
    await reader.readexactly(1)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_the_owner_answers_is_the_answer(method):
    async with owned_by(answering) as (sessions, _):
        for _ in range(3):
            answer = await sessions.pass_on(request(method), OWNER)
            assert (answer.status, answer.body) == (200, b"OK")


async def test_a_session_is_gone_where_nobody_listens_at_the_address_of_its_pod_or_none_is_known():
    addresses = Addresses(f"127.0.0.1:{free_port()}")
    sessions = SessionForwarding(addresses, ids(), None, CAPACITY, MAX_ANSWER)
    assert (await sessions.pass_on(request(), OWNER)).status == 400
    assert addresses.forgotten == [OWNER]
    assert (await sessions.pass_on(request(), "unknown")).status == 400
    await sessions.close()


@pytest.mark.parametrize("failure", [error() for error in AWAY])
async def test_a_session_may_be_there_where_redis_cannot_tell(failure):
    addresses = Addresses()
    addresses.failure = failure
    sessions = SessionForwarding(addresses, ids(), None, CAPACITY, MAX_ANSWER)
    assert (await sessions.pass_on(request(), OWNER)).status == 503


async def test_a_session_may_be_there_where_its_pod_does_not_answer_in_time(monkeypatch):
    monkeypatch.setattr(forwarding, "TIMEOUT", ClientTimeout(total=0.2))
    async with owned_by(waiting) as (sessions, owner):
        assert (await sessions.pass_on(request(), OWNER)).status == 503
        await owner.ended.wait()


async def test_a_post_whose_connection_is_lost_is_sent_once():
    async with owned_by(hanging_up) as (sessions, owner):
        assert (await sessions.pass_on(request("POST"), OWNER)).status == 503
        assert len(owner.heads) == 1


async def test_a_poll_is_sent_again_where_its_connection_was_closed_as_it_was_used_again():
    async def once(owner, reader, writer):
        """Answer the first request of a connection, and close it at the second."""
        await owner.read(reader)
        writer.write(ANSWER)
        await owner.read(reader)

    async with owned_by(once) as (sessions, owner):
        answers = [(await sessions.pass_on(request(), OWNER)).status for _ in range(3)]
        assert answers == [200, 200, 200]
        assert len(owner.heads) == 5


@pytest.mark.parametrize("behave", [cutting_its_answer, answering_too_much])
async def test_a_session_is_over_where_a_part_of_its_answer_is_lost(behave):
    async with owned_by(behave) as (sessions, _):
        assert (await sessions.pass_on(request(), OWNER)).status == 400


async def test_requests_past_the_bound_of_one_pod_are_refused_and_others_go_on():
    async with owned_by(waiting) as (sessions, owner):
        polls = [asyncio.create_task(sessions.pass_on(request(), OWNER)) for _ in range(2)]
        await until(lambda: owner.has(2), "both polls")
        assert (await sessions.pass_on(request(), OWNER)).status == 503
        assert sessions.open_files == 2
        polls.append(asyncio.create_task(sessions.pass_on(request(), "other")))
        await until(lambda: owner.has(3), "the poll of the other pod")
        # All that there may be.
        assert (await sessions.pass_on(request(), "third")).status == 503
        for poll in polls:
            poll.cancel()
        # Whoever gives up a poll gives it up at the owner, and makes room.
        await asyncio.gather(*polls, return_exceptions=True)
        await owner.ended.wait()
        assert sessions.open_files == 0
        assert (await sessions.pass_on(request(), "unknown")).status == 400


async def test_a_request_is_passed_on_no_further():
    async with owned_by(answering) as (sessions, owner):
        assert (await sessions.pass_on(request(**{forwarding.HOP: "1"}), OWNER)).status == 400
        assert owner.heads == []
