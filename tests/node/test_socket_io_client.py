"""The npm client of Socket.IO with the options of a page, against real pods."""

import json
import signal
import time
from typing import Any

import pytest
from clients import Rest, somebody, token
from npm_client import FOLDER, TRANSPORT_REASONS, TRANSPORTS
from pods import ORIGIN

every_transport = pytest.mark.parametrize("options", TRANSPORTS.values(), ids=TRANSPORTS)


def sending(conversation_id: Any, content: Any) -> dict[str, Any]:
    return {"conversationId": conversation_id, "content": content}


def contents(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in messages]


async def stored(user: Rest, conversation_id: str) -> list[str]:
    """Read the history, oldest first."""
    answer = await user.get(f"/api/conversations/{conversation_id}/messages?limit=100")
    assert answer.status == 200, answer
    return contents(answer.json["items"])[::-1]


def test_the_lock_names_packages_and_no_registry():
    packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    installed = {name: package for name, package in packages.items() if name}
    assert "node_modules/socket.io-client" in installed
    assert [name for name, package in installed.items() if "resolved" in package] == []
    assert [name for name, package in installed.items() if "integrity" not in package] == []


@every_transport
@pytest.mark.parametrize("other_pod", [0, 1], ids=["same pod", "two pods"])
async def test_two_users_talk(cluster, user, npm_socket, options, other_pod):
    anna, ben = user("anna"), user("ben", cluster[other_pod])
    conversation_id = await anna.direct(ben.user_id)
    first = options.get("transports", ["polling"])[0]
    async with (
        npm_socket(cluster[0].ws, anna.token, **options) as annas,
        npm_socket(cluster[other_pod].ws, ben.token, **options) as bens,
    ):
        for client in (annas, bens):
            await client.wait_for("open", transport=first)
            await client.wait_for("connect")
        # Some of these are on their way while the transport is upgraded.
        said = [f"Hello, Ben {number}" for number in range(5)]
        for content in said:
            assert (await annas.call("message:send", sending(conversation_id, content)))["ok"]
        await bens.heard("message:new", 5)
        if not options:
            for client in (annas, bens):
                await client.wait_for("upgrade", transport="websocket")
        said.append("Hello, Anna")
        assert (await bens.call("message:send", sending(conversation_id, said[-1])))["ok"]
        for client in (annas, bens):
            assert contents(await client.heard("message:new", 6)) == said
        assert bens.of("disconnect") == bens.of("connect_error") == []
    assert await stored(ben, conversation_id) == said


async def test_a_socket_hears_each_message_as_the_acknowledgement_has_it(cluster, user, npm_socket):
    anna, ben = user("anna"), user("ben")
    conversation_id = await anna.direct(ben.user_id)
    async with (
        npm_socket(cluster[0].ws, anna.token) as annas,
        npm_socket(cluster[1].ws, ben.token) as bens,
    ):
        await bens.wait_for("connect")
        wanted = {**sending(conversation_id, "Ünïcödé 🙂"), "clientMessageId": "from-a-page"}
        answer = await annas.call("message:send", wanted)
        assert answer["ok"]
        assert answer["message"]["clientMessageId"] == "from-a-page"
        assert await annas.heard("message:new") == [answer["message"]]
        assert await bens.heard("message:new") == [answer["message"]]
        again = await annas.call("message:send", wanted)
        assert again == answer
        last = await annas.call("message:send", sending(conversation_id, "the end"))
        assert (await bens.heard("message:new", 2)) == [answer["message"], last["message"]]


@every_transport
async def test_what_is_sent_without_waiting_is_stored_and_acknowledged_in_order(
    own_pod, http, npm_socket, options
):
    anna_id = somebody("anna")
    anna = Rest(http, own_pod.http, anna_id, token(anna_id))
    conversation_id = await anna.direct(somebody("ben"))
    said = [str(number) for number in range(50)]
    async with npm_socket(own_pod.ws, anna.token, **options) as annas:
        await annas.wait_for("connect")
        numbers = [annas.emit("message:send", sending(conversation_id, content)) for content in said]
        acknowledged = await annas.wait_for("ack", len(said))
        assert [one["number"] for one in acknowledged] == numbers
        answers = [one["answer"][0] for one in acknowledged]
        assert [answer["ok"] for answer in answers] == [True] * len(said)
        assert [answer["message"]["seq"] for answer in answers] == list(range(1, len(said) + 1))
        assert contents([answer["message"] for answer in answers]) == said
        assert contents(await annas.heard("message:new", len(said))) == said
    assert await stored(anna, conversation_id) == said


@every_transport
@pytest.mark.parametrize(
    ("claims", "message"),
    [({"secret": "another-secret-than-the-service-has"}, "unauthorized"), ({"permissions": []}, "forbidden")],
    ids=["a wrong token", "no chat:read"],
)
async def test_a_token_that_does_not_do_is_refused_by_name_and_for_good(
    cluster, npm_socket, options, claims, message
):
    async with npm_socket(cluster[0].ws, token(somebody(), **claims), **options) as refused:
        [error] = await refused.wait_for("connect_error")
        assert error["message"] == message
        # The page is to ask for a new token; with this one the client does not try again by itself.
        assert error["active"] is False
        refused.connect(token(somebody()))
        await refused.wait_for("connect")
        assert len(await refused.wait_for("connect_error")) == 1


@every_transport
async def test_a_socket_ends_with_its_token_and_comes_back_with_a_new_one(cluster, user, npm_socket, options):
    anna = user("anna")
    expiry = int(time.time()) + 3
    async with npm_socket(cluster[0].ws, token(anna.user_id, exp=expiry), **options) as annas:
        await annas.wait_for("connect")
        [error] = await annas.heard("error")
        assert error["code"] == "UNAUTHORIZED"
        [end] = await annas.wait_for("disconnect")
        assert end["reason"] == "io server disconnect"
        assert end["active"] is False
        assert expiry - 0.1 <= time.time() <= expiry + 2
        annas.connect(anna.token)
        assert len(await annas.wait_for("connect", 2)) == 2


@every_transport
async def test_an_event_that_is_wrong_is_answered_and_the_socket_goes_on(cluster, user, npm_socket, options):
    anna = user("anna")
    conversation_id = await anna.direct(somebody("ben"))
    wrong = [
        ("message:shout", [{}]),
        ("message:send", []),
        ("message:send", ["no object"]),
        ("message:send", [{"conversationId": conversation_id}]),
        ("message:send", [sending(1, "the id is a number")]),
        ("message:send", [b"bytes"]),
        ("message:send", [sending(conversation_id, b"bytes")]),
    ]
    async with npm_socket(cluster[0].ws, anna.token, **options) as annas:
        await annas.wait_for("connect")
        for number, (event, data) in enumerate(wrong, 1):
            answer = await annas.call(event, *data)
            assert answer["ok"] is False, (event, data)
            assert answer["error"]["code"] == "VALIDATION_ERROR", (event, data)
            assert (await annas.heard("error", number))[-1] == {**answer["error"], "event": event}
        assert (await annas.call("message:send", sending(conversation_id, "still here")))["ok"]
        assert annas.of("disconnect") == []
    assert await stored(anna, conversation_id) == ["still here"]


@every_transport
async def test_a_client_comes_back_by_itself_when_its_pod_does(own_pod, http, npm_socket, options):
    anna_id = somebody("anna")
    anna = Rest(http, own_pod.http, anna_id, token(anna_id))
    conversation_id = await anna.direct(somebody("ben"))
    async with npm_socket(own_pod.ws, anna.token, **options) as annas:
        await annas.wait_for("connect")
        assert (await annas.call("message:send", sending(conversation_id, "before")))["ok"]
        own_pod.signal(signal.SIGTERM)
        [end] = await annas.wait_for("disconnect")
        assert end["reason"] in TRANSPORT_REASONS
        assert end["active"] is True
        assert await own_pod.exit_code() == 0
        # The client keeps what is sent in between until it is connected again.
        while_away = annas.emit("message:send", sending(conversation_id, "while away"))
        await own_pod.start()
        await annas.wait_for("connect", 2)
        assert len(annas.of("reconnect")) == 1
        assert (await annas.acknowledgement(while_away))["ok"]
        assert (await annas.call("message:send", sending(conversation_id, "after")))["ok"]
        assert contents(await annas.heard("message:new", 3)) == ["before", "while away", "after"]
    assert await stored(anna, conversation_id) == ["before", "while away", "after"]
    assert own_pod.errors() == []


@every_transport
async def test_a_page_of_a_listed_origin_is_served(cluster, user, npm_socket, options):
    anna = user("anna")
    conversation_id = await anna.direct(somebody("ben"))
    async with npm_socket(cluster[0].ws, anna.token, extraHeaders={"Origin": ORIGIN}, **options) as annas:
        await annas.wait_for("connect")
        assert (await annas.call("message:send", sending(conversation_id, "from a page")))["ok"]


@every_transport
async def test_a_page_of_another_origin_gets_no_socket(cluster, user, npm_socket, options):
    headers = {"Origin": "https://evil.example.com"}
    async with npm_socket(cluster[0].ws, user("anna").token, extraHeaders=headers, **options) as refused:
        [error] = await refused.wait_for("connect_error")
        assert error["message"] in {"xhr poll error", "websocket error"}
        assert refused.of("connect") == []
