"""A failover that lost what was committed: sockets that have heard more than there is start afresh."""

from clients import ear
from gate import gated
from pods import pods, until

from app.contract import ids

# What a standby has not got that was not up to date.
LOSE = (
    "DELETE FROM messages WHERE conversation_id = $1 AND seq > $2",
    "UPDATE conversation_heads SET last_seq = $2, last_message_seq = $2 WHERE conversation_id = $1",
)


async def test_sockets_that_heard_what_was_lost_connect_again_and_the_others_stay(servers, tmp_path, user, sql):
    async with gated(servers.database_url) as gate:
        env = {**servers.environment(), "DATABASE_URL": gate.url}
        async with pods(env, tmp_path, 1) as (pod,):
            anna, ben, carl = user("anna", pod), user("ben", pod), user("carl", pod)
            lost, kept = await anna.direct(ben.user_id), await anna.direct(carl.user_id)
            async with ear(pod, ben.user_id) as bens, ear(pod, carl.user_id) as carls:
                for number in range(1, 6):
                    await anna.say(lost, f"{number}")
                await anna.say(kept, "1")
                await bens.wait_for("message:new", 5)
                await carls.wait_for("message:new")
                gate.shut()

                async def is_away():
                    return (await anna.get("/health/ready")).status == 503

                await until(is_away, "PostgreSQL is away")
                for statement in LOSE:
                    await sql.execute(statement, ids.from_wire(ids.CONVERSATION, lost), 3)
                gate.open()
                await bens.wait_for("disconnect")
                # The transport was closed: nobody told the client to stay away.
                assert bens.of("error") == []
                assert (await anna.say(kept, "2"))["seq"] == 2
                await carls.wait_for("message:new", 2)
                assert carls.of("disconnect") == []
            async with ear(pod, ben.user_id) as again:
                assert (await anna.say(lost, "4, once more"))["seq"] == 4
                (heard,) = await again.wait_for("message:new")
                assert (heard["seq"], heard["content"]) == (4, "4, once more")
                # A client that holds more than there is loads afresh.
                answer = await again.call("sync", {"conversations": {lost: 5}})
                assert answer["events"][lost]["gap"] is True
                history = (await ben.get(f"/api/conversations/{lost}/messages")).json["items"]
                assert [message["content"] for message in history] == ["4, once more", "3", "2", "1"]
