"""The settings, read once from the environment.

Every setting is a field of `Settings` whose metadata say how to read it; `Settings.read` reports all that are
bad or missing at once, and `describe` lists them all for `chat-service config` and the README.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

MIN_SECRET_BYTES = 32


class Secret:
    """A string that no log, error or repr shows."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret('********')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Url(Secret):
    """An address that may carry a password: its repr shows the rest."""

    __slots__ = ()

    def __repr__(self) -> str:
        # Up to the last @: a password that was not percent-encoded may hold any sign.
        masked = re.sub(r"//.*@", "//********@", self.reveal())
        return re.sub(r"(?<=[?&]password=)[^&]*", "********", masked)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many actions per second in the long run, and so many at once; both 0 where the limit is off."""

    per_second: float
    burst: int


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


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _text(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


def _secret(value: str) -> Secret:
    return Secret(_text(value))


def _url(*schemes: str) -> Callable[[str], Url]:
    def parse(value: str) -> Url:
        starts = " or ".join(f"{scheme}://" for scheme in schemes)
        try:
            parts = urlsplit(value)
            is_good = parts.scheme in schemes and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good:
            raise ValueError(f"must be an address that starts with {starts}, its port from 1 to 65535")
        return Url(value)

    return parse


def _web_address(value: str) -> Url:
    address = _url("http", "https")(value)
    try:
        host = (urlsplit(value).hostname or "").encode("idna")
    except UnicodeError:
        host = b""
    if not host:
        raise ValueError("must name a host")
    return address


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"\d{1,12}", value) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


_port = _integer(1, 65535)


def _duration(value: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?", value)
    if match is None or float(match[1]) == 0:
        raise ValueError("must be a time such as 500ms, 10s, 2m or 6h")
    return float(match[1]) * _UNITS[match[2] or "s"]


def _durations(value: str) -> tuple[float, ...]:
    return tuple(_duration(part.strip()) for part in value.split(","))


def _rate(value: str) -> Rate:
    if value == "0":
        return Rate(0, 0)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)/(s|m|h),\s*(\d+)", value)
    if match is None or float(match[1]) == 0 or int(match[3]) == 0:
        raise ValueError("must be a rate and a burst such as 10/s,30, or 0 for no limit")
    return Rate(float(match[1]) / _UNITS[match[2]], int(match[3]))


def _origins(value: str) -> tuple[str, ...]:
    origins = tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if origin == "*":
            raise ValueError("must list the origins: * is refused because requests carry credentials")
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path or parts.query:
            raise ValueError(f"must be origins with a scheme such as https://app.example.com, not {origin!r}")
    return origins


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        for choice in choices:
            if value.lower() == choice.lower():
                return choice
        raise ValueError(f"must be one of {', '.join(choices)}")

    return parse


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
        _secret, "The secret that signs user tokens, shared with the master", file_form=True
    )
    auth_jwt_secret_previous: Secret | None = _unset(
        _secret, "The secret before a rotation, still accepted", file_form=True
    )
    auth_jwt_issuer: str = _required(_text, "The `iss` that user tokens must carry")
    auth_jwt_audience: str | None = _unset(_text, "The `aud` that user tokens must carry; unset: not looked at")
    internal_api_secret: Secret = _required(
        _secret, "The `X-Internal-Secret` of the master's own calls", file_form=True
    )
    internal_api_secret_previous: Secret | None = _unset(
        _secret, "The secret before a rotation, still accepted", file_form=True
    )
    database_url: Url = _required(_url("postgresql", "postgres"), "PostgreSQL 15 or newer", file_form=True)
    redis_url: Url = _required(_url("redis", "rediss", "unix"), "Redis 7 or Valkey", file_form=True)
    webhook_url: Url | None = _unset(_web_address, "Where webhooks go; unset: none are written")
    webhook_secret: Secret | None = _unset(
        _secret, "The secret that signs webhooks; required with WEBHOOK_URL", file_form=True
    )
    webhook_secret_previous: Secret | None = _unset(
        _secret, "The secret before a rotation, tried after a 401", file_form=True
    )
    webhook_retry_schedule: tuple[float, ...] = _setting(
        _durations, "5s,30s,2m,10m,30m,2h,6h,12h,24h", "The waits between the attempts of one webhook"
    )
    webhook_timeout: float = _setting(_duration, "10s", "How long the master may take to answer a webhook")

    webhook_retention_days: int = _setting(_integer(1, 3650), "7", "Days that delivered webhooks are listed")

    http_host: str = _setting(_text, "0.0.0.0", "Where REST listens")  # noqa: S104
    http_port: int = _setting(_port, "4000", "REST and internal API")
    ws_host: str = _setting(_text, "0.0.0.0", "Where Socket.IO listens")  # noqa: S104
    ws_port: int = _setting(_port, "4001", "Socket.IO")
    worker_port: int = _setting(_port, "4002", "Health and metrics of the webhook worker")
    metrics_port: int | None = _unset(_port, "A port of its own for /metrics; unset: on HTTP_PORT")
    allowed_origins: tuple[str, ...] = _setting(
        _origins, "", "Browser origins with scheme, comma-separated; empty: none"
    )

    rate_limit_send: Rate = _setting(_rate, "10/s,30", "Messages per user: rate and burst, 0 is off")
    rate_limit_write: Rate = _setting(_rate, "5/s,20", "Edits, deletes, reactions and reads per user")
    rate_limit_create: Rate = _setting(_rate, "30/m,10", "New conversations and participants per user")
    rate_limit_read: Rate = _setting(_rate, "30/s,100", "Reads per user")
    rate_limit_typing: Rate = _setting(_rate, "5/s,20", "Typing events per user, dropped silently past it")
    rate_limit_connect: Rate = _setting(_rate, "30/m,20", "New sockets per user")
    rate_limit_sync: Rate = _setting(_rate, "5/s,50", "`sync` calls per user")

    max_content_length: int = _setting(_integer(1, 100_000), "8000", "Characters of one message")
    max_attachments: int = _setting(_integer(0, 100), "10", "Attachments of one message")
    max_metadata_bytes: int = _setting(_integer(2, 65_536), "4096", "Metadata of one conversation or user")
    max_participants: int = _setting(_integer(2, 10_000), "500", "Participants of one conversation")
    max_reactions: int = _setting(_integer(1, 100), "30", "Different reactions to one message")
    max_body_bytes: int = _setting(_integer(1024, 16_777_216), "262144", "A request body or a socket packet")
    max_sockets: int = _setting(_integer(1, 1_000_000), "20000", "Sockets of one pod")
    max_sockets_per_user: int = _setting(_integer(1, 1000), "20", "Sockets of one user; the oldest goes")
    max_unsent_bytes: int = _setting(
        _integer(65_536, 1_073_741_824), "1048576", "Unsent data past which a slow socket is cut"
    )
    large_group: int = _setting(
        _integer(2, 10_000), "100", "Participants past which a group has no typing and presence"
    )

    drain_timeout: float = _setting(_duration, "20s", "How long a stopping process lets its clients move over")
    events_retention_days: int = _setting(_integer(1, 3650), "30", "Days that the event log is kept")
    log_level: str = _setting(_choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "The least level logged")
    log_format: str = _setting(_choice("json", "text"), "json", "One JSON object a line, or text for people")

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Self:
        """Read all settings from `env`; raises SettingsError that names every bad or missing one."""
        values, problems = _parse(env, specs())
        if env.get("WEBHOOK_URL") and not (env.get("WEBHOOK_SECRET") or env.get("WEBHOOK_SECRET_FILE")):
            problems.append("WEBHOOK_SECRET: is missing, and required because WEBHOOK_URL is set")
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
    """Every setting by the name of its environment variable, in the order of the README's table."""
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
            if spec.parse is _secret:
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
