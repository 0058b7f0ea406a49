import asyncio
import io
import json

import pytest
from pods import ORIGIN


async def raw(pod, request: bytes) -> bytes:
    """Send bytes to the REST port and read all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.http_port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def test_unknown_routes_and_methods_have_the_error_shape(user):
    anna = user()
    answer = await anna.get("/api/nothing")
    assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")
    answer = await anna.call("PUT", "/api/conversations")
    assert (answer.status, answer.json["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert "Allow" in answer.headers


async def test_head_is_what_get_answers_without_the_body(user):
    anna = user()
    room = await anna.group()
    for path in (f"/api/conversations/{room}", "/api/conversations", "/api/nothing", "/health/ready", "/docs"):
        got, head = await anna.get(path), await anna.call("HEAD", path)
        assert (head.status, head.raw, head.headers["Content-Length"]) == (got.status, b"", str(len(got.raw))), (
            path
        )
    answer = await anna.call("HEAD", f"/api/conversations/{room}/participants")
    assert (answer.status, answer.raw) == (405, b"")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_body_that_is_too_large_is_refused_also_where_none_is_read(user, method):
    anna = user()
    room = await anna.group()
    path = f"/api/conversations/{room}"
    answer = await anna.call(method, path, data=b" " * (256 * 1024 + 1))
    assert (answer.status, answer.json["code"]) == (413, "PAYLOAD_TOO_LARGE")
    answer = await anna.call(method, path, data=b" " * (256 * 1024))
    assert answer.status == {"GET": 200, "DELETE": 204}[method]


async def test_health(user):
    anna = user()
    assert (await anna.get("/health/live")).status == 200
    assert (await anna.get("/health/ready")).status == 200


async def test_every_header_says_something(user):
    anna = user()
    room = await anna.group()
    answers = [
        await anna.get("/api/conversations"),
        await anna.get("/api/nothing"),
        await anna.delete(f"/api/conversations/{room}"),
        await anna.get("/health/live"),
        await anna.get("/health/ready"),
        await anna.get("/metrics"),
    ]
    said = [(name, value) for answer in answers for name, value in answer.headers.items()]
    assert [name for name, value in said if value in {"", "None"}] == []


async def test_a_listed_origin_may_read_with_credentials(user):
    answer = await user().get("/api/conversations", headers={"Origin": ORIGIN})
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://app.example.com", ORIGIN + ".evil.com"]
)
async def test_other_origins_get_no_cors_headers(user, origin):
    answer = await user().get("/api/conversations", headers={"Origin": origin})
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert answer.headers["Vary"] == "Origin"


async def test_a_preflight_is_answered_without_a_token(http, cluster):
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "PATCH"}
    async with http.options(cluster[0].http + "/api/messages/msg_1", headers=headers) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "PATCH" in response.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]


async def test_errors_carry_cors_headers_too(http, cluster):
    for path in ("/api/conversations", "/api/nothing"):
        async with http.get(cluster[0].http + path, headers={"Origin": ORIGIN}) as response:
            assert response.status in {401, 404}
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


async def test_headers_over_16_kib_are_refused(cluster):
    answer = await raw(cluster[0], b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n")
    assert answer.split(b" ")[1] in {b"413", b"431"}
    assert b"PAYLOAD_TOO_LARGE" in answer


async def test_a_head_that_comes_too_slowly_is_not_waited_for(cluster):
    reader, writer = await asyncio.open_connection("127.0.0.1", cluster[0].http_port)
    idle, unused = await asyncio.open_connection("127.0.0.1", cluster[0].http_port)
    answer = asyncio.ensure_future(reader.read())
    writer.write(b"GET /health/live HTTP/1.1\r\n")
    async with asyncio.timeout(20):
        while not answer.done():
            writer.write(b"X-Slow: x\r\n")
            await asyncio.wait([answer], timeout=0.5)
        assert await idle.read() == b""
    assert b"VALIDATION_ERROR" in await answer
    for one in (writer, unused):
        one.close()


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/api/conversations", 5_000_000, 413),
        ("/api/nothing", 5_000_000, 404),
        ("/api/users/sync/batch", 5_000_000, 401),
        ("/api/users/sync/batch", (8 << 20) + 1, 413),
    ],
)
async def test_whoever_sends_all_of_a_refused_body_gets_the_answer(user, master, cluster, path, size, status):
    caller = master if status == 413 and "batch" in path else user()
    headers = {**caller.credentials, "Host": "x", "Connection": "close", "Content-Length": str(size)}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = await raw(cluster[0], head.encode() + b"\r\n" + b"x" * size)
    assert answer.split(b" ")[1] == str(status).encode()
    answer = await caller.call("POST", path, data=io.BytesIO(b"x" * size))
    assert answer.status == status
    assert (await user().get("/api/conversations")).status == 200


async def test_bodies_that_are_thrown_away_take_no_room_from_those_that_are_kept(master, cluster):
    body = b'{"users":[],"more":"' + b"x" * 1_000_000 + b'"}'
    head = b"POST /api/users/sync/batch HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += b"X-Internal-Secret: %b\r\nContent-Length: %d\r\n\r\n"
    kept_reader, kept = await asyncio.open_connection("127.0.0.1", cluster[0].http_port)
    kept.write(head % (master.credentials["X-Internal-Secret"].encode(), len(body)) + body[:-1])
    await kept.drain()
    # More than may be held of all bodies together, less than is read of each.
    refused = [await asyncio.open_connection("127.0.0.1", cluster[0].http_port) for _ in range(8)]
    for _, writer in refused:
        writer.write(
            b"POST /api/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 4_999_999
        )
    await asyncio.gather(*(writer.drain() for _, writer in refused))
    for _, writer in refused:
        writer.write(b"x")
    for reader, writer in refused:
        assert b" 404 " in await reader.readline()
        writer.close()
    kept.write(body[-1:])
    assert b" 200 " in await kept_reader.readline()
    kept.close()


async def test_an_answer_without_a_body_names_no_type_that_there_is_not(user):
    assert (await user().get("/health/live")).headers["Content-Type"] == "text/plain"


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense",
        b"\0" * 100,
        b"\xff\xfe /api/conversations HTTP/1.1",
        b"\xff\xfe /health/live HTTP/1.1",
        b"\xff\xfe /metrics HTTP/1.1",
        b"G\0T /health/live HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET /health/live\0 HTTP/1.1",
        b"GET /health/live?\xed\xa0\x80 HTTP/1.1",
        b"GET /health/live HTTP/1.1\r\n\xff: x",
        b"GET /health/live HTTP/1.1\r\nX: \0",
        b"POST /api/conversations HTTP/1.1\r\nContent-Length: \xff",
        b"POST /api/conversations HTTP/1.1\r\nContent-Length: 0\r\nExpect: \xff",
    ],
)
async def test_bytes_that_are_no_http_are_400(cluster, sent):
    answer = await raw(cluster[0], sent + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"code", "message"}
    assert b"VALIDATION_ERROR" in answer


@pytest.mark.parametrize(
    ("request_line", "header", "status"),
    [
        (b"GET /api/conversations", b"Authorization: Bearer \xff", b"401"),
        (b"GET /api/admin/stats", b"X-Internal-Secret: \xff", b"401"),
        (b"POST /api/conversations", b"Idempotency-Key: \xff", b"400"),
    ],
)
async def test_headers_that_are_no_utf_8_are_no_defect_of_ours(user, cluster, request_line, header, status):
    body = b'{"type":"group","participantIds":[]}'
    lines = [
        request_line + b" HTTP/1.1",
        b"Host: x",
        b"Connection: close",
        b"Content-Length: %d" % len(body),
        header,
    ]
    if header.startswith(b"Idempotency"):
        lines.append(f"Authorization: Bearer {user().token}".encode())
    answer = await raw(cluster[0], b"\r\n".join(lines) + b"\r\n\r\n" + body)
    assert answer.split(b" ")[1] == status
