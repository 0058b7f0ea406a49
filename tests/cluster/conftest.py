from dataclasses import replace

import pytest

from app.dev.valkey import start_valkey


@pytest.fixture
def alone(servers, folder):
    """Give the database, and a Redis in which no other pods decide anything."""
    server = start_valkey(folder)
    try:
        yield replace(servers, redis_url=server.url)
    finally:
        server.stop()
