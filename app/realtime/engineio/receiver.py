"""The protocol that Engine.IO sessions carry, as the engine knows it: given to it when it is built."""

from typing import TYPE_CHECKING, Protocol

from app.delivery.rooms import Frame

if TYPE_CHECKING:
    from app.realtime.engineio.session import Session


class Receiver(Protocol):
    """The protocol that sessions carry."""

    def take_now(self, session: "Session", message: str | bytes, /) -> bool:
        """Handle a message for which nothing must be waited for; False where it is none of these."""

    def clip(self, message: str | bytes, /) -> str | bytes:
        """Give what is needed of a message that must wait for its turn."""

    async def on_message(self, session: "Session", message: str | bytes, /) -> None:
        """Handle a message when its turn has come."""

    async def on_end(self, session: "Session", /) -> None:
        """Release what belongs to a session that has ended."""

    def acknowledgement(self, number: str, answer: bytes, /) -> Frame:
        """Write the acknowledgement, which is JSON, of the message to which a client gave a number."""
