"""The settings, read once from the environment.

Every setting is a field of `Settings` whose metadata say how to read it; `Settings.read` reports all that are
bad or missing at once, and `describe` lists them all for `chat-service config` and docs/settings.md.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from app.config import types as kinds
from app.config.types import Rate, Secret, Url

MIN_SECRET_BYTES = 32


class SettingsError(Exception):
    """One or more settings are bad or missing; the message names them all, a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("The configuration is not usable:\n" + "\n".join(f"  {line}" for line in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Spec:
    """How one setting is read: `default` is what stands in the table, None where a value is required."""

    parse: Callable[[str], Any]
    default: str | None
    help: str
    optional: bool = False
    file_form: bool = False


@dataclass(frozen=True, slots=True)
class Described:
    """One line of `chat-service config`; secrets are masked in `value`."""

    name: str
    value: str
    default: str
    source: str
    help: str


def _setting(
    parse: Callable[[str], Any],
    default: str | None,
    text: str,
    *,
    optional: bool = False,
    file_form: bool = False,
) -> Any:
    return dataclasses.field(metadata={"spec": Spec(parse, default, text, optional, file_form)})


def _required(parse: Callable[[str], Any], text: str, *, file_form: bool = False) -> Any:
    return _setting(parse, None, text, file_form=file_form)


def _unset(parse: Callable[[str], Any], text: str, *, file_form: bool = False) -> Any:
    return _setting(parse, None, text, optional=True, file_form=file_form)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings; times in seconds, sizes in bytes unless the help says otherwise."""

    auth_jwt_secret: Secret = _required(
        kinds.secret, "The secret that signs user tokens, shared with the master", file_form=True
    )
    auth_jwt_secret_previous: Secret | None = _unset(
        kinds.secret, "The secret before a rotation, still accepted", file_form=True
    )
    auth_jwt_issuer: str = _required(kinds.text, "The `iss` that user tokens must carry")
    auth_jwt_audience: str | None = _unset(
        kinds.text, "The `aud` that user tokens must carry; unset: not looked at"
    )
    internal_api_secret: Secret = _required(
        kinds.secret, "The `X-Internal-Secret` of the master's own calls", file_form=True
    )
    internal_api_secret_previous: Secret | None = _unset(
        kinds.secret, "The secret before a rotation, still accepted", file_form=True
    )
    database_url: Url = _required(kinds.url("postgresql", "postgres"), "PostgreSQL 15 or newer", file_form=True)
    redis_url: Url = _required(kinds.url("redis", "rediss", "unix"), "Redis 7 or Valkey", file_form=True)
    webhook_url: Url | None = _unset(kinds.web_address, "Where webhooks go; unset: none are written")
    webhook_secret: Secret | None = _unset(
        kinds.secret, "The secret that signs webhooks; required with WEBHOOK_URL", file_form=True
    )
    webhook_secret_previous: Secret | None = _unset(
        kinds.secret, "The secret before a rotation, tried after a 401", file_form=True
    )
    webhook_retry_schedule: tuple[float, ...] = _setting(
        kinds.durations, "5s,30s,2m,10m,30m,2h,6h,12h,24h", "The waits between the attempts of one webhook"
    )
    webhook_timeout: float = _setting(kinds.duration, "10s", "How long the master may take to answer a webhook")

    webhook_retention_days: int = _setting(kinds.integer(1, 3650), "7", "Days that delivered webhooks are listed")

    http_host: str = _setting(kinds.text, "0.0.0.0", "Where REST listens")  # noqa: S104
    http_port: int = _setting(kinds.port, "4000", "REST and internal API")
    ws_host: str = _setting(kinds.text, "0.0.0.0", "Where Socket.IO listens")  # noqa: S104
    ws_port: int = _setting(kinds.port, "4001", "Socket.IO")
    worker_port: int = _setting(kinds.port, "4002", "Health and metrics of the webhook worker")
    metrics_port: int | None = _unset(kinds.port, "A port of its own for /metrics; unset: on HTTP_PORT")
    allowed_origins: tuple[str, ...] = _setting(
        kinds.origins, "", "Browser origins with scheme, comma-separated; empty: none"
    )

    rate_limit_send: Rate = _setting(kinds.rate, "10/s,30", "Messages per user: rate and burst, 0 is off")
    rate_limit_write: Rate = _setting(kinds.rate, "5/s,20", "Edits, deletes, reactions and reads per user")
    rate_limit_create: Rate = _setting(kinds.rate, "30/m,10", "New conversations and participants per user")
    rate_limit_read: Rate = _setting(kinds.rate, "30/s,100", "Reads per user")
    rate_limit_typing: Rate = _setting(kinds.rate, "5/s,20", "Typing events per user, dropped silently past it")
    rate_limit_connect: Rate = _setting(kinds.rate, "30/m,20", "New sockets per user")
    rate_limit_sync: Rate = _setting(kinds.rate, "5/s,50", "`sync` calls per user")

    max_content_length: int = _setting(kinds.integer(1, 100_000), "8000", "Characters of one message")
    max_attachments: int = _setting(kinds.integer(0, 100), "10", "Attachments of one message")
    max_metadata_bytes: int = _setting(kinds.integer(2, 65_536), "4096", "Metadata of one conversation or user")
    max_participants: int = _setting(kinds.integer(2, 10_000), "500", "Participants of one conversation")
    max_reactions: int = _setting(kinds.integer(1, 100), "30", "Different reactions to one message")
    max_body_bytes: int = _setting(kinds.integer(1024, 16_777_216), "262144", "A request body or a socket packet")
    max_sockets: int = _setting(kinds.integer(1, 1_000_000), "20000", "Sockets of one pod")
    max_sockets_per_user: int = _setting(kinds.integer(1, 1000), "20", "Sockets of one user; the oldest goes")
    max_unsent_bytes: int = _setting(
        kinds.integer(65_536, 1_073_741_824), "1048576", "Unsent data past which a slow socket is cut"
    )
    large_group: int = _setting(
        kinds.integer(2, 10_000), "100", "Participants past which a group has no typing and presence"
    )

    drain_timeout: float = _setting(
        kinds.duration, "20s", "How long a stopping process lets its clients move over"
    )
    events_retention_days: int = _setting(kinds.integer(1, 3650), "30", "Days that the event log is kept")
    log_level: str = _setting(kinds.choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "The least level logged")
    log_format: str = _setting(kinds.choice("json", "text"), "json", "One JSON object a line, or text for people")

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Self:
        """Read all settings from `env`; raises SettingsError that names every bad or missing one."""
        values, problems = _parse(env, specs())
        if env.get("WEBHOOK_URL") and not (env.get("WEBHOOK_SECRET") or env.get("WEBHOOK_SECRET_FILE")):
            problems.append("WEBHOOK_SECRET: is missing, and required because WEBHOOK_URL is set")
        problems += same_ports(
            {name: values.get(name.lower()) for name in ("HTTP_PORT", "WS_PORT", "METRICS_PORT")}
        )
        if problems:
            raise SettingsError(problems)
        return cls(**values)

    def weak_secrets(self) -> list[str]:
        """Name the secrets that are shorter than an HS256 key should be (RFC 7518, section 3.2)."""
        return [
            field.name.upper()
            for field in dataclasses.fields(self)
            if type(value := getattr(self, field.name)) is Secret
            and len(value.reveal().encode()) < MIN_SECRET_BYTES
        ]


def read_some(env: Mapping[str, str], *names: str) -> dict[str, Any]:
    """Read these settings alone, by their names in lower case; raises SettingsError that names every bad one."""
    values, problems = _parse(env, {name: spec for name, spec in specs().items() if name in names})
    if problems:
        raise SettingsError(problems)
    return values


def same_ports(ports: Mapping[str, int | None]) -> list[str]:
    """Name those of the ports of one process that it listens on already."""
    names: dict[int, str] = {}
    return [
        f"{name}: must differ from {names[port]}, which is {port} as well"
        for name, port in ports.items()
        if port is not None and names.setdefault(port, name) != name
    ]


def _parse(env: Mapping[str, str], wanted: Mapping[str, Spec]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, spec in wanted.items():
        try:
            raw, _ = _raw(env, name, spec)
            values[name.lower()] = None if raw is None else spec.parse(raw)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    return values, problems


def specs() -> dict[str, Spec]:
    """Every setting by the name of its environment variable, in the order of docs/settings.md."""
    return {field.name.upper(): field.metadata["spec"] for field in dataclasses.fields(Settings)}


def describe(env: Mapping[str, str]) -> list[Described]:
    """List every setting with its value, default and source, also where some are bad or missing."""
    return [_describe(env, name, spec) for name, spec in specs().items()]


def _describe(env: Mapping[str, str], name: str, spec: Spec) -> Described:
    default = spec.default if spec.default is not None else "unset" if spec.optional else "required"
    try:
        raw, source = _raw(env, name, spec)
    except ValueError as error:
        return Described(name, f"BAD: {error}", default, "environment" if name in env else "-", spec.help)
    if raw is None:
        return Described(name, "", default, source, spec.help)
    try:
        value = spec.parse(raw)
    except ValueError as error:
        return Described(name, f"BAD: {error}", default, source, spec.help)
    shown = "********" if type(value) is Secret else repr(value) if isinstance(value, Url) else raw
    return Described(name, shown, default, source, spec.help)


def _raw(env: Mapping[str, str], name: str, spec: Spec) -> tuple[str | None, str]:
    """Find the text of a setting and where it came from; raises ValueError where there is none."""
    file_name = f"{name}_FILE"
    if spec.file_form and env.get(file_name):
        if name in env:
            raise ValueError(f"is set twice: here and by {file_name}")
        return _read_file(file_name, env[file_name]), f"file {env[file_name]}"
    if name in env:
        if env[name] == "" and spec.optional:
            if spec.parse is kinds.secret:
                raise ValueError("must not be empty")
            return None, "default"
        return env[name].strip(), "environment"
    if spec.default is None and not spec.optional:
        raise ValueError("is missing" + (f" (or set {file_name})" if spec.file_form else ""))
    return spec.default, "default"


def _read_file(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"cannot read the file that {name} names: {reason}") from error
