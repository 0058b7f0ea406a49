"""The memory of a process, as Linux keeps account of it."""

from pathlib import Path

import pytest

on_linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs the accounts of Linux")


def _status(pid: int, name: str) -> int:
    """Read a line of /proc/<pid>/status, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


class Growth:
    """The most that a process has come to hold in memory beyond what it held at the beginning."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        # Lowers the high-water mark to what is held now.
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        self._before = _status(pid, "VmRSS")

    @property
    def peak(self) -> int:
        return _status(self._pid, "VmHWM") - self._before
