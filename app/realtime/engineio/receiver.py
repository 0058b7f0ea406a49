"""The seams of an Engine.IO session: the protocol above it, and the engine that it belongs to."""

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from app.delivery.rooms import Frame
from app.realtime.engineio.heartbeat import Heartbeat
from app.runtime.supervisor import Supervisor

Session_contra = TypeVar("Session_contra", contravariant=True)


class Receiver(Protocol[Session_contra]):
    """The protocol that sessions carry, handed to the engine when it is built."""

    def take_now(self, session: Session_contra, message: str | bytes, /) -> bool:
        """Handle a message for which nothing must be waited for; False where it is none of these."""

    def clip(self, message: str | bytes, /) -> str | bytes:
        """Give what is needed of a message that must wait for its turn."""

    async def on_message(self, session: Session_contra, message: str | bytes, /) -> None:
        """Handle a message when its turn has come."""

    async def on_end(self, session: Session_contra, /) -> None:
        """Release what belongs to a session that has ended."""

    def acknowledgement(self, number: str, answer: bytes, /) -> Frame:
        """Write the acknowledgement, which is JSON, of the message to which a client gave a number."""


class Host(Protocol):
    """The engine, as far as its sessions know it."""

    receiver: Receiver[Any]
    supervisor: Supervisor
    heartbeat: Heartbeat
    sockets: dict[str, Any]
    max_unsent_bytes: int
    max_http_buffer_size: int
    ping_interval: int
    ping_timeout: int

    def flush_soon(self, session: Any, /) -> None:
        """Write what a session has to send at the end of this tick."""

    def flush(self, sessions: Iterable[Any], /) -> None:
        """Write what each session has to send now."""
