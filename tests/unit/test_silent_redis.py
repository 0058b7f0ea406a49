"""Presence whose Redis does not answer."""

import asyncio
import gc

from pods import until

from app.presence.presence import Presence


class Silent:
    """A Redis that takes every command and answers none."""

    async def execute_command(self, *_command, **_options):
        await asyncio.Event().wait()


async def test_a_socket_that_closes_while_redis_is_silent_leaves_no_failure_that_nobody_takes():
    untaken = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: untaken.append(context["message"]))
    presence = Presence(Silent())
    presence._step._timeout = 0.01
    try:
        await presence.opened("anna", "first")
        presence._is_away = False
        presence.closed("anna", "first")

        async def is_done():
            return not presence._step.is_busy

        await until(is_done, "the step ends")
        gc.collect()
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    assert presence._is_away
    assert "anna" in presence._dirty
    assert untaken == []
