"""The seam to python-engineio, written for 4.15: the only module that imports it.

It handles the requests of long polling: opening, polls, posts and their answers. What is overridden or read of its
inside, each with a test in `tests/unit/test_hooks.py`:

- `AsyncServer`: `generate_id`, `_handle_connect` and `_async` are ours; `_ok`, `sockets`, `ping_interval`,
  `ping_timeout` and `max_http_buffer_size` are used.
- `AsyncSocket`: `send`, `poll`, `close`, `schedule_ping`, `check_ping_timeout`, `handle_post_request` and all of
  its state are ours; `handle_get_request` is its own.
"""

from engineio import AsyncServer
from engineio.async_socket import AsyncSocket
from engineio.exceptions import EngineIOError, QueueEmpty
from engineio.packet import CLOSE, MESSAGE, NOOP, OPEN, PING, Packet

__all__ = [
    "CLOSE",
    "MESSAGE",
    "NOOP",
    "OPEN",
    "PING",
    "AsyncServer",
    "AsyncSocket",
    "EngineIOError",
    "Packet",
    "QueueEmpty",
]
