"""Socket events other than a send: edit, delete, typing, presence, auth refresh, sync.

Each payload becomes a command, each answer an acknowledgement. `message:send` is in `sending`.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import UUID

from msgspec import Raw

from app.contract import events, ids
from app.contract.codec import decode
from app.contract.schemas import (
    ConnectAuth,
    SocketDeleteMessage,
    SocketEditMessage,
    SocketPresence,
    SocketSync,
    SocketTyping,
)
from app.identity.actor import Actor
from app.realtime.engineio.inbox import Inbox
from app.usecases import catchup, messages, presence, sessions
from app.usecases.deps import Deps
from app.usecases.typing import Typing

Answer = dict[str, Any]


class Client(Protocol):
    """The socket on which an event came."""

    deps: Deps
    actor: Actor
    typing: Typing
    # The conversation of its last message.
    last_sent_to: UUID | None

    @property
    def inbox(self) -> Inbox:
        """Its received messages, and the acknowledgements that are to come."""

    def authorize(self, actor: Actor) -> None:
        """Act for the user of a token until it expires."""

    def succeed(self, event: str) -> None:
        """Count an event that was handled."""

    def fail(self, event: str, error: Exception) -> bytes:
        """Report that an event failed; gives its acknowledgement, as JSON."""


async def edit_message(socket: Client, payload: Raw) -> Answer:
    command = decode(SocketEditMessage, payload)
    message_id = ids.from_wire(ids.MESSAGE, command.message_id)
    message = await messages.edit_message(socket.deps, socket.actor, message_id, command)
    return {"ok": True, "message": message}


async def delete_message(socket: Client, payload: Raw) -> Answer:
    command = decode(SocketDeleteMessage, payload)
    message_id = ids.from_wire(ids.MESSAGE, command.message_id)
    await messages.delete_message(socket.deps, socket.actor, message_id)
    return {"ok": True}


async def start_typing(socket: Client, payload: Raw) -> Answer:
    command = decode(SocketTyping, payload)
    await socket.typing.start(ids.from_wire(ids.CONVERSATION, command.conversation_id))
    return {"ok": True}


async def stop_typing(socket: Client, payload: Raw) -> Answer:
    command = decode(SocketTyping, payload)
    await socket.typing.end(ids.from_wire(ids.CONVERSATION, command.conversation_id))
    return {"ok": True}


async def ping_presence(socket: Client, _: Raw) -> Answer:
    await socket.deps.presence.pinged(socket.actor.user_id)
    return {"ok": True}


async def get_presence(socket: Client, payload: Raw) -> Answer:
    command = decode(SocketPresence, payload)
    return {"ok": True, "online": await presence.online_among(socket.deps, socket.actor, command.user_ids)}


async def refresh_auth(socket: Client, payload: Raw) -> Answer:
    command = decode(ConnectAuth, payload)
    socket.authorize(await sessions.refresh(socket.deps, socket.actor, command.token))
    return {"ok": True}


async def sync(socket: Client, payload: Raw) -> Answer:
    return await catchup.sync(socket.deps, socket.actor, decode(SocketSync, payload))


HANDLERS: dict[str, Callable[[Client, Raw], Awaitable[Answer]]] = {
    events.MESSAGE_EDIT: edit_message,
    events.MESSAGE_DELETE: delete_message,
    events.TYPING_START: start_typing,
    events.TYPING_STOP: stop_typing,
    events.PRESENCE_PING: ping_presence,
    events.PRESENCE_GET: get_presence,
    events.AUTH_REFRESH: refresh_auth,
    events.SYNC: sync,
}
# All that clients may send.
EVENTS = frozenset({events.MESSAGE_SEND, *HANDLERS})
