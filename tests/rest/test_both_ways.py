"""A call that sends a message is answered alike whether it comes whole or in pieces: they are read differently."""

import asyncio
import json
import re
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from clients import somebody, token
from malformed import CASES
from pods import INTERNAL_SECRET, ORIGIN, Pod, free_port, pods, until

from app.usecases.changing import LOCK

HEALTH = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
SAY = b'{"content":"Hello"}'
NOBODY_HAS = f"conv_{'0' * 32}"
EVIL = "https://evil.example"


class Line:
    """A connection to the REST port, with which requests are written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def write(self, request: bytes) -> None:
        self._writer.write(request)

    async def read(self) -> bytes:
        """Read one answer; what is left where the connection ends."""
        try:
            async with asyncio.timeout(15):
                head = await self._reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"\ncontent-length: (\d+)\r", head)
                assert length, head
                return head + await self._reader.readexactly(int(length[1]))
        except asyncio.IncompleteReadError as error:
            return error.partial

    async def whole(self, request: bytes) -> bytes:
        self.write(request)
        return await self.read()

    async def in_pieces(self, request: bytes) -> bytes:
        """Send the rest of a request once its first half was looked at, which the answer before it tells."""
        half = len(request) // 2
        self.write(HEALTH + request[:half])
        assert (await self.read()).startswith(b"HTTP/1.1 200 ")
        self.write(request[half:])
        return await self.read()

    def cut(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def line(port: int):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


def post(room: str, body: bytes, *headers: str) -> bytes:
    path = f"/api/conversations/{room}/messages"
    length = (
        () if any(header.startswith("Content-Length") for header in headers) else (f"Content-Length: {len(body)}",)
    )
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers, "Content-Type: application/json", *length]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def bearer(user_id: str, **claims) -> str:
    return f"Authorization: Bearer {token(user_id, **claims)}"


def saying(content: str, client_message_id: str) -> bytes:
    return b'{"content":"%b","clientMessageId":"%b"}' % (content.encode(), client_message_id.encode())


async def both(port: int, room: str, body: bytes, *headers: str) -> bytes:
    """Send a request both ways, from every origin and as the last; gives what is answered without an origin."""
    answers = []
    for more in ((), (f"Origin: {ORIGIN}",), (f"Origin: {EVIL}",), (f"Origin: {ORIGIN}", f"Origin: {EVIL}")):
        request = post(room, body, *headers, *more)
        async with line(port) as first, line(port) as second:
            whole, in_pieces = await first.whole(request), await second.in_pieces(request)
            assert whole == in_pieces
            # Both connections go on, and each takes the other way.
            assert await first.in_pieces(request) == await second.whole(request) == whole
            closing = request.replace(b"Host: x", b"Connection: close")
            first.write(closing)
            last = await first.read()
            assert last == await second.in_pieces(closing)
            assert (await first.read(), await second.read()) == (b"", b"")
            assert last == whole.replace(b"connection: keep-alive", b"connection: close")
        answers.append(whole)
    return answers[0]


def status_and_code(answer: bytes) -> tuple[int, str]:
    code = re.search(rb'"code":"(\w+)"', answer)
    return int(answer.split(b" ")[1]), code[1].decode() if code else ""


@pytest.fixture
async def room(user):
    """Give somebody and a group of theirs."""
    anna = user("anna")
    return anna, await anna.group()


async def test_what_is_new_is_answered_alike(user, cluster):
    anna = user("anna")
    answers = []
    for origin in ((), (f"Origin: {ORIGIN}",), (f"Origin: {EVIL}",)):
        for send in (Line.whole, Line.in_pieces):
            request = post(await anna.group(), SAY, bearer(anna.user_id), *origin)
            async with line(cluster[0].http_port) as connection:
                answers.append(await send(connection, request))
    unlike = re.compile(rb'(?<="id":")\w+|(?<="conversationId":")\w+|(?<=At":")[^"]+')
    assert all(len(unlike.findall(answer)) == 4 for answer in answers)
    without, listed, evil = zip(*[iter(unlike.sub(b"", answer) for answer in answers)] * 2, strict=True)
    assert without[0] == without[1] == evil[0] == evil[1]
    assert listed[0] == listed[1]
    assert without[0].startswith(b"HTTP/1.1 201 Created\r\nVary: Origin\r\ncontent-length: ")
    assert b"Access-Control-Allow-Origin: %b\r\n" % ORIGIN.encode() in listed[0]


async def test_what_was_sent_before_is_answered_alike(room, cluster):
    anna, where = room
    first = await anna.post(
        f"/api/conversations/{where}/messages", {"content": "Hello", "clientMessageId": "once"}
    )
    answer = await both(cluster[0].http_port, where, saying("Hello", "once"), bearer(anna.user_id))
    assert status_and_code(answer)[0] == 200
    assert answer.endswith(first.raw)
    by_header = await both(cluster[0].http_port, where, SAY, bearer(anna.user_id), "Idempotency-Key: once")
    assert by_header == answer
    # The first counts where one is repeated, and its name is written in any way.
    keys = ("idempotency-key:once", "Idempotency-Key: another")
    assert await both(cluster[0].http_port, where, SAY, bearer(anna.user_id), *keys) == answer


async def test_what_says_something_else_under_one_id_is_refused_alike(room, cluster):
    anna, where = room
    await anna.post(f"/api/conversations/{where}/messages", {"content": "Hello", "clientMessageId": "once"})
    answer = await both(cluster[0].http_port, where, saying("Good bye", "once"), bearer(anna.user_id))
    assert status_and_code(answer) == (409, "CONFLICT")


@pytest.mark.parametrize(("body", "field"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_what_is_malformed_is_refused_alike(room, cluster, body, field):
    anna, where = room
    answer = await both(cluster[0].http_port, where, body, bearer(anna.user_id))
    assert status_and_code(answer) == (400, "VALIDATION_ERROR")
    assert b'"details":{"field":"%b"}' % field.encode() in answer


async def test_what_is_no_conversation_of_theirs_is_refused_alike(room, user, cluster):
    anna, where = room
    for conversation in (NOBODY_HAS, "none", f"msg_{where.removeprefix('conv_')}", where.upper()):
        answer = await both(cluster[0].http_port, conversation, SAY, bearer(anna.user_id))
        assert status_and_code(answer) == (404, "NOT_FOUND")
    answer = await both(cluster[0].http_port, where, SAY, bearer(user().user_id))
    assert status_and_code(answer) == (403, "FORBIDDEN")


async def test_who_may_not_send_is_refused_alike(room, user, master, cluster):
    anna, where = room
    gone = user()
    assert (await master.delete(f"/api/users/{gone.user_id}")).status == 204
    mine = bearer(anna.user_id)
    for headers in (
        [],
        ["Authorization: Basic abc"],
        ["Authorization: Bearer"],
        ["Authorization: Bearer  "],
        ["Authorization: Bearer no.token.at-all"],
        ["Authorization: Bearer no.token.at-all", mine],
        [bearer(anna.user_id, exp=1)],
        [mine, f"X-Internal-Secret: {INTERNAL_SECRET}"],
        [bearer(gone.user_id)],
    ):
        answer = await both(cluster[0].http_port, where, SAY, *headers)
        assert status_and_code(answer) == (401, "UNAUTHORIZED"), headers
    answer = await both(cluster[0].http_port, where, SAY, bearer(anna.user_id, permissions=["chat:read"]))
    assert status_and_code(answer) == (403, "FORBIDDEN")


async def test_what_is_too_long_is_refused_alike(room, cluster):
    anna, where = room
    mine = bearer(anna.user_id)
    answer = await both(cluster[0].http_port, where, SAY, mine, f"Idempotency-Key: {'k' * 129}")
    assert status_and_code(answer) == (400, "VALIDATION_ERROR")
    answer = await both(cluster[0].http_port, where, b"", mine)
    assert status_and_code(answer) == (400, "VALIDATION_ERROR")
    for body, status in ((b" " * (256 * 1024), 400), (b" " * (256 * 1024 + 1), 413)):
        request = post(where, body, mine, "Connection: close")
        async with line(cluster[0].http_port) as first, line(cluster[0].http_port) as second:
            whole = await first.whole(request)
            assert whole == await second.in_pieces(request)
            assert status_and_code(whole)[0] == status


async def test_one_too_many_is_refused_alike(servers, tmp_path):
    async with pods(servers.environment(RATE_LIMIT_SEND="1/h,1"), tmp_path, 1) as (pod,):
        request = post(NOBODY_HAS, SAY, bearer(somebody()))
        async with line(pod.http_port) as connection:
            assert status_and_code(await connection.whole(request)) == (404, "NOT_FOUND")
            whole, in_pieces = await connection.whole(request), await connection.in_pieces(request)
        assert status_and_code(whole) == (429, "RATE_LIMITED")
        assert b"\r\nRetry-After: " in whole
        # They wait for a little less each time.
        assert re.sub(rb"\d+", b"", whole) == re.sub(rb"\d+", b"", in_pieces)


async def test_without_postgresql_both_are_told_alike(servers, tmp_path):
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    pod = Pod({**servers.environment(), "DATABASE_URL": nowhere}, tmp_path / "pod.log")
    try:
        await pod.start(ready=False)
        answer = await both(pod.http_port, NOBODY_HAS, SAY, bearer(somebody()))
    finally:
        await pod.kill()
    assert status_and_code(answer) == (503, "SERVICE_UNAVAILABLE")


async def test_a_defect_of_ours_is_told_and_logged_alike(servers, room, sql, tmp_path):
    anna, where = room
    await anna.post(f"/api/conversations/{where}/messages", {"content": "Hello", "clientMessageId": "once"})
    spoil = "UPDATE messages SET created_at = $2::text::timestamptz WHERE conversation_id = $1"
    async with pods(servers.environment(), tmp_path, 1) as (pod,):
        request = post(where, saying("Hello", "once"), bearer(anna.user_id))
        # A year that Python does not know.
        await sql.execute(spoil, UUID(where.removeprefix("conv_")), "20000-01-01")
        try:
            async with line(pod.http_port) as connection:
                whole, in_pieces = await connection.whole(request), await connection.in_pieces(request)
        finally:
            await sql.execute(spoil, UUID(where.removeprefix("conv_")), "2000-01-01")
        first, second = [json.loads(error) for error in pod.errors()]
    assert whole == in_pieces
    assert status_and_code(whole) == (500, "INTERNAL_ERROR")
    assert first["message"] == second["message"] == f"POST /api/conversations/{where}/messages failed"
    assert first["exception"].splitlines()[-1] == second["exception"].splitlines()[-1]


async def test_both_are_counted_alike(room, cluster, http):
    anna, where = room

    async def counted() -> dict[str, float]:
        async with http.get(cluster[0].http + "/metrics") as response:
            lines = (await response.text()).splitlines()
        ours = [
            one
            for one in lines
            if "{conversation_id}/messages" in one and "bucket" not in one and "sum" not in one
        ]
        return {name: float(value) for name, _, value in (one.rpartition(" ") for one in ours)}

    found = []
    for send in (Line.whole, Line.in_pieces):
        before = await counted()
        async with line(cluster[0].http_port) as connection:
            for body in (SAY, b"{}"):
                await send(connection, post(where, body, bearer(anna.user_id)))
        after = await counted()
        found.append({name: after[name] - before.get(name, 0) for name in after})
    assert found[0] == found[1]
    assert sorted(found[0].values())[-3:] == [1, 1, 2]


async def test_what_comes_at_once_is_answered_in_its_order(room, cluster):
    anna, where = room
    mine = bearer(anna.user_id)
    send = post(where, SAY, mine)
    async with line(cluster[0].http_port) as connection:
        connection.write(send + send + HEALTH + send + post(where, b"{}", mine) + send[:-5])
        answers = [await connection.read() for _ in range(5)]
        connection.write(send[-5:] + send)
        answers += [await connection.read() for _ in range(2)]
    assert [status_and_code(answer)[0] for answer in answers] == [201, 201, 200, 201, 400, 201, 201]
    assert [int(seq) for seq in re.findall(rb'"seq":(\d+)', b"".join(answers))] == [1, 2, 3, 4, 5]


@pytest.fixture
async def held(room, sql):
    """Give a room that somebody holds, and what waits until a send waits for it."""
    where = UUID(room[1].removeprefix("conv_"))

    async def is_waited_for() -> bool:
        return await sql.fetchval(
            "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
        )

    holding = sql.transaction()
    await holding.start()
    await sql.fetchrow(LOCK, where)
    return lambda: until(is_waited_for, "the send waits"), holding.rollback


async def test_what_comes_while_a_send_is_under_way_is_answered_after_it(room, held, cluster):
    anna, where = room
    is_waited_for, release = held
    send = post(where, SAY, bearer(anna.user_id))
    async with line(cluster[0].http_port) as connection:
        connection.write(send)
        await is_waited_for()
        connection.write(HEALTH + send + send[:40])
        await release()
        answers = [await connection.read() for _ in range(3)]
        connection.write(send[40:])
        answers.append(await connection.read())
    assert [status_and_code(answer)[0] for answer in answers] == [201, 200, 201, 201]


async def test_a_client_that_goes_while_its_send_is_under_way_harms_nobody(room, held, cluster):
    anna, where = room
    is_waited_for, release = held
    async with line(cluster[0].http_port) as connection:
        connection.write(post(where, SAY, bearer(anna.user_id)))
        await is_waited_for()
        connection.cut()
    await release()

    async def is_stored() -> bool:
        return (await anna.get(f"/api/conversations/{where}")).json["lastSeq"] == 1

    await until(is_stored, "what was under way is stored")
    await anna.say(where, "still here")


async def test_a_pod_that_stops_answers_the_send_that_is_under_way(servers, room, held, tmp_path):
    anna, where = room
    is_waited_for, release = held
    async with pods(servers.environment(DRAIN_TIMEOUT="10s"), tmp_path, 1) as (pod,):
        async with line(pod.http_port) as busy, line(pod.http_port) as idle:
            assert status_and_code(await idle.whole(post(where, b"{}", bearer(anna.user_id))))[0] == 400
            busy.write(post(where, SAY, bearer(anna.user_id)))
            await is_waited_for()
            stopping = asyncio.create_task(pod.stop())
            assert await idle.read() == b""
            await release()
            assert status_and_code(await busy.read())[0] == 201
            assert await busy.read() == b""
            await stopping
        assert pod.errors() == []
        assert "a request was cut" not in pod.log.read_text()


async def test_a_trace_is_no_part_of_an_answer(room, cluster):
    anna, where = room
    trace = f"traceparent: 00-{uuid4().hex}-{uuid4().hex[:16]}-01"
    answer = await both(cluster[0].http_port, where, b"{}", bearer(anna.user_id), trace)
    assert status_and_code(answer) == (400, "VALIDATION_ERROR")
