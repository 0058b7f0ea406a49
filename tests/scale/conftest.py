import asyncpg
import pytest
from databases import new_database
from filling import fill


@pytest.fixture(scope="module")
async def filled(server_urls):
    """Give a connection to a database of its own, as a busy service has it after a while."""
    database_url, _ = server_urls
    async with new_database(database_url) as own:
        connection = await asyncpg.connect(own)
        await fill(connection)
        yield connection
        await connection.close()
