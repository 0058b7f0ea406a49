"""The machine that is measured on: its cores, who runs where, and how it is described."""

import os
import platform
import resource
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
# Each server process has a core for itself; the databases and the load generator have the others. Where there are
# only two cores, a second server process has to share with them.
SERVER_CORES = [{core} for core in CORES[:2]]
OTHER_CORES = set(CORES[2:] or CORES[1:])


@contextmanager
def running_on(cores: AbstractSet[int]) -> Iterator[None]:
    """Have processes that are started in the block run on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Allow as many open files as the system lets us, for all processes to come; gives how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def cpu_seconds(pid: int) -> float:
    """Tell how much of a processor all threads of a process have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def describe(versions: dict[str, str]) -> list[str]:
    """Say what was measured on, in lines; nothing in them tells whose machine it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = platform.release().partition("-")[0]
    packages = ("sanic", "python-socketio", "uvloop", "asyncpg", "msgspec")
    return [
        f"{len(CORES)} cores of {_cpu_model()}, {memory:.0f} GB, Linux {kernel}",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages),
        ", ".join(f"{name} {number}" for name, number in versions.items()),
    ]


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
