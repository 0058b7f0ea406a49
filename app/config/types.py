"""Types of settings and their parsers; every parser raises ValueError that says why."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit


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
        # Up to the last @: a password that was not percent-encoded may hold any character.
        masked = re.sub(r"//.*@", "//********@", self.reveal())
        return re.sub(r"(?<=[?&]password=)[^&]*", "********", masked)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many actions per second in the long run, and so many at once; both 0 where the limit is off."""

    per_second: float
    burst: int


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def text(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


def secret(value: str) -> Secret:
    return Secret(text(value))


def url(*schemes: str) -> Callable[[str], Url]:
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


def web_address(value: str) -> Url:
    address = url("http", "https")(value)
    try:
        host = (urlsplit(value).hostname or "").encode("idna")
    except UnicodeError:
        host = b""
    if not host:
        raise ValueError("must name a host")
    return address


def integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"\d{1,12}", value) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


port = integer(1, 65535)


def duration(value: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?", value)
    if match is None or float(match[1]) == 0:
        raise ValueError("must be a time such as 500ms, 10s, 2m or 6h")
    return float(match[1]) * _UNITS[match[2] or "s"]


def durations(value: str) -> tuple[float, ...]:
    return tuple(duration(part.strip()) for part in value.split(","))


def rate(value: str) -> Rate:
    if value == "0":
        return Rate(0, 0)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)/(s|m|h),\s*(\d+)", value)
    if match is None or float(match[1]) == 0 or int(match[3]) == 0:
        raise ValueError("must be a rate and a burst such as 10/s,30, or 0 for no limit")
    return Rate(float(match[1]) / _UNITS[match[2]], int(match[3]))


def origins(value: str) -> tuple[str, ...]:
    # Browsers write them in lower case.
    origins = tuple(part.strip().rstrip("/").lower() for part in value.split(",") if part.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if origin == "*":
            raise ValueError("must list the origins: * is refused because requests carry credentials")
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path or parts.query:
            raise ValueError(f"must be origins with a scheme such as https://app.example.com, not {origin!r}")
    return origins


def choice(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        for choice in choices:
            if value.lower() == choice.lower():
                return choice
        raise ValueError(f"must be one of {', '.join(choices)}")

    return parse
