"""The AsyncAPI 3 document of the socket's events: made of one table, and of the types that the events carry."""

import re
from dataclasses import dataclass
from typing import Any

from app import __version__
from app.contract import events
from app.contract.schemas import (
    ConnectAuth,
    ConversationView,
    ErrorEventView,
    EventPage,
    MessageView,
    SocketDeleteMessage,
    SocketEditMessage,
    SocketPresence,
    SocketSendMessage,
    SocketSync,
    SocketTyping,
)
from app.rest.docs import payloads
from app.rest.docs.components import Describe, components

DESCRIPTION = """\
The events of Socket.IO 5 (Engine.IO 4, the default path and namespace, polling and WebSocket), as
`socket.io-client` 4 sends and receives them.

A socket connects with `auth: { token }`. Nothing has to be joined: it gets the events of all conversations of its
user. Each event of a client may carry an acknowledgement callback, which gets `{ ok: true, … }` or
`{ ok: false, error }`; a failure is sent as an `error` event as well.

Changes of a conversation carry its next `seq`, without a gap: a socket gets each once and in order, and after a
reconnect `sync` brings what was missed. It takes 200 conversations, and answers with 256 KiB at most: where
`hasMore` is true, it goes on after the last `seq` that came.

In a group of more than 100 participants there are no events of typing and presence, and `message:read` goes to the
reader alone. Limits are those of the default settings."""

CHANNEL = "#/channels/socket"
TOKEN = "userToken"  # noqa: S105 - the name of a scheme
REFUSALS = "A connect is refused with the message `unauthorized` or, without `chat:read`, `forbidden`."


@dataclass(frozen=True, slots=True)
class Said:
    """An event of a client: what it carries, and what the acknowledgement of one that succeeds does."""

    summary: str
    payload: Any
    answer: Any = payloads.Done


@dataclass(frozen=True, slots=True)
class Told:
    """An event of the service."""

    summary: str
    payload: Any


CLIENT_EVENTS = {
    events.MESSAGE_SEND: Said(
        "Send a message. The same `clientMessageId` makes it one, however often it is sent.",
        SocketSendMessage,
        payloads.MessageDone,
    ),
    events.MESSAGE_EDIT: Said("Change a message of one's own.", SocketEditMessage, payloads.MessageDone),
    events.MESSAGE_DELETE: Said("Delete a message, which leaves a tombstone.", SocketDeleteMessage),
    events.TYPING_START: Said("Say that one types; it lapses after 6 s.", SocketTyping),
    events.TYPING_STOP: Said("Say that one types no more.", SocketTyping),
    events.PRESENCE_PING: Said("Renew the `lastSeenAt` of the user.", None),
    events.PRESENCE_GET: Said("Ask who is online.", SocketPresence, payloads.PresenceDone),
    events.AUTH_REFRESH: Said("Hand in a new token of the same user before the old one expires.", ConnectAuth),
    events.SYNC: Said("Ask for what was missed, by the `seq` that one holds.", SocketSync, payloads.SyncDone),
}

SERVER_EVENTS = {
    events.MESSAGE_NEW: Told("A message was sent.", MessageView),
    events.MESSAGE_UPDATED: Told("A message was edited.", payloads.MessageUpdated),
    events.MESSAGE_DELETED: Told("A message was deleted.", payloads.MessageDeleted),
    events.REACTION_ADDED: Told("Somebody reacted to a message.", payloads.ReactionChanged),
    events.REACTION_REMOVED: Told("Somebody took a reaction back.", payloads.ReactionChanged),
    events.PARTICIPANT_ADDED: Told("Somebody is in a group now.", payloads.ParticipantAdded),
    events.PARTICIPANT_REMOVED: Told("Somebody is out of a group.", payloads.ParticipantRemoved),
    events.CONVERSATION_UPDATED: Told(
        "A group has another title, owner or metadata.", payloads.ConversationUpdated
    ),
    events.CONVERSATION_NEW: Told(
        "The user is in a conversation, or sees it again; it may come twice.", ConversationView
    ),
    events.CONVERSATION_DELETED: Told("A conversation is gone for everybody.", payloads.ConversationGone),
    events.CONVERSATION_HIDDEN: Told("The user has hidden a direct conversation.", payloads.ConversationGone),
    events.MESSAGE_READ: Told("Somebody has read up to a message.", payloads.MessageRead),
    events.USER_TYPING: Told("Another participant types, or types no more.", payloads.UserTyping),
    events.USER_ONLINE: Told("Somebody who shares a conversation came online.", payloads.PresenceChanged),
    events.USER_OFFLINE: Told("Somebody who shares a conversation went offline.", payloads.PresenceChanged),
    events.ERROR: Told(
        "An event of this socket failed, or (`event` is `connect`) it is about to be disconnected.", ErrorEventView
    ),
}


def document() -> dict[str, Any]:
    """Describe every event of the table."""
    incoming, outgoing = CLIENT_EVENTS.values(), SERVER_EVENTS.values()
    kinds = [kind for one in incoming for kind in (one.payload, one.answer) if kind is not None]
    kinds += [one.payload for one in outgoing]
    kinds += [payloads.Failed, payloads.CatchUpFailure, EventPage]
    describe, schemas = components(kinds)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Chat service", "version": __version__, "description": DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {
            "public": {
                "host": "chat.example.com",
                "pathname": "/socket.io/",
                "protocol": "wss",
                "description": f"The socket listener (`WS_PORT`), open to browsers. {REFUSALS}",
                "security": [{"$ref": f"#/components/securitySchemes/{TOKEN}"}],
            }
        },
        "channels": {
            "socket": {
                "address": "/",
                "description": "The default namespace.",
                "messages": _messages(describe),
            }
        },
        "operations": _operations(),
        "components": {
            "securitySchemes": {
                TOKEN: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A token that the host application signs for a user (HS256), in `auth` of the "
                    "CONNECT packet: `io(url, { auth: { token } })`.",
                }
            },
            "schemas": _plain_discriminators(schemas),
        },
    }


def _messages(describe: Describe) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, incoming in CLIENT_EVENTS.items():
        payload = {"type": "object"} if incoming.payload is None else describe(incoming.payload)
        found[_id(name)] = {"name": name, "summary": incoming.summary, "payload": payload}
        answer = {"anyOf": [describe(incoming.answer), describe(payloads.Failed)]}
        found[_id(name) + "Answer"] = {"name": f"acknowledgement of {name}", "payload": answer}
    for name, outgoing in SERVER_EVENTS.items():
        found[_id(name)] = {"name": name, "summary": outgoing.summary, "payload": describe(outgoing.payload)}
    return found


def _operations() -> dict[str, Any]:
    """List the operations of the service: it receives the events of clients, and sends its own."""
    channel = {"$ref": CHANNEL}
    received = {
        f"receive{_capital(name)}": {
            "action": "receive",
            "channel": channel,
            "summary": incoming.summary,
            "messages": [_message(_id(name))],
            "reply": {"channel": channel, "messages": [_message(_id(name) + "Answer")]},
        }
        for name, incoming in CLIENT_EVENTS.items()
    }
    sent = {
        f"send{_capital(name)}": {
            "action": "send",
            "channel": channel,
            "summary": outgoing.summary,
            "messages": [_message(_id(name))],
        }
        for name, outgoing in SERVER_EVENTS.items()
    }
    return received | sent


def _message(message_id: str) -> dict[str, str]:
    return {"$ref": f"{CHANNEL}/messages/{message_id}"}


def _id(name: str) -> str:
    """Turn the name of an event, which no map of the document may have as a key, into one that it may."""
    return re.sub(r":(\w)", lambda match: match[1].upper(), name)


def _capital(name: str) -> str:
    return _id(name)[0].upper() + _id(name)[1:]


def _plain_discriminators(schema: Any) -> Any:
    """Write discriminators as AsyncAPI has them: a name without a mapping."""
    if isinstance(schema, dict):
        return {
            key: inner["propertyName"] if key == "discriminator" else _plain_discriminators(inner)
            for key, inner in schema.items()
        }
    return [_plain_discriminators(inner) for inner in schema] if isinstance(schema, list) else schema
