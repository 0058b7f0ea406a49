"""The npm client of Socket.IO, installed once, and a pod that a test may harm."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from npm import install
from npm_client import FOLDER, NpmClient, npm_client
from pods import Pod, pods


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Install what package-lock.json names, unless that was done since it last changed."""
    install(FOLDER)
    return FOLDER / "node_modules"


@pytest.fixture
def npm_socket(node_modules: Path) -> Callable[..., AbstractAsyncContextManager[NpmClient]]:
    """Open a socket with the npm client: `async with npm_socket(url, token) as client`."""
    assert (node_modules / "socket.io-client").is_dir()
    return npm_client


@pytest.fixture
async def own_pod(servers: Any, tmp_path: Path) -> AsyncIterator[Pod]:
    """A pod that a test may stop and start, with no limit to what one user sends."""
    async with pods(servers.environment(RATE_LIMIT_SEND="0"), tmp_path, 1) as started:
        yield started[0]
