import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from processes import Command, processes_of, running, wait_until


def _folders() -> Iterator[Path]:
    # Not tmp_path: pytest closes its parent folder to the user that PostgreSQL gets under root.
    path = Path(tempfile.mkdtemp(prefix="chat-dev-")).resolve()
    path.chmod(0o755)
    yield path
    left = processes_of(path)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not any(running(process.pid) for process in left))
    shutil.rmtree(path)


def _commands(folder: Path) -> Iterator[Callable[..., Command]]:
    started = []

    def start(*arguments: str, **env: str) -> Command:
        started.append(Command(folder, ("-m", "app", *arguments), env))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder, and end whatever still runs in it afterwards."""
    yield from _folders()


@pytest.fixture
def command(folder) -> Iterator[Callable[..., Command]]:
    """Start commands in that folder, with nothing in the environment but what is given."""
    yield from _commands(folder)


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    yield from _folders()


@pytest.fixture(scope="module")
def shared_command(shared_folder) -> Iterator[Callable[..., Command]]:
    yield from _commands(shared_folder)
