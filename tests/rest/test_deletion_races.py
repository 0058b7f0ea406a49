"""A user who is deleted while somebody lets them into a group is not in it."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import pytest
from clients import somebody
from pods import until

WAITS = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = $1)"


@asynccontextmanager
async def held(servers):
    """Let nobody write participants for the length of a block."""
    connection = await asyncpg.connect(servers.database_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE participants IN SHARE MODE")
            yield
    finally:
        await connection.close()


async def add(anna, room, user_id):
    return await anna.post(f"/api/conversations/{room}/participants", {"userId": user_id})


async def create(anna, _, user_id):
    return await anna.post("/api/conversations", {"type": "group", "participantIds": [user_id]})


async def group_of(master, user_id):
    listed = await master.get(f"/api/admin/conversations?userId={user_id}")
    return listed.json["items"]


@pytest.mark.parametrize("is_synced", [True, False], ids=["synced", "never synced"])
@pytest.mark.parametrize("let_in", [add, create])
async def test_who_is_deleted_while_they_are_let_into_a_group_is_not_in_it(
    user, master, servers, sql, let_in, is_synced
):
    anna, gone = user("anna"), somebody("gone")
    room = await anna.group()
    if is_synced:
        await master.post("/api/users/sync", {"externalUserId": gone, "displayName": "Gone"})
    async with held(servers):
        letting_in = asyncio.create_task(let_in(anna, room, gone))
        await until(lambda: sql.fetchval(WAITS, "relation"), "that they are about to be let in")
        deleting = asyncio.create_task(master.delete(f"/api/users/{gone}"))

        async def is_deleted():
            return deleting.done() or await sql.fetchval(WAITS, "advisory")

        await until(is_deleted, "the deletion, or that it waits")
    answers = await asyncio.gather(letting_in, deleting)
    assert [answer.status for answer in answers] == [201, 204]
    assert await group_of(master, gone) == []
    assert (await let_in(anna, room, gone)).status == 409
