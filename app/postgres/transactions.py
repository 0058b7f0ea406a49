"""Running statements: on the pool, each a transaction of its own, or within the one that is handed on as `tx`.

No function looks for a current transaction. One that must run within one takes `tx: Transaction`; one that may run
either way takes an `Executor`; all others name POOL, which refuses to run anything for a task whose transaction is
open. Any await may be cancelled: no transaction outlives its block.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from app.observability import tracing
from app.postgres.errors import TRY_AGAIN, RolledBackError
from app.postgres.pool import ENDING_PATIENCE, Lent, connection, translated

Row = dict[str, Any]

# The tasks whose transaction is open.
in_transaction: set[asyncio.Task[Any] | None] = set()


def _refuse_within_transaction() -> None:
    # On a connection beside that of its transaction it would not see what it changed, or wait for its own locks.
    if asyncio.current_task() in in_transaction:
        raise RuntimeError("a transaction is open, and what runs within it takes its `tx`")


class Executor(Protocol):
    """What statements run on; errors are those of `pool.translated`."""

    async def rows(self, statement: str, *values: Any) -> list[Row]: ...

    async def row(self, statement: str, *values: Any) -> Row | None:
        """Run a statement that gives one row at most."""
        found = await self.rows(statement, *values)
        return found[0] if found else None

    async def execute(self, statement: str, *values: Any) -> None:
        """Run a statement that gives nothing."""
        await self.rows(statement, *values)


class Pool(Executor):
    """Each statement is a transaction of its own, and run again where a conflict rolled it back.

    Raises RuntimeError within a transaction.
    """

    async def rows(self, statement: str, *values: Any) -> list[Row]:
        _refuse_within_transaction()
        with tracing.statement(statement):
            return await connection().execute_query_dict(statement, list(values))


POOL = Pool()


class Transaction(Executor):
    """An open transaction; past the end of its block it raises InterfaceError."""

    def __init__(self, lent: PoolConnectionProxy) -> None:
        self._lent = lent

    async def rows(self, statement: str, *values: Any) -> list[Row]:
        with tracing.statement(statement), translated():
            return [dict(found) for found in await self._lent.fetch(statement, *values)]


@asynccontextmanager
async def transaction() -> AsyncIterator[Transaction]:
    """Run the statements of a block in one transaction, which is committed at its end.

    Wherever it is cancelled or fails, nothing is left open. A commit that was cancelled may have happened. Raises
    RolledBackError where the block may be done again, and RuntimeError within another transaction.
    """
    _refuse_within_transaction()
    async with Lent(connection()) as lent:
        try:
            await lent.execute("BEGIN")
            task = asyncio.current_task()
            in_transaction.add(task)
            try:
                yield Transaction(lent)
            finally:
                in_transaction.discard(task)
            await _commit(lent)
        except TRY_AGAIN as error:
            await _roll_back(lent)
            raise RolledBackError(str(error)) from error
        except BaseException:
            await _roll_back(lent)
            raise


async def _commit(lent: PoolConnectionProxy) -> None:
    # What failed before is rolled back by it, and no error of it.
    if await lent.execute("COMMIT") != "COMMIT":
        raise asyncpg.InFailedSQLTransactionError("the transaction had failed and was rolled back")


async def _roll_back(lent: PoolConnectionProxy) -> None:
    """End whatever is open on a connection; where that is not confirmed, the connection is ended with it."""
    try:
        async with asyncio.timeout(ENDING_PATIENCE):
            # Waits for the end of a statement that was cancelled, and does no harm where nothing is open.
            await lent.execute("ROLLBACK")
    except BaseException as error:
        with suppress(asyncpg.InterfaceError):
            # Raised of a connection that was ended already; why the transaction failed must not be lost by it.
            lent.terminate()
        if not isinstance(error, Exception):
            raise
