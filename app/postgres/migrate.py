"""Bringing a database up to date, by whichever of many processes comes first."""

import asyncio
import logging

from tortoise import Tortoise
from tortoise.migrations.api import migrate as apply_migrations

from app.config.types import Url
from app.postgres import database

# Any number will do, as long as nothing else in the database locks it.
LOCK = 0x63_68_61_74
# How long `chat-service migrate` waits for a PostgreSQL that is not there yet.
PATIENCE = 30.0
RETRY = 2.0
UNHURRIED = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}

_log = logging.getLogger(__name__)


class NoDatabaseError(Exception):
    """PostgreSQL is not there or does not let us in; the message says why."""


async def migrate(url: Url) -> None:
    """Apply the migrations that are missing; many processes may do so at once, and one does it."""
    lock = await database.connect(url)
    try:
        await lock.execute("SELECT pg_advisory_lock($1)", LOCK)
        config = database.configuration(url)
        # A migration takes the time that it takes.
        config["connections"]["default"]["credentials"]["server_settings"] = database.SERVER_SETTINGS | UNHURRIED
        try:
            await apply_migrations(config=config)
        finally:
            await Tortoise.close_connections()
    finally:
        await lock.close(timeout=database.CONNECT_TIMEOUT)


async def migrate_when_there(url: Url) -> None:
    """Apply the migrations that are missing, as soon as PostgreSQL is there; raises NoDatabaseError."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while True:
        try:
            return await migrate(url)
        except database.REFUSED as error:
            raise NoDatabaseError(f"PostgreSQL cannot be opened with DATABASE_URL: {error}") from error
        except database.AWAY as error:
            reason = str(error) or type(error).__name__
            if loop.time() + RETRY > end:
                message = f"PostgreSQL is not there after {PATIENCE:g} s: {reason}"
                raise NoDatabaseError(message) from error
            _log.warning("PostgreSQL is not there yet, trying again: %s", reason)
            await asyncio.sleep(RETRY)
