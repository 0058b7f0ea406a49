"""Health: whether this process can serve."""

from typing import Protocol


class Database(Protocol):
    """The part of the database that health needs."""

    @property
    def is_away(self) -> bool: ...

    async def is_ready(self) -> bool: ...


class Health:
    """Ready means that PostgreSQL answers, up to date, and that the process is not draining."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.draining = False

    @property
    def takes_sockets(self) -> bool:
        """Whether this pod takes new sockets, as far as is known without asking."""
        return not self.draining and not self._database.is_away

    async def is_ready(self) -> bool:
        return not self.draining and await self._database.is_ready()
