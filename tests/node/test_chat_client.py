"""chat-client.js against real pods, over socket.io-client and over its own WebSocket."""

import asyncio
import signal
import time
from contextlib import asynccontextmanager

import pytest
from balancer import balanced
from chat_process import chat_process
from clients import Rest, somebody, token
from pods import pods, until
from proxy import carry, close, proxied

FORMS = {
    "its own WebSocket": {},
    "io, websocket": {"transports": ["websocket"]},
    "io, upgrade": {"transports": ["polling", "websocket"]},
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@asynccontextmanager
async def connected(url, *tokens, **options):
    async with chat_process(url, *tokens, **options) as client:
        client.do("connect")
        await client.is_in("connected")
        yield client


def contents(client, conversation_id):
    return [data["content"] for event, data in client.changes(conversation_id) if event == "message:new"]


class Line:
    """The way to a pod, which a test may cut; those who come while it is cut are turned away."""

    def __init__(self, port):
        self._port = port
        self._writers = set()
        self.is_cut = False

    async def serve(self, reader, writer):
        if self.is_cut:
            return
        from_pod, to_pod = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, to_pod}
        try:
            await asyncio.gather(carry(reader, to_pod), carry(from_pod, writer))
        finally:
            self._writers -= {writer, to_pod}
            await close(to_pod)

    def cut(self):
        self.is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self):
        self.is_cut = False


@asynccontextmanager
async def line_to(pod):
    line = Line(pod.ws_port)
    async with proxied(line.serve) as port:
        yield line, f"http://127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def _installed(node_modules):
    """Socket.io-client is there for the forms that need it."""


@every_form
async def test_two_people_talk_and_each_change_comes_once(cluster, user, form):
    anna, ben = user("anna"), user("ben", cluster[1])
    room = await anna.direct(ben.user_id)
    async with (
        connected(cluster[0].ws, anna.token, **form) as annas,
        connected(cluster[1].ws, ben.token, **form) as bens,
    ):
        said = [f"Hello {number}" for number in range(20)]
        numbers = [annas.send(room, content) for content in said]
        stored = [await annas.acknowledgement(number) for number in numbers]
        assert [message["content"] for message in stored] == said
        assert [message["seq"] for message in stored] == list(range(1, 21))
        await annas.call("message:edit", {"messageId": stored[0]["id"], "content": "Hello!"})
        await annas.call("message:delete", {"messageId": stored[1]["id"]})
        for client in (annas, bens):
            await client.has_seq(room, 22)
            assert contents(client, room) == said
            assert [event for event, _ in client.changes(room)[-2:]] == ["message:updated", "message:deleted"]
        statuses = [one["status"] for one in annas.told("outgoing") if one["content"] == "Hello 0"]
        assert statuses == ["sending", "sent"]
        assert await annas.acknowledgement(annas.ask("outgoing", conversationId=room)) == []
        online = await annas.call("presence:get", {"userIds": [ben.user_id]})
        assert online == {"ok": True, "online": [ben.user_id]}


@every_form
async def test_nothing_is_lost_doubled_or_reordered_when_pods_are_killed(servers, http, tmp_path, form):
    async with (
        pods(servers.environment(), tmp_path, 2) as started,
        balanced([pod.ws_port for pod in started]) as balancer,
    ):
        people = {name: somebody(name) for name in ("anna", "ben")}
        anna = Rest(http, started[0].http, people["anna"], token(people["anna"]))
        room = await anna.direct(people["ben"])
        async with (
            connected(balancer.ws, anna.token, **form) as annas,
            connected(balancer.ws, token(people["ben"]), **form) as bens,
        ):
            for client in (annas, bens):
                client.do("track", conversationId=room, seq=0)
            said = [f"Line {number}" for number in range(120)]
            numbers = []
            for number, content in enumerate(said):
                numbers.append(annas.send(room, content))
                if number % 40 == 20:
                    victim = started[number // 40 % 2]
                    # Some are stored and not acknowledged by then, some acknowledged and not heard.
                    await bens.wait_until(lambda: len(contents(bens, room)) > 0, "the first message")
                    victim.signal(signal.SIGKILL)
                    await victim.exit_code()
                    await victim.start()
            stored = [await annas.acknowledgement(number) for number in numbers]
            assert [message["content"] for message in stored] == said
            assert [message["seq"] for message in stored] == list(range(1, len(said) + 1))
            for client in (annas, bens):
                await client.has_seq(room, len(said))
                assert contents(client, room) == said
            assert annas.states("offline") + bens.states("offline") != []
            assert annas.told("gap") == bens.told("gap") == []


@every_form
async def test_whoever_was_away_gets_all_that_was_missed_in_order(cluster, user, form):
    anna, ben, cleo = user("anna"), user("ben"), user("cleo")
    room = await anna.group(ben.user_id)
    first = await anna.say(room, "before")
    async with line_to(cluster[0]) as (line, url), connected(url, ben.token, **form) as bens:
        bens.do("track", conversationId=room, seq=1)
        line.cut()
        await bens.is_in("offline")
        waiting = bens.send(room, "from the tunnel")
        # More than one answer of `sync` holds, of every kind.
        messages = [await anna.say(room, f"missed {number}") for number in range(120)]
        await anna.patch(f"/api/messages/{first['id']}", {"content": "edited"})
        await anna.post(f"/api/messages/{first['id']}/reactions", {"emoji": "👍"})
        await anna.delete(f"/api/messages/{messages[-1]['id']}")
        await anna.post(f"/api/conversations/{room}/participants", {"userId": cleo.user_id})
        elsewhere = await anna.group(ben.user_id)
        line.mend()
        await bens.is_in("syncing")
        await bens.is_in("connected", 2)
        assert (await bens.acknowledgement(waiting))["content"] == "from the tunnel"
        await bens.has_seq(room, 126)
        assert contents(bens, room)[:119] == [f"missed {number}" for number in range(119)]
        kinds = {event for event, _ in bens.changes(room)}
        assert kinds == {
            "message:new",
            "message:updated",
            "message:deleted",
            "reaction:added",
            "participant:added",
        }
        assert bens.told("joined") == [{"conversationIds": [elsewhere]}]
        assert [one["status"] for one in bens.told("outgoing")] == ["waiting", "sending", "sent"]


@every_form
async def test_a_new_token_is_handed_in_before_the_old_one_expires(cluster, user, form):
    anna = user("anna")
    expiry = int(time.time()) + 5
    tokens = token(anna.user_id, exp=expiry), anna.token
    async with connected(cluster[0].ws, *tokens, **form) as annas:
        await annas.wait_for("token asked", 2)
        assert time.time() < expiry

        async def is_past_and_connected():
            assert await annas.call("presence:ping", {}) == {"ok": True}
            return time.time() > expiry + 2

        await until(is_past_and_connected, "the end of the old token")
        assert annas.told("state") == [{"state": "connecting"}, {"state": "connected"}]


@every_form
async def test_a_token_that_expired_is_replaced_at_once(cluster, user, form):
    anna = user("anna")
    room = await anna.group()
    wrong = token(anna.user_id, secret="another-secret-than-the-service-has")
    tokens = token(anna.user_id, exp=int(time.time()) + 3), wrong, anna.token
    async with connected(cluster[0].ws, *tokens, **form) as annas:
        await annas.is_in("connected", 2)
        assert len(annas.of("token asked")) == 3
        assert [data["code"] for data in annas.told("error")] == ["UNAUTHORIZED", "UNAUTHORIZED"]
        assert annas.states("offline") == []
        assert (await annas.acknowledgement(annas.send(room, "still here")))["seq"] == 1


@every_form
@pytest.mark.parametrize(
    ("claims", "reason"),
    [({"secret": "another-secret-than-the-service-has"}, "unauthorized"), ({"permissions": []}, "forbidden")],
    ids=["a wrong token", "no chat:read"],
)
async def test_a_refusal_is_told_and_not_tried_again_until_one_asks(cluster, form, claims, reason):
    who = somebody()
    async with chat_process(cluster[0].ws, token(who, **claims), token(who), **form) as refused:
        refused.do("connect")
        await refused.is_in("refused")
        assert refused.told("state") == [{"state": "connecting"}, {"state": "refused", "reason": reason}]
        if reason == "unauthorized":
            refused.do("connect")
            await refused.is_in("connected")


@every_form
async def test_what_cannot_be_filled_is_told(cluster, user, form):
    anna, ben = user("anna"), user("ben")
    room, strange = await anna.group(ben.user_id), await anna.group()
    for number in range(3):
        await anna.say(room, f"{number}")
    async with chat_process(cluster[0].ws, ben.token, **form) as bens:
        # Ahead of what the service has, as after it was restored from a backup.
        bens.do("track", conversationId=room, seq=99)
        bens.do("track", conversationId=strange, seq=0)
        bens.do("connect")
        await bens.is_in("connected")
        assert bens.told("gap") == [{"conversationId": room, "lastSeq": 3}]
        [lost] = bens.told("lost")
        assert (lost["conversationId"], lost["error"]["code"]) == (strange, "FORBIDDEN")
        await anna.say(room, "after it")
        await bens.has_seq(room, 4)
        # An older state was loaded than the client holds: what lies between comes again.
        bens.do("track", conversationId=room, seq=1)
        await bens.wait_for("event", 4, event="message:new")
        assert [data["seq"] for _, data in bens.changes(room)] == [4, 2, 3, 4]


@every_form
async def test_a_message_that_is_refused_waits_for_a_decision_and_blocks_no_other(cluster, user, form):
    anna = user("anna")
    room = await anna.group()
    async with connected(cluster[0].ws, anna.token, **form) as annas:
        refused, kept = annas.send(room, "  "), annas.send(room, "fine")
        assert (await annas.acknowledgement(refused))["code"] == "VALIDATION_ERROR"
        assert (await annas.acknowledgement(kept))["seq"] == 1
        [failed] = await annas.acknowledgement(annas.ask("outgoing", conversationId=room))
        assert failed["status"] == "failed"
        again = annas.ask("retry", clientMessageId=failed["clientMessageId"])
        assert (await annas.acknowledgement(again))["code"] == "VALIDATION_ERROR"
        annas.do("discard", clientMessageId=failed["clientMessageId"])
        assert await annas.acknowledgement(annas.ask("outgoing", conversationId=room)) == []


@every_form
async def test_who_says_too_much_at_once_is_slowed_and_not_refused(servers, http, tmp_path, form):
    async with pods(servers.environment(RATE_LIMIT_SEND="5/s,2"), tmp_path, 1) as [pod]:
        anna_id = somebody("anna")
        room = await Rest(http, pod.http, anna_id, token(anna_id)).group()
        async with connected(pod.ws, token(anna_id), **form) as annas:
            numbers = [annas.send(room, f"{number}") for number in range(10)]
            stored = [await annas.acknowledgement(number) for number in numbers]
            assert [message["seq"] for message in stored] == list(range(1, 11))
            assert {data["code"] for data in annas.told("error")} == {"RATE_LIMITED"}


@every_form
async def test_closing_gives_up_what_waits(form):
    async with chat_process("http://127.0.0.1:1", token(somebody()), **form) as client:
        client.do("connect")
        [told] = await client.is_in("offline")
        assert told["reason"] == "unreachable"
        waiting = client.send("conv_any", "never")
        client.do("close")
        assert (await client.acknowledgement(waiting))["code"] == "CLOSED"
        assert len(await client.is_in("closed")) == 1
