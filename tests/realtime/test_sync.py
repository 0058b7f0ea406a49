import json
from datetime import UTC, datetime
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from clients import ear, somebody

from app.config.settings import Settings
from app.contract import ids
from app.contract.errors import NotFound
from app.contract.schemas import SocketSync
from app.identity.actor import Actor
from app.messages import event_log
from app.postgres import database, message_rows, participant_rows
from app.postgres.transactions import POOL
from app.usecases import catchup


def deps_of(settings):
    """Give a use-case what it reaches for: PostgreSQL, and no limits."""
    return SimpleNamespace(
        settings=settings,
        limits=SimpleNamespace(check=AsyncMock()),
        database=database.Database(settings.database_url),
    )


async def test_sync_gives_what_was_missed_in_order(user, cluster):
    anna, ben = user("anna"), user("ben", cluster[1])
    known, other = await anna.direct(ben.user_id), await anna.group(ben.user_id)
    first = await anna.say(known, "first")
    await anna.say(known, "second")
    await ben.post(f"/api/messages/{first['id']}/reactions", {"emoji": "👍"})
    since = datetime.now(UTC).isoformat()
    fresh = await anna.group(ben.user_id)
    stranger = await user("stranger").group()
    async with ear(cluster[0], ben.user_id) as socket:
        wanted = {known: 1, other: 0, stranger: 0, "nonsense": 0, "conv_" + "0" * 32: 5}
        answer = await socket.call("sync", {"conversations": wanted, "since": since})
    assert answer["ok"] is True
    assert answer["joined"] == [fresh]
    missed = answer["events"][known]
    assert [(item["seq"], item["event"]) for item in missed["items"]] == [
        (2, "message:new"),
        (3, "reaction:added"),
    ]
    assert missed["items"][0]["data"]["content"] == "second"
    assert (missed["lastSeq"], missed["hasMore"], missed["gap"]) == (3, False, False)
    assert answer["events"][other] == {"items": [], "lastSeq": 0, "hasMore": False, "gap": False}
    assert answer["events"][stranger]["error"]["code"] == "FORBIDDEN"
    assert answer["events"]["nonsense"]["error"]["code"] == "NOT_FOUND"
    assert answer["events"]["conv_" + "0" * 32]["error"]["code"] == "NOT_FOUND"


async def test_sync_tells_of_a_gap(user, cluster):
    anna = user("anna")
    room = await anna.direct(somebody("ben"))
    async with ear(cluster[0], anna.user_id) as socket:
        answer = await socket.call("sync", {"conversations": {room: 7}})
    assert answer["events"][room] == {"items": [], "lastSeq": 0, "hasMore": False, "gap": True}


async def test_sync_is_cut_to_256_kib_and_always_gets_on(user, cluster):
    anna = user("anna")
    rooms = [await anna.group() for _ in range(3)]
    for room in rooms:
        for _ in range(8):
            await anna.say(room, "🦊" * 7000)
    held = dict.fromkeys(rooms, 0)
    rounds = 0
    async with ear(cluster[0], anna.user_id) as socket:
        while any(seq < 8 for seq in held.values()):
            answer = await socket.call("sync", {"conversations": held})
            assert len(json.dumps(answer, ensure_ascii=False).encode()) <= 262_144
            before = sum(held.values())
            for room, page in answer["events"].items():
                for item in page["items"]:
                    assert item["seq"] == held[room] + 1
                    held[room] = item["seq"]
                assert page["hasMore"] is (held[room] < 8)
            assert sum(held.values()) > before
            rounds += 1
    assert rounds > 1


async def test_sync_asks_for_all_conversations_together_and_reads_little_more_than_fits(
    user, servers, monkeypatch
):
    anna = user("anna")
    rooms = [await anna.group() for _ in range(60)]
    for room in rooms[::2]:
        await anna.say(room, "x" * 8000)
    for _ in range(200):
        await anna.say(rooms[1], "x" * 8000)
    asked = []

    async def recorded(statement, *values, run=POOL.rows):
        found = await run(statement, *values)
        asked.append((statement, found))
        return found

    monkeypatch.setattr(POOL, "rows", recorded)
    settings = Settings.read(servers.environment())
    deps = deps_of(settings)
    actor = Actor(anna.user_id, can_read=True, can_write=True, expires_at=0, issued_at=0)
    async with database.opened(settings.database_url):
        answer = await catchup.sync(deps, actor, SocketSync(dict.fromkeys(rooms, 0)))
    # Who is in which, where they stand, and one portion: more does not fit.
    assert [statement for statement, _ in asked] == [
        participant_rows.MEMBERSHIPS,
        event_log.PLACES,
        message_rows.CHANGES_AFTER,
    ]
    assert len(asked[-1][1]) <= catchup.SYNC_ROWS
    pages = [answer["events"][room] for room in rooms]
    assert 25 < sum(len(page.items) for page in pages) < 40
    assert [page.has_more for page in pages[0::2]][-1] is True
    assert all(not page.gap for page in pages)


async def test_a_conversation_that_is_deleted_meanwhile_is_not_found_and_no_gap(user, servers, monkeypatch):
    anna = user("anna")
    room, other = await anna.group(), await anna.group()
    places = event_log.places

    async def deleted_first(positions):
        assert (await anna.delete(f"/api/conversations/{room}")).status == 204
        return await places(positions)

    monkeypatch.setattr(event_log, "places", deleted_first)
    settings = Settings.read(servers.environment())
    deps = deps_of(settings)
    actor = Actor(anna.user_id, can_read=True, can_write=True, expires_at=0, issued_at=0)
    async with database.opened(settings.database_url):
        answer = await catchup.sync(deps, actor, SocketSync({room: 0, other: 0}))
    assert answer["events"][room]["error"].code == "NOT_FOUND"
    assert answer["events"][other].gap is False
    room = await anna.group()
    async with database.opened(settings.database_url):
        with pytest.raises(NotFound):
            await catchup.list_events(deps, actor, ids.from_wire(ids.CONVERSATION, room), 0, 10)


async def test_too_many_conversations_at_once_are_refused(cluster):
    async with ear(cluster[0], somebody()) as socket:
        wanted = {f"conv_{n:032x}": 0 for n in range(201)}
        answer = await socket.call("sync", {"conversations": wanted})
        assert answer["error"]["code"] == "VALIDATION_ERROR"
        assert answer["error"]["details"] == {"field": "conversations"}


@pytest.mark.parametrize(
    "since", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00", "soon", 5]
)
async def test_a_time_that_is_none_is_refused(cluster, since):
    async with ear(cluster[0], somebody()) as socket:
        answer = await socket.call("sync", {"conversations": {}, "since": since})
    assert (answer["error"]["code"], answer["error"]["details"]) == ("VALIDATION_ERROR", {"field": "since"})


async def test_what_is_no_conversation_takes_its_room_in_the_answer_too(user, cluster):
    anna = user("anna")
    room = await anna.group()
    for _ in range(9):
        await anna.say(room, "🦊" * 7000)
    wanted = {room: 0} | {f"{n:03}" + "\u0001" * 61: 0 for n in range(199)}
    async with ear(cluster[0], anna.user_id) as socket:
        answer = await socket.call("sync", {"conversations": wanted})
        assert answer["events"][room]["hasMore"] is True
        assert len(json.dumps(answer, ensure_ascii=False).encode()) <= 262_144
        answer = await socket.call("sync", {"conversations": {"x" * 65: 0}})
        assert answer["error"]["details"] == {"field": "conversations"}
