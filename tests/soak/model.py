"""What a client knows of a conversation: loaded over REST, kept up to date by events."""

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass
class Said:
    """A message as a client shows it."""

    seq: int
    sender_id: str
    content: str
    is_deleted: bool = False
    reactions: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Json) -> "Said":
        reactions = {one["emoji"]: set(one["userIds"]) for one in message["reactions"]}
        return cls(message["seq"], message["senderId"], message["content"], "deletedAt" in message, reactions)

    def view(self) -> Any:
        """Give what can be compared; the reactions of a tombstone are shown nowhere."""
        reactions = {} if self.is_deleted else {emoji: sorted(ids) for emoji, ids in self.reactions.items() if ids}
        return [self.seq, self.sender_id, self.content, self.is_deleted, dict(sorted(reactions.items()))]


@dataclass
class Room:
    """A conversation in which all up to `held` is contained."""

    held: int
    title: str | None
    owner_id: str | None
    participants: set[str]
    messages: dict[str, Said]

    @classmethod
    def of(cls, conversation: Json, messages: list[Json]) -> "Room":
        """Build one from what REST gives; the conversation was read before the messages."""
        return cls(
            conversation["lastSeq"],
            conversation.get("title"),
            conversation.get("ownerId"),
            {person["userId"] for person in conversation["participants"]},
            {message["id"]: Said.of(message) for message in messages},
        )

    def apply(self, event: str, data: Json) -> None:
        """Take in the change after the last one."""
        self.held = data["seq"]
        match event:
            case "message:new":
                self.messages[data["id"]] = Said.of(data)
            case "participant:added":
                self.participants.add(data["participant"]["userId"])
            case "participant:removed":
                self.participants.discard(data["userId"])
            case "conversation:updated":
                self.title, self.owner_id = data.get("title"), data.get("ownerId")
            case _:
                self._apply_to_message(event, data)

    def _apply_to_message(self, event: str, data: Json) -> None:
        said = self.messages[data["messageId"]]
        match event:
            case "message:updated":
                if not said.is_deleted:
                    said.content = data["content"]
            case "message:deleted":
                said.content, said.is_deleted = "", True
            case "reaction:added":
                said.reactions.setdefault(data["emoji"], set()).add(data["userId"])
            case "reaction:removed":
                said.reactions.get(data["emoji"], set()).discard(data["userId"])
            case _:
                raise ValueError(f"unknown event {event}")

    def view(self) -> Json:
        """Give what is compared with other views of the same conversation."""
        return {
            "lastSeq": self.held,
            "title": self.title,
            "ownerId": self.owner_id,
            "participants": sorted(self.participants),
            "messages": {name: self.messages[name].view() for name in sorted(self.messages)},
        }


def difference(one: Json, other: Json) -> str | None:
    """Say in what two views differ, shortly; None where they are equal."""
    for name in ("lastSeq", "title", "ownerId", "participants"):
        if one[name] != other[name]:
            return f"{name}: {one[name]} / {other[name]}"
    mine, theirs = one["messages"], other["messages"]
    odd = [name for name in sorted(mine.keys() | theirs.keys()) if mine.get(name) != theirs.get(name)]
    if odd:
        return f"{len(odd)} messages, the first {odd[0]}: {mine.get(odd[0])} / {theirs.get(odd[0])}"
    return None
