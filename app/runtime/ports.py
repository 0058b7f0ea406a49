"""What every process of the service does: take its ports, hear that it shall stop, keep its memory in order."""

import asyncio
import errno
import gc
import os
import resource
import signal
import socket
from contextlib import suppress

# What a shell shows of a process that Ctrl-C has ended.
EXIT_IMPATIENT = 130
# How many objects are made before the youngest are looked at, and how seldom the older ones: nearly all garbage
# goes by counting references; with ten thousand sockets each look at the old ones takes long.
GC_THRESHOLDS = (20_000, 50, 100)
# Where the system knows no limit; more than that many files no process of ours needs.
MOST_FILES = 1 << 20
# Of the files that may be open, REST gets one in so many, at least and at most these.
REST_SHARE = 8
MIN_REST, MAX_REST = 64, 8192


class PortInUseError(Exception):
    """A port cannot be had; the message says which, and which setting names it."""


class BadHostError(Exception):
    """A host is none of this machine; the message says which, and which setting names it."""


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Take a port; raises PortInUseError and BadHostError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        # Only listening claims a port: as many as like may be bound to it.
        listening.listen()
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            where = "WS_HOST" if setting == "WS_PORT" else "HTTP_HOST"
            raise BadHostError(f"{where}: {host} is no address of this machine: {reason}") from error
        raise PortInUseError(
            f"Cannot listen on {host}:{port}: {reason}. Set {setting} to another port, or stop what uses this one."
        ) from error
    listening.setblocking(False)
    return listening


def open_files() -> int:
    """Raise the limit of files that this process may have open as far as it may, and give it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            # Some systems have a limit of their own below the one that they tell.
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_FILES if soft == resource.RLIM_INFINITY else soft


def rest_connections(files: int) -> int:
    """Tell how many connections the REST listener takes where so many files may be open."""
    return min(MAX_REST, max(MIN_REST, files // REST_SHARE))


def stop_signals() -> asyncio.Event:
    """Give the event that the first SIGTERM or SIGINT sets; the second one ends the process at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            os._exit(EXIT_IMPATIENT)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping


def calm_collector() -> None:
    """Leave what is there once all is built out of every later look for garbage, and look more seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
