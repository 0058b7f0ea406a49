"""The AsyncAPI document: valid, complete, and true to what sockets really hear."""

import json

import jsonschema
from clients import Master, ear
from documents import references, resolve

from app.contract import events
from app.realtime.socketio.handlers import EVENTS
from app.rest.docs import asyncapi

DOCUMENT = asyncapi.document()
MESSAGES = DOCUMENT["channels"]["socket"]["messages"]
# Those with a dot are webhooks'.
SPELLED = {
    value for name, value in vars(events).items() if name.isupper() and isinstance(value, str) and "." not in value
}


def named(action):
    operations = [one for one in DOCUMENT["operations"].values() if one["action"] == action]
    return {resolve(DOCUMENT, one["messages"][0]["$ref"])["name"] for one in operations}


def is_as_described(name, data):
    [message] = [message for message in MESSAGES.values() if message["name"] == name]
    jsonschema.Draft202012Validator({**message["payload"], "components": DOCUMENT["components"]}).validate(data)


def test_the_document_is_valid(node_modules):
    schema = json.loads((node_modules / "@asyncapi/specs/schemas/3.0.0-without-$id.json").read_text())
    jsonschema.Draft7Validator(schema).validate(DOCUMENT)
    assert {type(resolve(DOCUMENT, reference)) for reference in references(DOCUMENT)} == {dict}


def test_it_describes_exactly_the_events_that_have_a_handler():
    assert named("receive") == EVENTS


def test_it_describes_exactly_the_events_that_the_service_tells():
    assert named("send") == SPELLED - EVENTS


async def test_it_is_served_to_anybody(http, cluster):
    async with http.get(cluster[0].http + "/asyncapi.json") as response:
        assert response.status == 200
        assert await response.json() == DOCUMENT


async def test_every_event_and_answer_is_as_described(cluster, user, http):
    anna, ben, cleo = user("anna"), user("ben"), user("cleo")
    master = Master(http, cluster[0].http, "", "")
    answers = {}
    async with ear(cluster[0], anna.user_id) as annas:

        async def say(event, data):
            is_as_described(event, data)
            answers[event] = await annas.call(event, data)
            is_as_described(f"acknowledgement of {event}", answers[event])
            return answers[event]

        direct = await anna.direct(ben.user_id)
        async with ear(cluster[1], ben.user_id) as bens:
            await annas.wait_for("user:online")
            group = await anna.group(ben.user_id, title="Lunch", metadata={"table": 4})
            attachments = [{"externalFileId": "file_1", "label": "menu.pdf"}]
            sending = {"conversationId": group, "content": "Hungry?", "attachments": attachments}
            message_id = (await say("message:send", {**sending, "clientMessageId": "1"}))["message"]["id"]
            await say("message:edit", {"messageId": message_id, "content": "Hungry yet?"})
            await say("typing:start", {"conversationId": direct})
            await say("typing:stop", {"conversationId": direct})
            await say("presence:ping", {})
            assert (await say("presence:get", {"userIds": [ben.user_id]}))["online"] == [ben.user_id]
            await say("auth:refresh", {"token": anna.token})
            reactions, people = f"/api/messages/{message_id}/reactions", f"/api/conversations/{group}/participants"
            for method, path, body, caller in (
                ("POST", reactions, {"emoji": "👍"}, ben),
                ("DELETE", f"{reactions}/👍", None, ben),
                ("PUT", f"/api/messages/{message_id}/read", None, ben),
                ("POST", people, {"userId": cleo.user_id}, anna),
                ("DELETE", f"{people}/{cleo.user_id}", None, anna),
                ("PATCH", f"/api/conversations/{group}", {"title": "Dinner"}, anna),
                ("DELETE", f"/api/conversations/{direct}", None, anna),
            ):
                assert (await caller.call(method, path, json=body)).status < 300
            await say("message:delete", {"messageId": message_id})
            held = {"conversations": {group: 0, direct: 99, "conv_none": 0}, "since": "2026-01-01T00:00:00.000Z"}
            found = (await say("sync", held))["events"]
            assert len(found[group]["items"]) == 8
            assert found[direct]["gap"]
            assert found["conv_none"]["error"]["code"] == "NOT_FOUND"
            assert (await say("message:edit", {"messageId": message_id, "content": "Too late"}))["ok"] is False
            assert (await master.delete(f"/api/admin/conversations/{group}")).status == 204
            await bens.wait_for("user:typing", 2)
            await bens.wait_for("conversation:deleted")
        await annas.wait_for("message:read")
        await annas.wait_for("user:offline")
    heard = [one for listener in (annas, bens) for one in (*listener.heard, *listener.presence)]
    for one in heard:
        if one.event != "disconnect":
            is_as_described(one.event, one.data)
    assert answers.keys() == EVENTS
    assert {one.event for one in heard} - {"disconnect"} == named("send")
