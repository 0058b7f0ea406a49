"""Whether this process can serve."""

from app import database


class Health:
    """Ready means that PostgreSQL answers and that the process is not draining."""

    def __init__(self) -> None:
        self.draining = False

    async def is_ready(self) -> bool:
        return not self.draining and await database.is_available()
