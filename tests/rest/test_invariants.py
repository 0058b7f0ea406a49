"""What a client knows from its events is what the service would tell it if it asked, after every kind of action.

In the manner of Zulip's tests of events: a model of a client starts from what it loads, and then only applies what
its socket hears, or what the event log gives it.
"""

import asyncio
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from urllib.parse import quote

from clients import Ear, Rest, ear

THUMB, HEART = "👍", "❤️"


class Client:
    """What a client holds of one conversation; None where it is not in it."""

    def __init__(self, who, room):
        self.who, self.room = who, room
        self.state = None
        self.applied = 0

    async def load(self):
        """Load everything afresh; gives None for a stranger, and where there is no conversation."""
        answer = await self.who.get(f"/api/conversations/{self.room}")
        if answer.status in {401, 403, 404}:
            return None
        messages, cursor = [], ""
        while True:
            page = (await self.who.get(f"/api/conversations/{self.room}/messages?limit=7{cursor}")).json
            messages += page["items"]
            if not page["hasMore"]:
                return {**outline(answer.json), "messages": {message["id"]: message for message in messages}}
            cursor = f"&before={page['nextCursor']}"

    def hear(self, heard):
        """Apply what came since the last time; True where the conversation must be loaded."""
        new, self.applied = heard[self.applied :], len(heard)
        must_load = False
        for event in new:
            if event.event == "conversation:new":
                must_load = True
            elif not must_load and self.state is not None:
                self.apply(event.event, event.data)
        return must_load

    def apply(self, event, data):
        if event in {"conversation:deleted", "error", "disconnect"}:
            # The only error that comes here is that the user was deleted.
            self.state = None
            return
        if event == "message:read":
            read = self.state["read"]
            read[data["userId"]] = max(read[data["userId"]], data["lastReadSeq"])
            return
        if data["seq"] <= self.state["lastSeq"]:
            return
        assert data["seq"] == self.state["lastSeq"] + 1
        self.state["lastSeq"] = data["seq"]
        getattr(self, event.replace(":", "_"))(data)

    def message_new(self, data):
        self.state["messages"][data["id"]] = {**data, "reactions": []}

    def message_updated(self, data):
        self.state["messages"][data["messageId"]] |= {name: data[name] for name in ("content", "updatedAt")}

    def message_deleted(self, data):
        grave = {"content": "", "attachments": [], "deletedAt": data["deletedAt"]}
        self.state["messages"][data["messageId"]] |= grave

    def reaction_added(self, data):
        reactions = self.state["messages"][data["messageId"]]["reactions"]
        same = [one for one in reactions if one["emoji"] == data["emoji"]]
        if not same:
            reactions.append({"emoji": data["emoji"], "userIds": [data["userId"]], "count": 1})
        elif data["userId"] not in same[0]["userIds"]:
            same[0]["userIds"].append(data["userId"])
            same[0]["count"] += 1

    def reaction_removed(self, data):
        reactions = self.state["messages"][data["messageId"]]["reactions"]
        for one in [one for one in reactions if one["emoji"] == data["emoji"]]:
            one["userIds"].remove(data["userId"])
            one["count"] -= 1
            if not one["count"]:
                reactions.remove(one)

    def participant_added(self, data):
        person = data["participant"]
        self.state["roles"][person["userId"]] = person["role"]
        self.state["read"][person["userId"]] = person["lastReadSeq"]

    def participant_removed(self, data):
        if data["userId"] == self.who.user_id:
            self.state = None
            return
        del self.state["roles"][data["userId"]]
        del self.state["read"][data["userId"]]

    def conversation_updated(self, data):
        self.state |= {name: data[name] for name in ("title", "metadata", "ownerId", "updatedAt")}
        roles = self.state["roles"]
        roles.update({who: "owner" if who == data["ownerId"] else "member" for who in roles})

    def derived(self):
        """Give the state with what a client works out by itself."""
        if self.state is None:
            return None
        state = deepcopy(self.state)
        own = state["read"][self.who.user_id]
        unread = [
            message
            for message in state["messages"].values()
            if message["seq"] > own and message["senderId"] != self.who.user_id and "deletedAt" not in message
        ]
        last = max(state["messages"].values(), key=lambda message: message["seq"], default=None)
        return sorted_reactions({**state, "unreadCount": len(unread), "lastMessage": last})


def outline(conversation):
    """Take from a conversation what events tell of it."""
    people = conversation["participants"]
    return {
        **{name: conversation.get(name) for name in ("title", "metadata", "ownerId", "updatedAt", "lastSeq")},
        "unreadCount": conversation.get("unreadCount"),
        "lastMessage": conversation.get("lastMessage"),
        "roles": {person["userId"]: person["role"] for person in people},
        "read": {person["userId"]: person["lastReadSeq"] for person in people},
    }


def sorted_reactions(state):
    """Put reactions in an order of no meaning: which comes first follows from who is left of those who reacted."""
    for message in [*state["messages"].values(), *filter(None, [state["lastMessage"]])]:
        message["reactions"] = sorted(message["reactions"], key=lambda one: one["emoji"])
    return state


@dataclass
class World:
    """Some people, their sockets and what was said."""

    owner: Rest
    member: Rest
    third: Rest
    master: Rest
    room: str
    ears: dict[str, Ear]
    said: dict[str, str] = field(default_factory=dict)

    @property
    def path(self):
        return f"/api/conversations/{self.room}"

    def message(self, name, more=""):
        return f"/api/messages/{self.said[name]}{more}"

    async def say(self, who, name, **more):
        answer = await who.post(f"{self.path}/messages", {"content": name, **more})
        self.said[name] = answer.json["id"]
        return answer.status

    async def call(self, who, event, **payload):
        answer = await self.ears[who.user_id].call(event, payload)
        assert answer["ok"] is True, answer
        if event == "message:send":
            self.said[payload["content"]] = answer["message"]["id"]
        return 200


async def status(call):
    return (await call).status


def post(who, path, body):
    return status(who.post(path, body))


FILE = [{"externalFileId": "f", "label": "a file"}]
REACT = "/reactions"

# What is done, how many changes it makes, and what the one who does it is answered.
ACTIONS = [
    ("send", 1, 201, lambda w: w.say(w.owner, "one")),
    ("send from another pod", 1, 201, lambda w: w.say(w.member, "two", attachments=FILE, clientMessageId="k")),
    ("send the same again", 0, 200, lambda w: w.say(w.member, "two", attachments=FILE, clientMessageId="k")),
    (
        "send on the socket",
        1,
        200,
        lambda w: w.call(w.owner, "message:send", conversationId=w.room, content="three"),
    ),
    (
        "send on the socket of another pod",
        1,
        200,
        lambda w: w.call(w.member, "message:send", conversationId=w.room, content="four", attachments=FILE),
    ),
    ("edit", 1, 200, lambda w: status(w.owner.patch(w.message("one"), {"content": "one!"}))),
    ("edit to the same", 0, 200, lambda w: status(w.owner.patch(w.message("one"), {"content": "one!"}))),
    ("edit another's", 0, 403, lambda w: status(w.owner.patch(w.message("two"), {"content": "mine"}))),
    (
        "edit on the socket",
        1,
        200,
        lambda w: w.call(w.member, "message:edit", messageId=w.said["two"], content="two!"),
    ),
    ("react", 1, 201, lambda w: post(w.owner, w.message("two", REACT), {"emoji": THUMB})),
    ("react again", 0, 200, lambda w: post(w.owner, w.message("two", REACT), {"emoji": THUMB})),
    ("react as another has", 1, 201, lambda w: post(w.member, w.message("two", REACT), {"emoji": THUMB})),
    ("react otherwise", 1, 201, lambda w: post(w.member, w.message("two", REACT), {"emoji": HEART})),
    (
        "take a reaction back",
        1,
        204,
        lambda w: status(w.owner.delete(w.message("two", f"{REACT}/{quote(THUMB)}"))),
    ),
    (
        "take back what is not there",
        0,
        204,
        lambda w: status(w.owner.delete(w.message("two", f"{REACT}/{quote(THUMB)}"))),
    ),
    ("read a message", 0, 200, lambda w: status(w.owner.put(w.message("two", "/read")))),
    ("read an older one", 0, 200, lambda w: status(w.owner.put(w.message("one", "/read")))),
    ("read all", 0, 200, lambda w: status(w.member.put(f"{w.path}/read"))),
    ("title", 1, 200, lambda w: status(w.member.patch(w.path, {"title": "Trip"}))),
    ("the same title", 0, 200, lambda w: status(w.owner.patch(w.path, {"title": "Trip"}))),
    ("metadata", 1, 200, lambda w: status(w.owner.patch(w.path, {"metadata": {"b": [1, {"c": None}], "a": "é"}}))),
    ("no title", 1, 200, lambda w: status(w.owner.patch(w.path, {"title": None}))),
    ("add", 1, 201, lambda w: post(w.member, f"{w.path}/participants", {"userId": w.third.user_id})),
    ("add again", 0, 201, lambda w: post(w.owner, f"{w.path}/participants", {"userId": w.third.user_id})),
    ("a newcomer sends", 1, 201, lambda w: w.say(w.third, "five")),
    ("a newcomer reacts", 1, 201, lambda w: post(w.third, w.message("two", REACT), {"emoji": HEART})),
    ("delete on the socket", 1, 200, lambda w: w.call(w.owner, "message:delete", messageId=w.said["three"])),
    ("delete again", 0, 204, lambda w: status(w.owner.delete(w.message("three")))),
    ("edit a tombstone", 0, 409, lambda w: status(w.owner.patch(w.message("three"), {"content": "x"}))),
    ("the owner deletes", 1, 204, lambda w: status(w.owner.delete(w.message("four")))),
    ("delete with reactions", 1, 204, lambda w: status(w.member.delete(w.message("two")))),
    ("read a tombstone", 0, 200, lambda w: status(w.third.put(w.message("two", "/read")))),
    ("remove", 1, 204, lambda w: status(w.owner.delete(f"{w.path}/participants/{w.third.user_id}"))),
    ("remove again", 0, 204, lambda w: status(w.owner.delete(f"{w.path}/participants/{w.third.user_id}"))),
    ("send without the one removed", 1, 201, lambda w: w.say(w.owner, "six")),
    ("add once more", 1, 201, lambda w: post(w.owner, f"{w.path}/participants", {"userId": w.third.user_id})),
    ("leave", 1, 204, lambda w: status(w.third.delete(w.path))),
    ("come back", 1, 201, lambda w: post(w.member, f"{w.path}/participants", {"userIds": [w.third.user_id]})),
    ("hand over", 2, 204, lambda w: status(w.owner.delete(w.path))),
    ("the new owner deletes", 1, 204, lambda w: status(w.member.delete(w.message("six")))),
    ("the third's last words", 1, 201, lambda w: w.say(w.third, "seven")),
    (
        "the third's account is deleted with all they said",
        3,
        204,
        lambda w: status(w.master.delete(f"/api/users/{w.third.user_id}?erase=messages")),
    ),
    ("all are gone", None, 204, lambda w: status(w.member.delete(w.path))),
]


async def last_seq(clients):
    states = [await client.load() for client in clients]
    return max((state["lastSeq"] for state in states if state), default=None)


async def agree(name, clients, listeners, expected):
    """Check that every model has become what its user would load."""
    for client in clients:
        listener = listeners[client.who.user_id]
        fresh = await client.load()
        async with asyncio.timeout(10):
            # What goes on in the background takes its time.
            while expected is not None and fresh is not None and fresh["lastSeq"] < expected:
                fresh = await client.load()
        fresh = fresh and sorted_reactions(fresh)
        must_load = False

        def agrees(heard, client=client, fresh=fresh):
            nonlocal must_load
            must_load = client.hear(heard) or must_load
            return must_load or client.derived() == fresh

        try:
            await listener.wait(name, agrees)
        except AssertionError as error:
            raise AssertionError(f"after {name!r}: {client.derived()} is not {fresh}") from error
        if must_load:
            # What is told of a new conversation is what would be loaded.
            new = outline(listener.of("conversation:new")[-1])
            assert new["lastSeq"] == fresh["lastSeq"], name
            assert new == {**outline_of(fresh), "unreadCount": None}
            client.state = fresh


def outline_of(state):
    return {part: value for part, value in state.items() if part != "messages"}


async def test_what_clients_know_is_what_they_would_load_after_every_action(user, master, cluster):
    owner, member, third = user("owner"), user("member", cluster[1]), user("third", cluster[1])
    room = await owner.group(member.user_id)
    async with AsyncExitStack() as stack:
        people = (owner, member, third)
        ears = {
            one.user_id: await stack.enter_async_context(ear(cluster[n % 2], one.user_id))
            for n, one in enumerate(people)
        }
        world = World(owner, member, third, master, room, ears)
        clients = [Client(one, room) for one in people]
        # Another two know only what the event log gives them.
        readers = [Client(one, room) for one in (owner, member)]
        for client in (*clients, *readers):
            client.state = await client.load()
        for name, changes, answered, act in ACTIONS:
            before = await last_seq(clients)
            assert await act(world) == answered, name
            expected = None if changes is None else before + changes
            await agree(name, clients, ears, expected)
            assert await last_seq(clients) == expected, name
            for reader in readers:
                await catch_up(name, reader)


async def catch_up(name, reader):
    """Bring a model up to date by the event log alone, which does not tell who has read how much."""
    fresh = await reader.load()
    if fresh is None or reader.state is None:
        reader.state = None
        return
    page = (await reader.who.get(f"/api/conversations/{reader.room}/events?after={reader.state['lastSeq']}")).json
    assert (page["gap"], page["hasMore"]) == (False, False)
    for item in page["items"]:
        reader.apply(item["event"], item["data"])
    known, stored = reader.derived(), sorted_reactions(fresh)
    for state in (known, stored):
        del state["read"], state["unreadCount"]
    assert known == stored, name


async def test_one_who_read_only_the_event_log_knows_all_of_a_group_from_its_beginning(user, cluster):
    owner, member, third = user("owner"), user("member", cluster[1]), user("third", cluster[1])
    room = await owner.group(member.user_id)
    async with ear(cluster[0], owner.user_id) as near, ear(cluster[1], member.user_id) as far:
        ears = {owner.user_id: near, member.user_id: far}
        world = World(owner, member, third, owner, room, ears)
        reader = Client(member, room)
        reader.state = await reader.load()
        for _, _, answered, act in ACTIONS[:38]:
            assert await act(world) == answered
        await catch_up("everything", reader)
