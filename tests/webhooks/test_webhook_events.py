"""What the master is told, and in which words."""

from clients import ear
from pods import pods
from receiver import WEBHOOK_SECRET


async def test_every_change_of_the_page_is_told_and_signed(stack):
    async with stack() as found:
        anna, ben = found.user("anna"), found.user("ben", pod=1)
        group = (await anna.post("/api/conversations", {"type": "group", "participantIds": [ben.user_id]})).json
        sent = await anna.say(group["id"], "Hello!")
        reacted = await ben.post(f"/api/messages/{sent['id']}/reactions", {"emoji": "👍"})
        assert reacted.status == 201
        assert (await anna.delete(f"/api/messages/{sent['id']}")).status == 204
        await found.receiver.wait("four", lambda: len(found.receiver.delivered) == 4)
        created, message, reaction, deleted = found.receiver.received
        assert created.event == "conversation.created"
        assert created.data == {
            "conversationId": group["id"],
            "type": "group",
            "createdBy": anna.user_id,
            "participantIds": [anna.user_id, ben.user_id],
            "createdAt": group["createdAt"],
        }
        assert message.event == "message.created"
        assert message.json["timestamp"] == sent["createdAt"]
        assert message.data["messageId"] == sent["id"]
        assert message.data["conversationId"] == group["id"]
        assert message.data["senderId"] == anna.user_id
        assert message.data["createdAt"] == sent["createdAt"]
        assert message.data["seq"] == 1
        assert reaction.event == "reaction.added"
        said = {"messageId": sent["id"], "conversationId": group["id"], "userId": ben.user_id, "emoji": "👍"}
        assert said.items() <= reaction.data.items()
        assert reaction.data["seq"] == 2
        assert deleted.event == "message.deleted"
        said = {
            "messageId": sent["id"],
            "conversationId": group["id"],
            "senderId": anna.user_id,
            "deletedBy": anna.user_id,
            "seq": 3,
        }
        assert said.items() <= deleted.data.items()
        for one in found.receiver.received:
            assert one.is_signed_with(WEBHOOK_SECRET)
            assert list(one.json) == ["event", "timestamp", "signature", "data"]
            assert one.headers["Content-Type"] == "application/json"
            assert len(one.headers["traceparent"]) == 55
        assert len({one.id for one in found.receiver.received}) == 4


async def test_presence_is_told_once_per_transition(stack):
    async with stack() as found:
        found.receiver.hears_presence = True
        anna = found.user("anna")
        async with ear(found.pods[0], anna.user_id):
            (came,) = await found.receiver.wait_for("user.online")
            async with ear(found.pods[1], anna.user_id):
                pass
        (went,) = await found.receiver.wait_for("user.offline")
        assert [one.event for one in found.receiver.received] == ["user.online", "user.offline"]
        assert came.data["userId"] == went.data["userId"] == anna.user_id
        assert came.data["transition"] < went.data["transition"]
        assert came.data["at"] <= went.data["at"]


async def test_what_was_deleted_is_told_to_nobody_any_more(stack):
    async with stack(workers=0) as found:
        anna, ben = found.user("anna"), found.user("ben")
        room = await anna.direct(ben.user_id)
        sent = await anna.post(
            f"/api/conversations/{room}/messages",
            {"content": "a secret", "attachments": [{"externalFileId": "secret-file"}]},
        )
        assert (await anna.delete(f"/api/messages/{sent.json['id']}")).status == 204
        pending = await found.listed("pending")
        assert [item["event"] for item in pending] == [
            "conversation.created",
            "message.created",
            "message.deleted",
        ]
        await found.start_worker()
        (message,) = await found.receiver.wait_for("message.created")
        await found.receiver.wait_for("message.deleted")
        assert message.data["content"] == ""
        assert message.data["attachments"] == []
        assert not any(b"secret" in one.body for one in found.receiver.received)


async def test_an_edited_message_is_told_in_its_present_form(stack):
    async with stack(workers=0) as found:
        anna = found.user("anna")
        room = await anna.direct(found.user("ben").user_id)
        sent = await anna.say(room, "frist")
        assert (await anna.patch(f"/api/messages/{sent['id']}", {"content": "first"})).status == 200
        await found.start_worker()
        (message,) = await found.receiver.wait_for("message.created")
        assert message.data["content"] == "first"


async def test_nothing_is_written_without_an_address(stack, own_servers, tmp_path):
    async with stack(workers=0) as found, pods(own_servers.environment(), tmp_path, 1) as found.pods:
        anna = found.user("anna")
        room = await anna.group()
        sent = await anna.say(room, "hello")
        await anna.post(f"/api/messages/{sent['id']}/reactions", {"emoji": "x"})
        await anna.delete(f"/api/messages/{sent['id']}")
        async with ear(found.pods[0], anna.user_id):
            pass
        users = "SELECT count(*) FROM webhooks WHERE user_id = $1"
        assert await found.database.fetchval(users, anna.user_id) == 0
