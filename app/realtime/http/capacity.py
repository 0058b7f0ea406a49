"""Capacity of the socket listener: connections, sessions and forwards, by MAX_SOCKETS and open files."""

import logging
from dataclasses import dataclass
from typing import Self

from app.runtime.ports import rest_connections

# What PostgreSQL, Redis, metrics and logs may have open.
RESERVE = 128
# However few files there are, so many are for sockets.
LEAST_FILES = 64
# However few sockets a pod takes, it takes so many of what leads to one.
LEAST = 512
# Sessions of clients that are not let in yet, for each socket.
ANONYMOUS_SHARE = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Capacity:
    """The capacity of one pod, in connections; `anonymous` counts sessions."""

    # All that the socket listener has open.
    files: int
    # Those that speak HTTP: a session that polls needs two.
    http: int
    # Requests that are being passed on to one other pod, and to all.
    hops_to_one: int
    hops: int
    # WebSockets that are passed on to other pods; each has two files.
    pipes: int
    # Sessions whose clients have not been let in.
    anonymous: int

    @classmethod
    def of(cls, max_sockets: int, open_files: int) -> Self:
        """Share out what the process may have open; logs where that is less than MAX_SOCKETS needs."""
        files = max(LEAST_FILES, open_files - RESERVE - rest_connections(open_files))
        if files < max_sockets:
            _log.info(
                "MAX_SOCKETS is %d, and the limit of open files (ulimit -n) leaves room for %d", max_sockets, files
            )
        sockets = max(LEAST, max_sockets)
        return cls(
            files=files,
            http=min(files, 2 * sockets),
            hops_to_one=sockets,
            hops=min(files // 2, 2 * sockets),
            pipes=min(files // 4, sockets),
            anonymous=max(LEAST, max_sockets // ANONYMOUS_SHARE),
        )
