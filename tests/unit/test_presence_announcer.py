"""Changes of presence are told in the end, and nobody waits for somebody else's contacts."""

import asyncio
from types import SimpleNamespace
from uuid import UUID

import pytest

from app.postgres.transactions import POOL
from app.presence.changes import PresenceChange, PresenceChanges
from app.usecases import presence_announcer
from app.usecases.presence_announcer import PAGE_PARTICIPANTS, Announcer

LARGE_GROUP = 100
MOST = 200
PAGE = PAGE_PARTICIPANTS // LARGE_GROUP


class World:
    """What an announcer reaches: who is in which conversation, and what it told."""

    def __init__(self, conversations):
        self.conversations = conversations
        self.failures = []
        self.heard = {}
        self.pages = []
        self.done = []
        self.presence = SimpleNamespace(changes=PresenceChanges(), announced=self.announced)
        self.settings = SimpleNamespace(large_group=LARGE_GROUP)
        self.outbox = SimpleNamespace(append_presence=self.append)
        self.fanout = SimpleNamespace(publish_to_users=self.publish, is_steady=True)

    async def append(self, _):
        if self.failures:
            raise self.failures.pop()

    async def announced(self, changes):
        self.presence.changes.done(changes)
        self.done += [change.user_id for change in changes]

    def publish(self, user_ids, event):
        self.heard.setdefault(event.data, []).extend(user_ids)

    async def rows(self, _, users, after, page, large):
        self.pages.append(users)
        await asyncio.sleep(0)
        return [
            {"user_id": user, "conversation_id": UUID(int=number), "user_ids": people[: large + 1]}
            for user, start in zip(users, after, strict=True)
            for number, people in list(enumerate(self.conversations[user], 1))[start.int : start.int + page]
        ]


@pytest.fixture
def world(monkeypatch):
    def make(**conversations):
        found = World(conversations)
        monkeypatch.setattr(POOL, "rows", found.rows)
        return found

    return make


async def announce(world, *users):
    for number, user in enumerate(users, 1):
        world.presence.changes.add(PresenceChange(user, True, number))
    announcer = Announcer(world)
    running = [
        asyncio.create_task(work()) for work in (announcer.announce_forever, announcer.announce_widely_forever)
    ]
    async with asyncio.timeout(10):
        while len(world.done) < len(users) and not any(task.done() for task in running):  # noqa: ASYNC110
            await asyncio.sleep(0)
    for task in running:
        task.cancel()
    return await asyncio.gather(*running, return_exceptions=True)


async def test_who_is_in_many_conversations_holds_up_nobody(world):
    many = [["busy", f"{number}"] for number in range(PAGE * 20)]
    found = world(busy=many, small=[["small", "friend"]], other=[["other", "friend"]])
    await announce(found, "busy", "small", "other")
    assert found.done[-1] == "busy"
    assert found.pages[0] == ["busy", "small", "other"]
    assert all(page == ["busy"] for page in found.pages[1:])
    busy, small, other = found.heard.values()
    assert sorted(busy) == sorted(f"{number}" for number in range(PAGE * 20))
    assert small == other == ["friend"]


async def test_two_who_are_in_many_conversations_take_turns(world):
    many = {who: [[who, f"{number}"] for number in range(PAGE * 5)] for who in ("one", "two")}
    found = world(**many)
    await announce(found, "one", "two")
    assert found.pages[1:5] == [["one"], ["two"], ["one"], ["two"]]


async def test_contacts_are_told_once_large_groups_aside_and_no_more_than_there_may_be(world, monkeypatch):
    monkeypatch.setattr(presence_announcer, "MAX_CONTACTS", MOST)
    crowd = [f"{number}" for number in range(LARGE_GROUP + 1)]
    friends = [["busy", f"{number}", "friend"] for number in range(MOST + PAGE * 3)]
    found = world(busy=[crowd, *friends])
    await announce(found, "busy")
    (heard,) = found.heard.values()
    assert len(heard) == len(set(heard)) == MOST
    assert heard.count("friend") == 1


async def test_what_could_not_be_told_is_told_later(world):
    found = world(anna=[["anna", "ben"]])
    found.failures.append(OSError("the outbox refuses"))
    outcomes = await announce(found, "anna")
    assert any(isinstance(outcome, OSError) for outcome in outcomes)
    assert found.heard == {}
    # The loop is started again.
    await announce(found, "anna")
    assert list(found.heard.values()) == [["ben"]]
