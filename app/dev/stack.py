"""`chat-service dev`: everything on one machine, with nothing installed beforehand."""

import asyncio
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from app.config.settings import Settings, SettingsError, same_ports
from app.dev.embedded import EmbeddedServer
from app.dev.master import MasterConfig, create_master
from app.dev.postgres import start_postgres
from app.dev.valkey import start_valkey
from app.observability import logs
from app.postgres import migrate
from app.process import server
from app.runtime import ports as process
from app.webhooks import process as webhooks

HOST = "127.0.0.1"
DEMO_PORT = "3000"
# People who press Ctrl-C do not want to wait for clients to move over.
DRAIN_TIMEOUT = "1s"
ISSUER = "demo-master"
# In the place of servers that do not run yet, so that all other settings can be checked.
PENDING = {"DATABASE_URL": "postgresql://pending", "REDIS_URL": "redis://pending"}


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What the command line says: where the data stay, or None to forget them; `env` is the environment."""

    data: Path | None
    demo: bool
    env: Mapping[str, str]

    def names(self, setting: str) -> bool:
        """Tell whether the environment has a setting, by itself or as a file."""
        return bool(self.env.get(setting) or self.env.get(f"{setting}_FILE"))


async def run(options: DevOptions) -> None:
    """Start everything, print where it is, and stop it all in order at Ctrl-C, even one during the start.

    Raises SettingsError, PortInUseError, EmbeddedError or NoDatabaseError, each of which says what to do.
    """
    # Bad settings and taken ports are reported at once, not after the databases have started.
    expected, demo_port = _read(options, PENDING)
    logs.configure_logging(expected.log_level, expected.log_format)
    _try_ports(expected, options, demo_port)
    stopping = _stop_signals()
    with _data_dir(options) as data_dir:
        async with AsyncExitStack() as stack:
            settings = await _unless(stopping, _prepare(options, data_dir, stack))
            if settings is not None:
                await _serve(settings, options, demo_port, stopping)
            _say("Stopping")


def _read(options: DevOptions, urls: Mapping[str, str]) -> tuple[Settings, int]:
    """Read the settings, with `urls` for the servers that the environment does not name, and DEMO_PORT."""
    text = options.env.get("DEMO_PORT", DEMO_PORT)
    is_good = re.fullmatch(r"[0-9]{1,5}", text) is not None and 1 <= int(text) <= 65535
    # What follows from a bad one is not bad itself.
    demo_port = int(text if is_good else DEMO_PORT)
    bad = [] if is_good else ["DEMO_PORT: must be a whole number from 1 to 65535"]
    try:
        settings = Settings.read(_environment(options, urls, demo_port))
    except SettingsError as error:
        raise SettingsError([*error.problems, *bad]) from error
    bad += same_ports({name: port for name, (_, port) in _listeners(settings, options, demo_port).items()})
    if bad:
        raise SettingsError(bad)
    return settings, demo_port


def _environment(options: DevOptions, urls: Mapping[str, str], demo_port: int) -> dict[str, str]:
    """Complete the environment with what development needs; what is set there stands."""
    secrets = {
        "AUTH_JWT_SECRET": "development-only-secret-that-signs-user-tokens",
        "INTERNAL_API_SECRET": "development-only-secret-of-the-internal-api",
        "WEBHOOK_SECRET": "development-only-secret-that-signs-webhooks",
    }
    defaults = {
        "AUTH_JWT_ISSUER": ISSUER,
        "ALLOWED_ORIGINS": f"http://localhost:{demo_port},http://127.0.0.1:{demo_port}",
        "HTTP_HOST": HOST,
        "WS_HOST": HOST,
        "LOG_FORMAT": "text",
        "LOG_LEVEL": "WARNING",
        "DRAIN_TIMEOUT": DRAIN_TIMEOUT,
    }
    if options.demo:
        defaults["WEBHOOK_URL"] = f"http://{HOST}:{demo_port}/webhooks/chat"
    missing_secrets = {name: secret for name, secret in secrets.items() if not options.names(name)}
    missing_urls = {name: url for name, url in urls.items() if not options.names(name)}
    return {**defaults, **missing_secrets, **options.env, **missing_urls}


def _listeners(settings: Settings, options: DevOptions, demo_port: int) -> dict[str, tuple[str, int]]:
    """Give where we listen, by the settings that say so."""
    found = {
        "HTTP_PORT": (settings.http_host, settings.http_port),
        "WS_PORT": (settings.ws_host, settings.ws_port),
    }
    if settings.metrics_port is not None:
        found["METRICS_PORT"] = (settings.http_host, settings.metrics_port)
    if settings.webhook_url is not None:
        found["WORKER_PORT"] = (settings.http_host, settings.worker_port)
    if options.demo:
        found["DEMO_PORT"] = (HOST, demo_port)
    return found


def _try_ports(settings: Settings, options: DevOptions, demo_port: int) -> None:
    with ExitStack() as taken:
        for name, (host, port) in _listeners(settings, options, demo_port).items():
            taken.enter_context(process.bind(host, port, name))


def _stop_signals() -> asyncio.Event:
    """Give the event that the first signal sets; a second one must not cut the stop and leave databases behind."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    # A terminal that closes, unless nohup has us ignore that.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, stopping.set)
    return stopping


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, Settings]) -> Settings | None:
    """Do the work, or cancel it and return None as soon as the process shall stop."""
    working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if stopping.is_set():
        working.cancel()
    with suppress(asyncio.CancelledError):
        return await working
    return None


@contextmanager
def _data_dir(options: DevOptions) -> Iterator[Path]:
    if options.data is not None:
        yield options.data.absolute()
        return
    data_dir = Path(tempfile.mkdtemp(prefix="chat-service-"))
    # PostgreSQL may run as another user than this process, who has to get in.
    data_dir.chmod(0o711)
    try:
        yield data_dir
    finally:
        shutil.rmtree(data_dir)


async def _prepare(options: DevOptions, data_dir: Path, stack: AsyncExitStack) -> Settings:
    """Start the servers that the environment does not name, and bring the database up to date."""
    urls = {}
    if not options.names("DATABASE_URL"):
        first = not (data_dir / "postgres").exists()
        _say(f"PostgreSQL: {'making a new database' if first else 'starting'} in {data_dir}")
        urls["DATABASE_URL"] = await _start(stack, start_postgres, data_dir)
    if not options.names("REDIS_URL"):
        _say("Valkey: starting")
        urls["REDIS_URL"] = await _start(stack, start_valkey, data_dir)
    settings, _ = _read(options, urls)
    _say("Migrations: applying what is missing")
    await migrate.migrate_when_there(settings.database_url)
    return settings


async def _start(stack: AsyncExitStack, start: Callable[[Path], EmbeddedServer], data_dir: Path) -> str:
    starting = asyncio.create_task(asyncio.to_thread(start, data_dir))
    # Before it has started: a thread cannot be cancelled, and what it brings about must not outlive us.
    stack.push_async_callback(_stop, starting)
    embedded = await asyncio.shield(starting)
    return embedded.url


async def _stop(starting: asyncio.Task[EmbeddedServer]) -> None:
    await asyncio.wait((starting,))
    if starting.exception() is None:
        await asyncio.to_thread(starting.result().stop)


async def _serve(settings: Settings, options: DevOptions, demo_port: int, stopping: asyncio.Event) -> None:
    with ExitStack() as ports:
        demo = ports.enter_context(process.bind(HOST, demo_port, "DEMO_PORT")) if options.demo else None

        @asynccontextmanager
        async def beside() -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                if demo is not None:
                    await stack.enter_async_context(_demo(settings, demo))
                if settings.webhook_url is not None:
                    await stack.enter_async_context(webhooks.working(settings))
                _announce(settings, options, demo_port)
                yield

        await server.serve(settings, beside, stopping)


@asynccontextmanager
async def _demo(settings: Settings, listening: socket.socket) -> AsyncIterator[None]:
    assert settings.webhook_secret is not None
    config = MasterConfig(
        chat_url=f"http://{HOST}:{settings.http_port}",
        socket_url=f"http://{HOST}:{settings.ws_port}",
        jwt_issuer=settings.auth_jwt_issuer,
        jwt_secret=settings.auth_jwt_secret.reveal(),
        internal_secret=settings.internal_api_secret.reveal(),
        webhook_secret=settings.webhook_secret.reveal(),
    )
    runner = web.AppRunner(create_master(config), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
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
        f"  All calls and events    http://{HOST}:{settings.http_port}/docs",
    ]
    if settings.webhook_url is not None:
        lines.append(f"  Webhooks go to          {settings.webhook_url!r}")
    if not options.names("DATABASE_URL"):
        lines.append(f"  PostgreSQL              {settings.database_url.reveal()}")
    if not options.names("REDIS_URL"):
        lines.append(f"  Valkey                  {settings.redis_url.reveal()}")
    lines.append("")
    for name, value in (
        ("AUTH_JWT_SECRET", settings.auth_jwt_secret.reveal()),
        ("AUTH_JWT_ISSUER", settings.auth_jwt_issuer),
        ("INTERNAL_API_SECRET", settings.internal_api_secret.reveal()),
        ("WEBHOOK_SECRET", settings.webhook_secret.reveal() if settings.webhook_secret else ""),
    ):
        if not options.names(name):
            lines.append(f"  {name:<23} {value}   (for development only)")
    if options.demo:
        lines += [
            "",
            f"Open http://localhost:{demo_port} in two browser windows, log in as two people, and talk.",
        ]
    _say("\n".join(lines))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what the person at the terminal waits for
