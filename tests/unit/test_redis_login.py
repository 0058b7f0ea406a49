"""What a connection to Redis says first, and over what: all as REDIS_URL has it."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvloop
from hiredis import Reader, pack_command

from app.config.types import Url
from app.redis import errors as redis_errors
from app.redis import resp
from app.redis.connection import AWAY, connect

TLS = Path(__file__).parents[1] / "webhooks" / "tls"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@asynccontextmanager
async def answering(**listening):
    """Answer OK to everything; gives what was said, and the port."""
    said = []

    async def serve(reader, writer):
        parser = Reader()
        while data := await reader.read(1000):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                said.append(b" ".join(command).decode())
                writer.write(b"+OK\r\n")
        writer.close()

    path = listening.pop("path", None)
    if path is None:
        server = await asyncio.start_server(serve, "localhost", 0, **listening)
    else:
        server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield said, None if path else server.sockets[0].getsockname()[1]


async def said_over(url, said):
    link = await resp.connect(resp.pool(Url(url)))
    link.close()
    # The last one is of no use to Redis: it is for whoever lists the connections.
    assert said.pop() == "CLIENT SETINFO LIB-NAME chat-service"
    return said


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", []),
        ("", "/3", ["SELECT 3"]),
        (":p%40ss@", "", ["AUTH p@ss"]),
        ("anna:p%40ss@", "/1?client_name=chat", ["AUTH anna p@ss", "CLIENT SETNAME chat", "SELECT 1"]),
        ("", "?db=2&protocol=3", ["SELECT 2"]),
    ],
)
async def test_a_connection_says_what_the_url_says(before, after, expected):
    async with answering() as (said, port):
        assert await said_over(f"redis://{before}localhost:{port}{after}", said) == expected


async def test_a_socket_of_the_file_system_is_spoken_to_in_the_same_way(tmp_path):
    path = str(tmp_path / "redis.sock")
    async with answering(path=path) as (said, _):
        assert await said_over(f"unix://:pw@{path}?db=2", said) == ["AUTH pw", "SELECT 2"]


@pytest.mark.parametrize("loop", LOOPS)
async def test_tls_is_as_the_url_says(loop):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "localhost.pem", TLS / "key.pem")

    async def scenario():
        async with answering(ssl=context) as (said, port):
            trusting = f"rediss://:pw@localhost:{port}/0?ssl_ca_certs={TLS / 'localhost.pem'}"
            assert await said_over(trusting, said) == ["AUTH pw"]
            with pytest.raises(AWAY, match="certificate verify failed"):
                await resp.connect(resp.pool(Url(f"rediss://localhost:{port}/0")))
            with pytest.raises(AWAY, match="certificate verify failed"):
                await resp.connect(resp.pool(Url(trusting.replace("localhost:", "127.0.0.1:"))))
            said.clear()
            assert await said_over(f"rediss://localhost:{port}/0?ssl_cert_reqs=none", said) == []

    def run():
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(scenario())

    await asyncio.to_thread(run)


async def test_a_wrong_password_is_away_and_says_so(servers):
    parts = urlsplit(servers.redis_url)
    with pytest.raises(AWAY) as raised:
        await resp.connect(resp.pool(Url(f"redis://:wrong@{parts.hostname}:{parts.port}/0")))
    assert redis_errors.kind(raised.value) == "WRONGPASS"


async def test_text_of_commands_is_decoded_and_payloads_of_pub_sub_are_not(servers):
    redis = connect(Url(servers.redis_url))
    await redis.set("chat:test:login", "é", ex=60)
    assert await redis.get("chat:test:login") == "é"
    await redis.aclose()
    link = await resp.connect(resp.pool(Url(servers.redis_url)))
    assert await link.ask([pack_command(("GET", "chat:test:login"))]) == ["é".encode()]
    link.close()
