"""The load generator: C, built by the compiler of the wheel `ziglang`, run once per measurement."""

import asyncio
import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import PYTHON, Server

SOURCES = Path(__file__).parent / "load"
LONGEST_RUN = 600.0

Measurement = dict[str, float]


class LoadError(Exception):
    """Something was lost, doubled or refused, or did not come in time; the message says what."""


@dataclass(frozen=True)
class Client:
    """One client: which port it goes to, its token, and its conversation."""

    port: int
    token: str
    conversation_id: str


class Load:
    """Runs scenarios against servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._program = folder / "load"
        self._plan = folder / "plan"

    def build(self) -> None:
        sources = sorted(f"{source}" for source in SOURCES.glob("*.c"))
        command = [PYTHON, "-m", "ziglang", "cc", "-O2", "-o", f"{self._program}", *sources]
        subprocess.run(command, check=True, start_new_session=True)

    async def run(
        self, mode: str, clients: Iterable[Client], servers: Sequence[Server], **options: float
    ) -> Measurement:
        """Run one scenario; raises LoadError."""
        self._plan.write_text("".join(f"{one.port} {one.token} {one.conversation_id}\n" for one in clients))
        pids = ",".join(str(server.pid) for server in servers)
        arguments = [f"{name}={value:g}" for name, value in options.items()]
        process = await asyncio.create_subprocess_exec(
            self._program,
            mode,
            self._plan,
            f"server_pids={pids}",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(LONGEST_RUN):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            words = [server.last_words() for server in servers]
            raise LoadError(
                "\n".join([errors.decode(errors="replace").strip(), "The servers' last words:", *words])
            )
        measured: Measurement = json.loads(output)
        return measured
