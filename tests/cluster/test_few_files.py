"""A pod that may open few files, and clients that open connections and leave them: everybody else is served."""

import asyncio
import shutil

import pytest
from clients import Rest, ear, somebody, token
from pods import Pod, until
from scraping import series

FILES = 400
IDLE = 600


class Narrow(Pod):
    """A pod that may open so many files."""

    under = ("prlimit", f"--nofile={FILES}")


async def idle(port, sent):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    return reader, writer


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs util-linux")
@pytest.mark.parametrize("sent", [b"", b"GET /health/ready HTTP/1.1\r\nX: "])
async def test_connections_that_wait_make_room_for_those_that_speak(servers, tmp_path, http, sent):
    pod = Narrow(servers.environment(), tmp_path / "pod.log")
    opened = []
    try:
        await pod.start()
        anna = Rest(http, pod.http, somebody(), "")
        anna.token = token(anna.user_id)
        async with ear(pod, anna.user_id) as before:
            room = await anna.direct(somebody())
            for port in (pod.ws_port, pod.http_port):
                opened += await asyncio.gather(*(idle(port, sent) for _ in range(IDLE)))
                async with ear(pod, anna.user_id) as after:
                    said = await anna.say(room, "through")
                    assert said in await after.wait_for("message:new")
            assert len(await before.wait_for("message:new", 2)) == 2

            async def is_counted():
                told = await series(http, pod.http)
                kinds = ("connection", "rest_connection")
                return min(told["chat_refused_total", kind] for kind in kinds) >= IDLE - FILES

            await until(is_counted, "what was refused is counted")
        assert pod.errors() == []
    finally:
        for _, writer in opened:
            writer.close()
        await pod.kill()
