"""The clients of tests: a user who speaks REST and opens sockets."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self
from uuid import uuid4

import aiohttp
import engineio.payload
import jwt
import socketio
from pods import INTERNAL_SECRET, ISSUER, SECRET, Pod

EVENT_TIMEOUT = 15.0
PRESENCE = {"user:online", "user:offline"}

# The Python client gives up when a poll brings more packets than this, which socket.io-client does not.
engineio.payload.Payload.max_decode_packets = 10_000


def token(user_id: str, *, secret: str = SECRET, **claims: Any) -> str:
    """Sign a token as the master does; a claim given as None is left out."""
    now = int(time.time())
    payload = {
        "sub": user_id,
        "externalUserId": user_id,
        "permissions": ["chat:read", "chat:write"],
        "iat": now,
        "exp": now + 21_600,
        "iss": ISSUER,
        **claims,
    }
    return jwt.encode({name: value for name, value in payload.items() if value is not None}, secret, "HS256")


def somebody(name: str = "user") -> str:
    """Make up a user whom no other test knows."""
    return f"{name}-{uuid4().hex[:10]}"


@dataclass
class Answer:
    status: int
    headers: Any
    raw: bytes
    json: Any


@dataclass
class Rest:
    """One user's REST calls to one pod."""

    session: aiohttp.ClientSession
    base: str
    user_id: str
    token: str

    @property
    def credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def at(self, pod: Pod) -> Self:
        """Give the same user, who speaks to another pod."""
        return replace(self, base=pod.http)

    async def call(
        self, method: str, path: str, *, json: Any = None, data: bytes | None = None, **more: Any
    ) -> Answer:
        headers = {**self.credentials, **more.pop("headers", {})}
        async with self.session.request(
            method, self.base + path, json=json, data=data, headers=headers, **more
        ) as response:
            raw = await response.read()
            is_json = response.content_type == "application/json"
            return Answer(response.status, response.headers, raw, await response.json() if is_json else None)

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.call("GET", path, **more)

    async def post(self, path: str, json: Any = None, **more: Any) -> Answer:
        return await self.call("POST", path, json=json, **more)

    async def put(self, path: str, json: Any = None, **more: Any) -> Answer:
        return await self.call("PUT", path, json=json, **more)

    async def patch(self, path: str, json: Any = None, **more: Any) -> Answer:
        return await self.call("PATCH", path, json=json, **more)

    async def delete(self, path: str, **more: Any) -> Answer:
        return await self.call("DELETE", path, **more)

    async def direct(self, other: str) -> str:
        """Open the direct conversation with somebody; gives its id."""
        answer = await self.post("/api/conversations", {"type": "direct", "participantIds": [other]})
        assert answer.status in {200, 201}, answer
        return str(answer.json["id"])

    async def group(self, *others: str, **more: Any) -> str:
        answer = await self.post("/api/conversations", {"type": "group", "participantIds": list(others), **more})
        assert answer.status == 201, answer
        return str(answer.json["id"])

    async def say(self, conversation_id: str, content: str) -> dict[str, Any]:
        answer = await self.post(f"/api/conversations/{conversation_id}/messages", {"content": content})
        assert answer.status == 201, answer
        return dict(answer.json)


class Master(Rest):
    """The host application, at the internal API."""

    @property
    def credentials(self) -> dict[str, str]:
        return {"X-Internal-Secret": INTERNAL_SECRET}


@dataclass
class Heard:
    event: str
    data: Any


@dataclass
class Ear:
    """One socket, and all that it heard; who came and went is kept apart, since that follows other sockets."""

    client: socketio.AsyncClient
    heard: list[Heard] = field(default_factory=list)
    presence: list[Heard] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def call(self, event: str, *arguments: Any) -> Any:
        data = arguments if len(arguments) != 1 else arguments[0]
        return await self.client.call(event, data, timeout=EVENT_TIMEOUT)

    async def wait(self, what: str, condition: Callable[[list[Heard]], bool]) -> None:
        """Wait until what was heard fulfils a condition."""
        try:
            async with asyncio.timeout(EVENT_TIMEOUT), self.news:
                await self.news.wait_for(lambda: condition(self.heard))
        except TimeoutError:
            heard = [f"{one.event} {str(one.data)[:200]}" for one in self.heard[-20:]]
            raise AssertionError(f"{what}: heard only {heard}") from None

    def of(self, event: str) -> list[Any]:
        return [heard.data for heard in (*self.heard, *self.presence) if heard.event == event]

    async def wait_for(self, event: str, count: int = 1) -> list[Any]:
        """Wait for so many events of a name; gives all that came."""
        await self.wait(f"{count} of {event}", lambda _: len(self.of(event)) >= count)
        return self.of(event)


@asynccontextmanager
async def ear(
    pod: Pod, user_id: str, *, transports: list[str] | None = None, auth: Any = None, **client: Any
) -> AsyncIterator[Ear]:
    """Open a socket to a pod for the length of a block."""
    opened = Ear(socketio.AsyncClient(reconnection=client.pop("reconnection", False), **client))

    async def hear(event: str, data: Any = None) -> None:
        async with opened.news:
            kept = opened.presence if event in PRESENCE else opened.heard
            kept.append(Heard(event, data))
            opened.news.notify_all()

    async def left(*_: Any) -> None:
        await hear("disconnect")

    opened.client.on("*", hear)
    opened.client.on("disconnect", left)
    await opened.client.connect(
        pod.ws,
        auth={"token": token(user_id)} if auth is None else auth,
        transports=transports or ["websocket"],
        wait_timeout=10,
    )
    try:
        yield opened
    finally:
        await opened.client.disconnect()


class Wire:
    """A WebSocket on which a test writes Engine.IO packets by hand."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def read(self) -> str | None:
        """Read the next packet, pings aside; None when the connection is over."""
        while True:
            message = await self.socket.receive(timeout=EVENT_TIMEOUT)
            if message.type is not aiohttp.WSMsgType.TEXT:
                return None
            if message.data != "2":
                return str(message.data)

    async def read_until(self, start: str) -> str:
        """Read up to the packet that starts like this."""
        while (packet := await self.read()) is not None:
            if packet.startswith(start):
                return packet
        raise AssertionError(f"the connection ended without a packet {start!r}")

    async def write(self, packet: str) -> None:
        await self.socket.send_str(packet)


@asynccontextmanager
async def wire(pod: Pod, auth: str | None) -> AsyncIterator[Wire]:
    """Open a WebSocket by hand and, with `auth`, connect with that JSON."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(pod.ws + "/socket.io/?EIO=4&transport=websocket") as socket,
    ):
        opened = Wire(socket)
        assert (await opened.read() or "").startswith('0{"sid":')
        if auth is not None:
            await opened.write("40" + auth)
        yield opened
