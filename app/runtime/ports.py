"""Set-up of a process: listening ports, limit of open files, stop signals, garbage collector."""

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
# How many objects are made before the youngest generation is collected, and how seldom the older ones: nearly all
# garbage goes by counting references; with ten thousand sockets each collection of the old ones takes long.
GC_THRESHOLDS = (20_000, 50, 100)
# The limit where the system has none; no process of ours needs more.
MAX_FILES = 1 << 20
# REST gets one in so many of the files that may be open, at least and at most these.
REST_SHARE = 8
MIN_REST, MAX_REST = 64, 8192


class PortInUseError(Exception):
    """A port cannot be listened on; the message says which, and which setting names it."""


class BadHostError(Exception):
    """A host is no address of this machine; the message says which, and which setting names it."""


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Listen on a port; raises PortInUseError and BadHostError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        # Only listening claims a port: any number of sockets may be bound to it.
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
    most = MAX_FILES if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            # Some systems have a lower limit of their own than the one that they report.
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_FILES if soft == resource.RLIM_INFINITY else soft


def rest_connections(files: int) -> int:
    """Give how many connections the REST listener takes where so many files may be open."""
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


def tune_garbage_collector() -> None:
    """Keep what exists once all is built out of later collections, and collect more seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
