"""The command line: each command parses what it needs and calls one function."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import uvloop

from app import __version__
from app.config import settings
from app.config.settings import Settings, SettingsError
from app.identity import tokens
from app.observability import logs, tracing
from app.postgres import migrate
from app.postgres.migrate import NoDatabaseError
from app.runtime.ports import BadHostError, PortInUseError

EXIT_FAILURE = 1
EXIT_BAD_CONFIGURATION = 2
# What a shell shows of a process that SIGTERM has ended.
EXIT_TERMINATED = 143
TOKEN_LIFETIME = 24 * 3600

Command = Callable[[argparse.Namespace], None]


def main() -> None:
    """Run one command; exits with 2 when the configuration is not usable."""
    # As process 1 of a container a command would not hear SIGTERM otherwise; those that serve drain instead.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    arguments = _parser().parse_args()
    try:
        arguments.command(arguments)
    except SettingsError as error:
        _fail(f"{error}\nEvery setting: chat-service config", EXIT_BAD_CONFIGURATION)
    except BadHostError as error:
        _fail(str(error), EXIT_BAD_CONFIGURATION)
    except (PortInUseError, NoDatabaseError) as error:
        _fail(str(error), EXIT_FAILURE)
    except KeyboardInterrupt:
        _fail("Interrupted", 130)


def _fail(message: str, status: int) -> None:
    print(message, file=sys.stderr)  # noqa: T201 - the command's own answer
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chat-service", description="Chat beside your product.")
    parser.add_argument("--version", action="version", version=__version__, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=text)
        found.set_defaults(command=command)
        return found

    dev = add("dev", _dev, "Start everything on this machine, with nothing installed beforehand.")
    kept = dev.add_mutually_exclusive_group()
    kept.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        default=Path(".data"),
        help="where the data stay (.data in the folder where this is started)",
    )
    kept.add_argument("--ephemeral", action="store_true", help="forget all data at the end")
    dev.add_argument("--no-demo", action="store_true", help="leave the demo master and its page out")
    add("serve", _serve, "Serve REST on HTTP_PORT and Socket.IO on WS_PORT.")
    add("worker", _worker, "Deliver webhooks to WEBHOOK_URL; health and metrics on WORKER_PORT.")
    add("migrate", _migrate, "Apply the migrations; safe to run from many pods at once.")
    token = add("token", _token, "Print a user token signed with AUTH_JWT_SECRET, for trying things out.")
    token.add_argument("user", metavar="USER", type=_user_id, help="the id of the user")
    config = add("config", _config, "Print every setting, its value, its default and where it comes from.")
    config.add_argument("--check", action="store_true", help="exit with 2 where a setting is bad or missing")
    return parser


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run a process that serves, with traces where the environment asks for them."""
    try:
        is_traced = tracing.is_wanted(os.environ)
    except ValueError as error:
        work.close()
        raise SettingsError([str(error)]) from error
    with _traced() if is_traced else nullcontext():
        uvloop.run(work)


@contextmanager
def _traced() -> Iterator[None]:
    """Record traces for the length of a block, and send the rest at its end."""
    from app.observability import otel  # noqa: PLC0415 - it costs time and memory that only traces are worth

    tracer = otel.OpenTelemetry()
    tracing.start(tracer)
    try:
        yield
    finally:
        tracer.stop()


def _dev(arguments: argparse.Namespace) -> None:
    # The embedded servers are an extra that production does not install.
    try:
        from app.dev import embedded, stack  # noqa: PLC0415 - only this command needs them
    except ModuleNotFoundError as error:
        _fail(f"{error}. `chat-service dev` needs the extra: pip install 'chat-service[dev]'", EXIT_FAILURE)
        return
    data = None if arguments.ephemeral else arguments.data
    options = stack.DevOptions(data, not arguments.no_demo, os.environ)
    try:
        _run(stack.run(options))
    except embedded.EmbeddedError as error:
        _fail(str(error), EXIT_FAILURE)


def _serve(_: argparse.Namespace) -> None:
    from app.process import server  # noqa: PLC0415 - the other commands start in a fraction of its time

    found = Settings.read(os.environ)
    logs.configure_logging(found.log_level, found.log_format)
    logs.warn_of_weak_secrets(found.weak_secrets())
    _run(server.serve(found))


def _worker(_: argparse.Namespace) -> None:
    from app.webhooks import process  # noqa: PLC0415 - the same

    found = Settings.read(os.environ)
    if found.webhook_url is None:
        raise SettingsError(["WEBHOOK_URL: is missing, and the worker has nothing to deliver without it"])
    logs.configure_logging(found.log_level, found.log_format)
    logs.warn_of_weak_secrets(found.weak_secrets())
    _run(process.work(found))


def _migrate(_: argparse.Namespace) -> None:
    found = settings.read_some(os.environ, "DATABASE_URL", "LOG_LEVEL", "LOG_FORMAT")
    logs.configure_logging(found["log_level"], found["log_format"])
    uvloop.run(migrate.migrate_when_there(found["database_url"]))
    print("The database is up to date.")  # noqa: T201 - the command's own answer


def _token(arguments: argparse.Namespace) -> None:
    found = settings.read_some(os.environ, "AUTH_JWT_SECRET", "AUTH_JWT_ISSUER", "AUTH_JWT_AUDIENCE")
    text = tokens.issue(
        found["auth_jwt_secret"],
        found["auth_jwt_issuer"],
        found["auth_jwt_audience"],
        arguments.user,
        TOKEN_LIFETIME,
    )
    print(text)  # noqa: T201 - the command's own answer


def _user_id(text: str) -> str:
    """Refuse an id that no token may carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("the id must be UTF-8") from None
    if not 1 <= len(text) <= tokens.MAX_USER_ID:
        raise argparse.ArgumentTypeError(f"the id must have 1 to {tokens.MAX_USER_ID} characters")
    return text


def _config(arguments: argparse.Namespace) -> None:
    lines = settings.describe(os.environ)
    width = max(len(line.name) for line in lines)
    for line in lines:
        value = line.value or "(unset)"
        print(f"{line.name:<{width}}  {value}  [default: {line.default or '(empty)'}; {line.source}]")  # noqa: T201
    if arguments.check:
        Settings.read(os.environ)


if __name__ == "__main__":
    main()
