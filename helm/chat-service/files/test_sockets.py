"""Ask a socket listener, given by its address, for what it must and must not answer."""

import sys
from urllib.error import HTTPError
from urllib.request import urlopen

ADDRESS = sys.argv[1]


def ask(path: str) -> tuple[int, bytes]:
    try:
        with urlopen(ADDRESS + path, timeout=5) as answer:  # noqa: S310 - the address is the chart's own
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


status, _ = ask("/health/ready")
if status != 200:
    sys.exit(f"/health/ready answers {status}: see the log of the server for what it waits for")
status, body = ask("/socket.io/?EIO=4&transport=polling")
if status != 200 or not body.startswith(b'0{"sid"'):
    sys.exit(f"Socket.IO answers {status}: {body[:200]!r}")
status, _ = ask("/api/conversations")
if status != 404:
    sys.exit(f"/api answers {status} on the port of the browsers, where it must not be")
print("The sockets are there, and nothing else is.")  # noqa: T201 - read in `helm test --logs`
