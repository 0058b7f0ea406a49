"""`chat-service dev`: everything on one machine, with nothing installed beforehand."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from app import database, server
from app.dev.embedded import EmbeddedServer, start_postgres, start_valkey
from app.dev.master import MasterConfig, create_master
from app.settings import Settings, SettingsError

DATA_DIR = Path(".data")
HOST = "127.0.0.1"
DEMO_PORT = "3000"
# People who press Ctrl-C do not want to wait for clients to move over.
DRAIN_TIMEOUT = "1s"
ISSUER = "demo-master"


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What the command line says; `env` is the environment."""

    ephemeral: bool
    demo: bool
    env: Mapping[str, str]


async def run(options: DevOptions) -> None:
    """Start everything, print where it is, and stop it all in order at Ctrl-C.

    Raises SettingsError, EmbeddedError or PortInUseError, each of which says what to do.
    """
    demo_port = _demo_port(options.env)
    # Bad settings and taken ports are told at once, not after the databases have started.
    expected = Settings.read(_environment(options.env, "postgresql://pending", "redis://pending", demo_port))
    _try_ports(expected, options, demo_port)
    async with _data_dir(options) as data_dir, contextlib.AsyncExitStack() as stack:
        _say(f"Starting in {data_dir.resolve()}")
        database_url = options.env.get("DATABASE_URL")
        if not database_url:
            first = not (data_dir / "postgres").exists()
            _say("PostgreSQL: making a new database, once" if first else "PostgreSQL: starting")
            database_url = await _start(stack, start_postgres, data_dir)
        redis_url = options.env.get("REDIS_URL")
        if not redis_url:
            _say("Valkey: starting")
            redis_url = await _start(stack, start_valkey, data_dir)
        settings = Settings.read(_environment(options.env, database_url, redis_url, demo_port))
        _say("Migrations: applying what is missing")
        await database.migrate(settings.database_url)

        async def ready() -> None:
            if options.demo:
                await stack.enter_async_context(_demo(settings, demo_port))
            _announce(settings, options, demo_port)

        await server.serve(settings, ready)
        _say("Stopping")


def _try_ports(settings: Settings, options: DevOptions, demo_port: int) -> None:
    server.bind(settings.http_host, settings.http_port, "HTTP_PORT").close()
    server.bind(settings.ws_host, settings.ws_port, "WS_PORT").close()
    if options.demo:
        server.bind(HOST, demo_port, "DEMO_PORT").close()


@asynccontextmanager
async def _data_dir(options: DevOptions) -> AsyncIterator[Path]:
    if not options.ephemeral:
        yield DATA_DIR
        return
    data_dir = Path(tempfile.mkdtemp(prefix="chat-service-"))
    # PostgreSQL may run as another user than this process, who has to get in.
    data_dir.chmod(0o711)
    try:
        yield data_dir
    finally:
        shutil.rmtree(data_dir)


async def _start(
    stack: contextlib.AsyncExitStack, start: Callable[[Path], EmbeddedServer], data_dir: Path
) -> str:
    embedded = await asyncio.to_thread(start, data_dir)
    stack.push_async_callback(asyncio.to_thread, embedded.stop)
    return embedded.url


def _demo_port(env: Mapping[str, str]) -> int:
    text = env.get("DEMO_PORT", DEMO_PORT)
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise SettingsError(["DEMO_PORT: must be a whole number from 1 to 65535"])
    return int(text)


def _environment(env: Mapping[str, str], database_url: str, redis_url: str, demo_port: int) -> dict[str, str]:
    """Complete the environment with what development needs; what is set there stands."""
    demo_origins = f"http://localhost:{demo_port},http://127.0.0.1:{demo_port}"
    defaults = {
        "AUTH_JWT_SECRET": "development-only-secret-that-signs-user-tokens",
        "AUTH_JWT_ISSUER": ISSUER,
        "INTERNAL_API_SECRET": "development-only-secret-of-the-internal-api",
        "ALLOWED_ORIGINS": demo_origins,
        "HTTP_HOST": HOST,
        "WS_HOST": HOST,
        "LOG_FORMAT": "text",
        "LOG_LEVEL": "WARNING",
        "DRAIN_TIMEOUT": DRAIN_TIMEOUT,
    }
    for name in ("AUTH_JWT_SECRET", "INTERNAL_API_SECRET"):
        if f"{name}_FILE" in env:
            del defaults[name]
    return {**defaults, **env, "DATABASE_URL": database_url, "REDIS_URL": redis_url}


@asynccontextmanager
async def _demo(settings: Settings, port: int) -> AsyncIterator[None]:
    with server.bind(HOST, port, "DEMO_PORT") as listening:
        config = MasterConfig(
            chat_url=f"http://{HOST}:{settings.http_port}",
            socket_url=f"http://{HOST}:{settings.ws_port}",
            jwt_secret=settings.auth_jwt_secret.reveal(),
            jwt_issuer=settings.auth_jwt_issuer,
        )
        runner = web.AppRunner(create_master(config), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        try:
            yield
        finally:
            await runner.cleanup()


def _announce(settings: Settings, options: DevOptions, demo_port: int) -> None:
    lines = [
        "",
        "Everything runs. Ctrl-C stops it.",
        "",
        f"  REST and internal API   http://{HOST}:{settings.http_port}",
        f"  Socket.IO               http://{HOST}:{settings.ws_port}",
    ]
    if not options.env.get("DATABASE_URL"):
        lines.append(f"  PostgreSQL              {settings.database_url.reveal()}")
    if not options.env.get("REDIS_URL"):
        lines.append(f"  Valkey                  {settings.redis_url.reveal()}")
    lines.append("")
    for name, secret in (
        ("AUTH_JWT_SECRET", settings.auth_jwt_secret),
        ("INTERNAL_API_SECRET", settings.internal_api_secret),
    ):
        if name not in options.env and f"{name}_FILE" not in options.env:
            lines.append(f"  {name:<23} {secret.reveal()}   (for development only)")
    if options.demo:
        lines += [
            "",
            f"Open http://localhost:{demo_port} in two browser windows, log in as two people, and talk.",
        ]
    _say("\n".join(lines))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what the person at the terminal waits for
