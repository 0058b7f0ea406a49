"""Webhook handler of the demo master: notifications for users who are away, and who came and went."""

import hashlib
import hmac
from collections import OrderedDict, deque
from typing import Any

import msgspec
from aiohttp import ClientError, web

from app.dev.master.accounts import ACCOUNTS, caller, sign_token
from app.dev.master.answers import body, error, read
from app.dev.master.config import CONFIG, SESSION

SCHEME = "sha256="
MAX_REMEMBERED = 10_000
MAX_NOTIFICATIONS = 100
MAX_PEOPLE = 10_000
# Only long enough for one call.
ERRAND_LIFETIME = 60

routes = web.RouteTableDef()


class Webhook(msgspec.Struct):
    """The body of every webhook; `data` is the event's."""

    event: str
    data: dict[str, Any]


def verify(content: bytes, signature: str, secret: str) -> bool:
    """Tell whether `X-Webhook-Signature` is the HMAC-SHA256 of the body as it came, in constant time."""
    expected = SCHEME + hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode(errors="surrogateescape"))


class Inbox:
    """Unread notifications by user, the latest of each; and which webhooks were seen."""

    def __init__(self) -> None:
        self._notifications: OrderedDict[str, deque[dict[str, Any]]] = OrderedDict()
        self._seen: OrderedDict[str, None] = OrderedDict()

    def is_seen(self, webhook_id: str) -> bool:
        return webhook_id in self._seen

    def see(self, webhook_id: str) -> None:
        self._seen[webhook_id] = None
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)

    def notify(self, user_id: str, notification: dict[str, Any]) -> None:
        self._notifications.setdefault(user_id, deque(maxlen=MAX_NOTIFICATIONS)).append(notification)
        if len(self._notifications) > MAX_PEOPLE:
            self._notifications.popitem(last=False)

    def forget_message(self, message_id: str) -> None:
        for notifications in self._notifications.values():
            for one in [one for one in notifications if one["messageId"] == message_id]:
                notifications.remove(one)

    def take(self, user_id: str) -> list[dict[str, Any]]:
        """Give a user's notifications, which are read by that."""
        return list(self._notifications.pop(user_id, ()))


INBOX = web.AppKey("inbox", Inbox)


@routes.post("/webhooks/chat")
async def receive(request: web.Request) -> web.Response:
    """Act on a webhook; what is not answered with 2xx comes again."""
    content = await body(request)
    if not verify(content, request.headers.get("X-Webhook-Signature", ""), request.app[CONFIG].webhook_secret):
        return error(401, "Invalid signature", "UNAUTHORIZED")
    # The same on every attempt: an answer of ours may have been lost.
    webhook_id = request.headers.get("webhook-id", "")
    inbox = request.app[INBOX]
    if not webhook_id or not inbox.is_seen(webhook_id):
        webhook = await read(request, Webhook)
        try:
            await _act(request.app, webhook.event, webhook.data)
        except (ClientError, TimeoutError, OSError):
            return error(503, "Chat service unavailable", "CHAT_SERVICE_UNAVAILABLE")
        inbox.see(webhook_id)
    return web.json_response({"received": True})


async def _act(app: web.Application, event: str, data: dict[str, Any]) -> None:
    match event:
        case "message.created":
            await _notify_offline_users(app, data)
        case "message.deleted":
            app[INBOX].forget_message(data["messageId"])
        case "user.online":
            app[ACCOUNTS].set_status(data["userId"], "online", data["transition"])
        case "user.offline":
            app[ACCOUNTS].set_status(data["userId"], "offline", data["transition"])


async def _notify_offline_users(app: web.Application, message: dict[str, Any]) -> None:
    for participant in await _participants(app, message["conversationId"], message["senderId"]):
        if not participant["online"] and participant["userId"] != message["senderId"]:
            # Here a product would send a push notification or a mail.
            app[INBOX].notify(participant["userId"], message)


async def _participants(app: web.Application, conversation_id: str, sender_id: str) -> list[dict[str, Any]]:
    """Ask who is in a conversation, in the name of whoever wrote there; nobody where it is gone by now."""
    headers = {"Authorization": f"Bearer {sign_token(app[CONFIG], sender_id, ERRAND_LIFETIME)}"}
    url = f"{app[CONFIG].chat_url}/api/conversations/{conversation_id}/presence"
    async with app[SESSION].get(url, headers=headers) as response:
        if response.status in {401, 403, 404}:
            return []
        response.raise_for_status()
        return list((await response.json())["participants"])


@routes.post("/notifications/read")
async def read_notifications(request: web.Request) -> web.Response:
    return web.json_response({"items": request.app[INBOX].take(caller(request))})
