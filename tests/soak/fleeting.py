"""Who types and who is online, as one connection was told: not stored, and right in the end."""

from collections.abc import Collection
from typing import Any

PRESENCE = {"user:online", "user:offline"}


class Fleeting:
    """The typing and the presence of one connection; `hear` gives a complaint or None."""

    def __init__(self) -> None:
        self._typing: set[tuple[str, str]] = set()
        self._presence: dict[str, tuple[bool, int]] = {}

    def hear(self, event: str, data: Any) -> str | None:
        """Take in an event."""
        if event == "user:typing":
            place = data["conversationId"], data["userId"]
            (self._typing.add if data["isTyping"] else self._typing.discard)(place)
        elif event in PRESENCE:
            user, number = data["userId"], data["transition"]
            _, before = self._presence.get(user, (False, 0))
            self._presence[user] = event == "user:online", number
            if number <= before:
                return f"{event} {number} of {user} came after {before}"
        return None

    def leave(self, conversation_id: str) -> None:
        """Forget who types where one is out."""
        self._typing = {place for place in self._typing if place[0] != conversation_id}

    @property
    def typing(self) -> list[tuple[str, str]]:
        return sorted(self._typing)

    def wrong(self, online: Collection[str], users: Collection[str]) -> list[str]:
        """Say of which users the last that was heard is not so; of the others nothing was heard."""
        return [
            f"{user} is {'online' if user in online else 'offline'}, which the last event, {number}, denies"
            for user, (is_online, number) in sorted(self._presence.items())
            if user in users and is_online != (user in online)
        ]
