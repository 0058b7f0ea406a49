"""The promise to one socket: each `seq` of its conversations once and in order, from its start on."""

from typing import Any

REMOVED = "participant:removed"


class Stream:
    """What one connection was sent, checked as it comes; every method gives a complaint or None."""

    def __init__(self, user_id: str) -> None:
        self._user_id = user_id
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}
        # Where the socket's stream has to begin at the latest, by what was loaded on it.
        self._begin_by: dict[str, int] = {}
        self._outside: set[str] = set()

    def hear(self, event: str, data: Any) -> str | None:
        """Take in an event."""
        if not isinstance(data, dict):
            return None
        conversation_id = data.get("id") if event == "conversation:new" else data.get("conversationId")
        if not isinstance(conversation_id, str):
            return None
        if event == "conversation:new":
            self._enter(conversation_id)
            return None
        if event == "conversation:deleted":
            self._leave(conversation_id)
            return None
        if not isinstance(data.get("seq"), int):
            return None
        complaint = self._place(conversation_id, data["seq"])
        if event == REMOVED and data["userId"] == self._user_id:
            self._leave(conversation_id)
        return complaint

    def loaded(self, conversation_id: str, seq: int) -> str | None:
        """Take in that the client has all up to `seq`, read after the connection was there."""
        first = self._first.get(conversation_id)
        if first is None:
            self._begin_by[conversation_id] = seq + 1
        elif first > seq + 1:
            return f"the stream began at {first}, and what was loaded meanwhile ends with {seq}"
        return None

    def _place(self, conversation_id: str, seq: int) -> str | None:
        last = self._last.get(conversation_id)
        self._last[conversation_id] = max(seq, last or 0)
        if conversation_id in self._outside:
            return f"seq {seq} came after their own removal"
        if conversation_id not in self._first:
            self._first[conversation_id] = seq
            latest = self._begin_by.pop(conversation_id, None)
            if latest is not None and seq > latest:
                return f"the stream begins at {seq}, and what was loaded ends with {latest - 1}"
            return None if last is None or seq > last else f"seq {seq} came again, after {last}"
        assert last is not None
        if seq == last + 1:
            return None
        return f"seq {seq} came {'again, ' if seq <= last else ''}after {last}"

    def _enter(self, conversation_id: str) -> None:
        # One that comes again while the stream goes on changes nothing.
        self._outside.discard(conversation_id)
        self._begin_by.pop(conversation_id, None)

    def _leave(self, conversation_id: str) -> None:
        self._outside.add(conversation_id)
        self._first.pop(conversation_id, None)
        self._begin_by.pop(conversation_id, None)
