"""The client that posts webhooks, against a server that answers as servers do, and as none should."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pods import until

from app.config.types import Url
from app.webhooks.http_client import MAX_ANSWER, MAX_HEAD, Answer, NoAnswerError, Poster

TLS = Path(__file__).parent / "tls"
WITHIN = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
ANNOUNCED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"
LATER = b"HTTP/1.1 503 Busy\r\nretry-AFTER: 7\r\nContent-Length: 0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\nxyz"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * (MAX_ANSWER + 1)
BROKEN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n"
UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\n{}"


@dataclass
class Server:
    """Gives each request the next of its answers, the last one for ever; an empty one closes the connection."""

    answers: list[bytes] = field(default_factory=lambda: [OK])
    port: int = 0
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader, writer):
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(answer)
                if not answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(*answers, tls=None, host="127.0.0.1"):
    found = Server(list(answers) or [OK])
    server = await asyncio.start_server(found.serve, host, 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for writer in found.writers:
            writer.close()


@asynccontextmanager
async def posting(url, within=WITHIN):
    poster = Poster(Url(url), {"Content-Type": "application/json"}, within)
    try:
        yield poster
    finally:
        poster.close()


async def posts(poster, count=1):
    return [await poster.post({"webhook-id": "wh_1"}, b'{"number":%d}' % number) for number in range(count)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK, Answer(200, None)),
        (CHUNKED, Answer(202, None)),
        (EMPTY, Answer(204, None)),
        (ANNOUNCED + OK, Answer(200, None)),
        (ANNOUNCED + LATER, Answer(503, "7")),
    ],
)
async def test_a_connection_whose_answer_came_to_its_end_is_used_again(answer, expected):
    async with serving(answer) as server, posting(f"http://127.0.0.1:{server.port}") as poster:
        assert await posts(poster, 3) == [expected] * 3
        assert server.connections == 1
        assert server.bodies == [b'{"number":0}', b'{"number":1}', b'{"number":2}']


@pytest.mark.parametrize(
    ("answer", "status"), [(LAST, 200), (OLD, 200), (SWITCH, 101), (LONG, 200), (BROKEN, 200), (UNFRAMED, 200)]
)
async def test_another_one_is_not(answer, status):
    async with serving(answer) as server, posting(f"http://127.0.0.1:{server.port}") as poster:
        assert await posts(poster, 2) == [Answer(status, None)] * 2
        assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed"),
        (b"220 mail.example.com ESMTP\r\n", "no answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Long: %b\r\n" % (b"x" * 1000) * (1 + MAX_HEAD // 1000), "too long"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_HEAD, "too long"),
    ],
)
async def test_no_answer_says_why(answer, reason):
    async with serving(answer) as server, posting(f"http://127.0.0.1:{server.port}") as poster:
        with pytest.raises(NoAnswerError, match=reason):
            await posts(poster)


async def test_what_is_not_answered_in_time_ends_its_connection():
    half = b"HTTP/1.1 200 OK\r\n"
    async with serving(half, OK) as server, posting(f"http://127.0.0.1:{server.port}", 0.3) as poster:
        with pytest.raises(TimeoutError):
            await posts(poster)
        assert await posts(poster) == [Answer(200, None)]
        assert server.connections == 2


@pytest.mark.parametrize("last_words", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
async def test_an_idle_connection_that_ends_or_speaks_is_not_used_again(last_words):
    async with serving() as server, posting(f"http://127.0.0.1:{server.port}") as poster:
        await posts(poster)
        (_, idle), (writer,) = poster._idle[0], server.writers
        if last_words:
            writer.write(last_words)
        else:
            writer.close()

        async def is_used_up():
            return not idle.is_free

        await until(is_used_up, "the end of it")
        assert await posts(poster) == [Answer(200, None)]
        assert server.connections == 2


async def test_what_is_given_up_ends_its_connection():
    async with serving(b"HTTP/1.1 ", OK) as server, posting(f"http://127.0.0.1:{server.port}") as poster:
        post = asyncio.create_task(poster.post({}, b"{}"))

        async def came():
            return bool(server.bodies)

        await until(came, "the request")
        post.cancel()
        with pytest.raises(asyncio.CancelledError):
            await post
        assert await posts(poster) == [Answer(200, None)]
        assert server.connections == 2


async def test_the_address_is_asked_as_it_is_written():
    url = "http://me%40home:p%3Aq@localhost:{}/hooks/ä b/%20?a=b c&d=%26"
    async with serving(host="localhost") as server, posting(url.format(server.port)) as poster:
        await posts(poster)
        line, *lines = server.heads[0].strip().split("\r\n")
        assert line == "POST /hooks/%C3%A4%20b/%20?a=b%20c&d=%26 HTTP/1.1"
        assert dict(one.split(": ") for one in lines) == {
            "Host": f"localhost:{server.port}",
            "Authorization": "Basic bWVAaG9tZTpwOnE=",
            "Content-Type": "application/json",
            "webhook-id": "wh_1",
            "Content-Length": "12",
        }


async def test_an_address_of_ipv6_is_asked():
    try:
        async with serving(host="::1") as server, posting(f"http://[::1]:{server.port}/") as poster:
            assert await posts(poster) == [Answer(200, None)]
            assert f"Host: [::1]:{server.port}\r\n" in server.heads[0]
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


async def test_a_certificate_that_nobody_vouches_for_is_refused():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(TLS / "localhost.pem", TLS / "key.pem")
    async with serving(tls=tls, host="localhost") as server:
        async with posting(f"https://localhost:{server.port}/") as poster:
            with pytest.raises(ssl.SSLCertVerificationError):
                await posts(poster)
        assert server.heads == []


async def test_https_is_posted_to_who_shows_the_right_certificate(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "localhost.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(TLS / "localhost.pem", TLS / "key.pem")
    async with serving(tls=tls, host="127.0.0.1") as server:
        async with posting(f"https://localhost:{server.port}/") as poster:
            assert await posts(poster, 2) == [Answer(200, None)] * 2
            assert server.connections == 1
        async with posting(f"https://127.0.0.1:{server.port}/") as other:
            with pytest.raises(ssl.SSLCertVerificationError):
                await posts(other)
