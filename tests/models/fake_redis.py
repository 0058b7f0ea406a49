"""A Redis in memory, to which a `Link` is connected: the test says when it acts and when its replies arrive."""

import asyncio

from hiredis import Reader
from redis.exceptions import ConnectionError as RedisConnectionError

from app.redis import resp
from app.redis.resp import Link, pack


class Connection:
    """One connection, seen from Redis; it is also the transport of the link."""

    def __init__(self, redis: "FakeRedis") -> None:
        self.redis = redis
        self.protocol: asyncio.Protocol | None = None
        self.channels: set[str] = set()
        self.replies: list[bytes] = []
        self.is_open = True
        # A path that lost the connection, and tells neither end.
        self.is_silent = False
        self._commands = Reader()
        self._received: list[list[bytes]] = []

    # What the link does

    def get_extra_info(self, _: str) -> None:
        return None

    def write(self, data: bytes) -> None:
        if not self.is_open:
            raise RuntimeError("unable to perform operation on <TCPTransport>; the handler is closed")
        if self.is_silent:
            return
        self._commands.feed(data)
        while (command := self._commands.gets()) is not False:
            self._received.append(command)
        if self.redis.is_prompt:
            asyncio.get_running_loop().call_soon(self.act_and_deliver)

    def abort(self) -> None:
        self.end()

    # What Redis does

    def act(self, most: int = 1_000_000) -> None:
        """Carry out commands; their replies do not arrive yet."""
        if not self.is_open or self.is_silent:
            return
        commands, self._received = self._received[:most], self._received[most:]
        for name, *arguments in commands:
            error = self.redis.errors.pop(0) if self.redis.errors else self.redis.refused.get(name)
            if error is not None:
                self.replies.append(b"-%b\r\n" % error.encode())
            else:
                self._carry_out(name, [argument.decode() for argument in arguments[:1_000]])

    def _carry_out(self, name: bytes, arguments: list[str]) -> None:
        if name == b"SUBSCRIBE":
            for channel in arguments:
                self.channels.add(channel)
                self._reply("subscribe", channel, len(self.channels))
        elif name == b"UNSUBSCRIBE":
            for channel in arguments:
                self.channels.discard(channel)
                self._reply("unsubscribe", channel, len(self.channels))
        elif name == b"PUBLISH":
            self.redis.publish(*arguments)
            self.replies.append(b":0\r\n")
        elif self.channels:
            self._reply("pong", "", 0)
        else:
            self.replies.append(b"+PONG\r\n")

    def _reply(self, kind: str, channel: str, number: int) -> None:
        head = pack(kind, channel)
        self.replies.append(b"*3" + head[2:] + b":%d\r\n" % number)

    def lose_commands(self) -> None:
        """Swallow what was not carried out, as a proxy may."""
        self._received.clear()

    def deliver(self) -> None:
        """Have all replies arrive."""
        if self.is_open and not self.is_silent and self.replies and self.protocol is not None:
            replies, self.replies = self.replies, []
            self.protocol.data_received(b"".join(replies))

    def act_and_deliver(self) -> None:
        self.act()
        self.deliver()

    def end(self) -> None:
        """End the connection: what did not arrive is lost."""
        if self.is_open:
            self.is_open = False
            self.channels.clear()
            self.redis.connections.remove(self)
            if self.protocol is not None:
                asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class FakeRedis:
    """Stands in for `resp.connect`."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        # Whether it answers at once.
        self.is_prompt = True
        self.takes_connections = True
        # The answers to the next commands, and to all of a name.
        self.errors: list[str] = []
        self.refused: dict[bytes, str] = {}
        self.published: list[tuple[str, str]] = []

    async def connect(self, _: object, on_replies=None) -> Link:
        if not self.takes_connections:
            await asyncio.sleep(resp.CONNECT_TIMEOUT)
            raise RedisConnectionError("nobody answers")
        made = Connection(self)
        self.connections.append(made)
        made.protocol = link = Link()
        link.connection_made(made)
        if on_replies is not None:
            link.listen(on_replies)
        return link

    def publish(self, channel: str, payload: str) -> None:
        """Have a message on its way to whoever has subscribed."""
        self.published.append((channel, payload))
        for connection in self.connections:
            if channel in connection.channels:
                connection.replies.append(pack("message", channel, payload))
                if self.is_prompt:
                    asyncio.get_running_loop().call_soon(connection.deliver)
