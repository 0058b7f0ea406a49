"""What the pool relies on inside of Tortoise and asyncpg: an upgrade that moves it must be seen here first."""

import inspect
from uuid import UUID

import asyncpg
import asyncpg.connect_utils
import pytest
from asyncpg.exceptions._base import DataError as BadValue
from asyncpg.pgproto import pgproto
from asyncpg.pool import Pool, PoolConnectionProxy
from tortoise.backends.asyncpg import client as of_tortoise
from tortoise.backends.asyncpg.client import AsyncpgDBClient
from tortoise.backends.base_postgres.client import BasePostgresClient
from tortoise.connection import ConnectionHandler

from app.contract import ids
from app.postgres import pool
from app.postgres.pool import Client, Connection

OVERRIDDEN = ["_translate_exceptions", "acquire_connection", "execute_query_dict"]


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_of_tortoise_is_still_there(name):
    assert getattr(Client, name) is not getattr(AsyncpgDBClient, name)
    taken = inspect.signature(getattr(Client, name)).parameters
    given = inspect.signature(getattr(AsyncpgDBClient, name)).parameters
    assert [one.kind for one in taken.values()] == [one.kind for one in given.values()]


def test_tortoise_runs_every_statement_through_what_is_overridden():
    for name in ("execute_insert", "execute_many", "execute_query", "execute_query_dict"):
        assert "async with self.acquire_connection() as connection:" in inspect.getsource(
            getattr(AsyncpgDBClient, name)
        )
    assert "return await self._translate_exceptions(func, *args, **kwargs)" in inspect.getsource(
        of_tortoise.translate_exceptions
    )


def test_tortoise_makes_its_client_of_the_engine_it_is_told():
    assert "client_class = engine_module.client_class" in inspect.getsource(ConnectionHandler)
    assert pool.client_class is Client


def test_tortoise_keeps_its_pool_where_connections_are_lent():
    made = inspect.getsource(BasePostgresClient.__init__)
    assert "self._pool = None" in made
    assert "self._pool_init_lock = asyncio.Lock()" in made
    assert list(inspect.signature(AsyncpgDBClient.create_connection).parameters) == ["self", "with_db"]
    created = inspect.getsource(AsyncpgDBClient.create_connection)
    assert "self._pool = await self.create_pool(" in created
    # What `pool_options` says is handed to asyncpg as it is.
    assert "**self.extra" in created


def test_asyncpg_makes_its_connections_as_ours_is_made():
    theirs = list(inspect.signature(asyncpg.Connection.__init__).parameters)
    assert theirs == ["self", "protocol", "transport", "loop", "addr", "config", "params"]
    assert issubclass(Connection, asyncpg.Connection)
    made = inspect.getsource(asyncpg.connect_utils)
    assert "con = connection_class(pr, tr, loop, addr, config, params_input)" in made


def test_asyncpg_resets_a_connection_by_what_the_pool_was_told():
    assert {"reset", "connection_class", "max_inactive_connection_lifetime"} <= set(
        inspect.signature(Pool.__init__).parameters
    )
    assert "timeout" in inspect.signature(Pool.release).parameters
    for name in ("is_in_transaction", "reset", "terminate", "is_closed", "execute"):
        assert callable(getattr(asyncpg.Connection, name))
    assert inspect.iscoroutinefunction(Pool.release)
    assert hasattr(PoolConnectionProxy, "terminate")


def test_a_value_that_cannot_be_sent_is_told_from_an_error_of_postgresql():
    assert issubclass(BadValue, asyncpg.InterfaceError)
    assert issubclass(BadValue, ValueError)
    assert BadValue is not asyncpg.DataError


def test_every_error_of_postgresql_is_found_by_its_sqlstate():
    found = [kind for kind in vars(asyncpg.exceptions).values() if getattr(kind, "sqlstate", None)]
    assert len(found) > 200
    assert asyncpg.exceptions.UnknownPostgresError.sqlstate is None


def test_ids_are_made_by_the_uuid_of_asyncpg():
    made = ids.new_id()
    assert type(made) is pgproto.UUID
    assert isinstance(made, UUID)
    # Of bytes, and of 32 digits.
    assert pgproto.UUID(made.bytes) == pgproto.UUID(made.hex) == UUID(made.hex)
