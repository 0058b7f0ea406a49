"""The sockets of one user on this pod."""


class UserSockets:
    """A user's sockets on this pod, as Redis stores them, and by which change the user is online."""

    __slots__ = ("known", "sockets")

    def __init__(self) -> None:
        self.known = 0
        # Each by its age and its id. Most users have one: a container for it would be larger than all else here.
        self.sockets = ""

    def add(self, socket_id: str, age: int) -> None:
        self.sockets = f"{self.sockets} {age}:{socket_id}".lstrip()

    def remove(self, socket_id: str) -> bool:
        """Take a socket out; False where it is not there."""
        sockets = self.sockets.split()
        kept = [one for one in sockets if one.partition(":")[2] != socket_id]
        self.sockets = " ".join(kept)
        return len(kept) < len(sockets)


NO_SOCKETS = UserSockets()
