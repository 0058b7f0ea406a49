"""Lua scripts: read from the `.lua` files beside the modules that use them, and run by their hash."""

from collections.abc import Sequence
from hashlib import sha1
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from app.redis import errors as redis_errors


def read(package: str, *names: str) -> str:
    """Read files of a package, one after the other, as one script; raises FileNotFoundError."""
    folder = resources.files(package)
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


_GUARDED = read("app.redis", "guarded.lua")


class Script:
    """A script that Redis runs; it is sent by its hash, and as a whole where Redis has lost it.

    It may call `guarded(function, ...)`, which gives an error where the function raises one.
    """

    def __init__(self, redis: Redis, source: str) -> None:
        self._redis = redis
        self._source = _GUARDED + "\n" + source
        # The name by which Redis knows a script.
        self._sha = sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str] = (), args: Sequence[str | float] = ()) -> Any:
        """Run it; raises what a command raises."""
        try:
            answer = await self._redis.execute_command("EVALSHA", self._sha, len(keys), *keys, *args)
        except NoScriptError:
            answer = await self._redis.execute_command("EVAL", self._source, len(keys), *keys, *args)
        if isinstance(answer, list):
            for one in answer:
                if isinstance(one, RedisError):
                    redis_errors.note(one, "a part of a script")
        return answer
