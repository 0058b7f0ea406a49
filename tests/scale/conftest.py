from uuid import uuid4

import asyncpg
import pytest
from filling import fill

from app import database
from app.setting_types import Url


@pytest.fixture(scope="module")
async def filled(server_urls):
    """Give a connection to a database of its own, as a busy service has it after a while."""
    database_url, _ = server_urls
    name = f"chat_scale_{uuid4().hex[:8]}"
    own = database_url.rsplit("/", 1)[0] + f"/{name}"
    admin = await asyncpg.connect(database_url)
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        await database.migrate(Url(own))
        connection = await asyncpg.connect(own)
        await fill(connection)
        yield connection
        await connection.close()
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()
