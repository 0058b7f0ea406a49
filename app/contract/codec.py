"""JSON codec of both wires: encoding views, decoding and validating commands.

`decode` is the only way in, so that REST and sockets refuse the same things in the same words.
"""

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from app.contract.errors import ValidationFailed
from app.contract.fields import ClientMessageId

_C = TypeVar("_C", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder()
_MISSING = re.compile(r"Object missing required field `([^`]+)`(?: - at `\$\.?([^`]*)`)?")
# As many digits as no 64 bits need.
_LONG_NUMBER = re.compile(r"\d{20}")
_ANYWHERE = re.compile(r"(.*) - at (?:`key` in )?`\$\.?([^`]*)`", re.DOTALL)


def encode(view: Any) -> bytes:
    """Write a view as JSON."""
    return _encoder.encode(view)


def read_json(text: str | bytes) -> Any:
    """Read stored JSON, its numbers as `bounded_numbers` gives them."""
    return bounded_numbers(msgspec.json.decode(text))


def compact(text: str) -> bytes:
    """Give stored JSON as it goes out: PostgreSQL writes `1e308` as 309 digits, which come out short again."""
    return encode(read_json(text)) if _LONG_NUMBER.search(text) else text.encode()


def bounded_numbers(value: Any) -> Any:
    """Give JSON with each integer that 64 bits do not hold as the double that it is to a browser (RFC 8259, 6).

    Raises OverflowError for one that no double holds either.
    """
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value)
    if isinstance(value, dict):
        return {key: bounded_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [bounded_numbers(inner) for inner in value]
    return value


def decode(kind: type[_C], raw: bytes | Raw) -> _C:
    """Read a command from JSON; raises ValidationFailed that names the field."""
    try:
        command = msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(bytes(raw)) from error
    return command


def reject(field: str, problem: str) -> ValidationFailed:
    """Make the error that names a field, in the words that `decode` uses."""
    return ValidationFailed(f"{field}: {problem}", {"field": field})


def refuse_nul(field: str, value: Any) -> None:
    """Refuse NUL in free-form JSON, which typed fields refuse by themselves; raises ValidationFailed."""
    path = _find(value, lambda text: "\x00" in text, field)
    if path is not None:
        raise reject(path, "must not contain NUL characters")


def _invalid(text: str) -> ValidationFailed:
    if missing := _MISSING.fullmatch(text):
        name, parent = missing[1], missing[2]
        return reject(f"{parent}.{name}" if parent else name, "is missing")
    if located := _ANYWHERE.fullmatch(text):
        problem = "must not contain NUL characters" if "matching regex" in located[1] else located[1]
        return reject(located[2] or "body", problem)
    return reject("body", text)


def _broken(raw: bytes) -> ValidationFailed:
    """Say what is wrong with text that is no JSON to a strict reader; the lenient one finds the field."""
    try:
        lenient = json.loads(raw)
    except (ValueError, RecursionError):
        return reject("body", "is not valid JSON")
    path = _find(lenient, _has_surrogate, "")
    return reject(path or "body", "must not contain unpaired surrogates" if path else "is not valid JSON")


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _find(value: Any, wrong: Callable[[str], bool], path: str) -> str | None:
    """Find the path to the first text, key or value, that is wrong."""
    if isinstance(value, str):
        return path if wrong(value) else None
    if isinstance(value, dict):
        for key, inner in value.items():
            if wrong(key):
                return path or "body"
            if found := _find(inner, wrong, f"{path}.{key}" if path else key):
                return found
    if isinstance(value, list):
        for index, inner in enumerate(value):
            if found := _find(inner, wrong, f"{path}[{index}]"):
                return found
    return None


def client_message_id(text: str) -> str:
    """Check an id that came in a header; raises ValidationFailed."""
    if _has_surrogate(text):
        raise reject("Idempotency-Key", "is not UTF-8")
    try:
        return msgspec.convert(text, ClientMessageId)
    except msgspec.ValidationError as error:
        raise reject("Idempotency-Key", str(error)) from error
