"""Forwarding of requests and WebSockets to the pod that holds their session: polling behind any load balancer.

The session id names its pod, and the pods' addresses stand in Redis under a lease. One hop, from pod to pod, on
the port that browsers use. Each request has a connection of its own, since a poll lasts. If the owner is gone the
answer is 400 and the client starts afresh; if it may be there, 503.
"""

import asyncio
import errno
import logging
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientPayloadError, ClientSession, ClientTimeout, TCPConnector

from app.observability import metrics
from app.realtime.http.capacity import Capacity
from app.realtime.http.pipe import PipeEnd
from app.realtime.http.requests import Request, Response, error, respond
from app.realtime.http.session_ids import SessionIds
from app.redis.addresses import Addresses
from app.redis.connection import AWAY
from app.runtime.supervisor import Supervisor

CONNECT_TIMEOUT = 2.0
# Longer than a poll may wait, shorter than a client would.
TIMEOUT = ClientTimeout(total=60, sock_connect=CONNECT_TIMEOUT)
# Well below that of the listener, which then seldom closes a connection just as it is used again.
IDLE_TIMEOUT = 15.0
HOP = "x-chat-hop"

_HOP_BY_HOP = {"connection", "host", "keep-alive", "te", "trailers", "transfer-encoding", "upgrade"}
_HOP_BY_HOP |= {"content-length", "expect"}
# By what a network tells that nobody listens at an address.
_NOBODY = {errno.ECONNREFUSED, errno.EHOSTUNREACH}
_FAILURES = (ClientError, TimeoutError, OSError, *AWAY)
_log = logging.getLogger(__name__)


class SessionForwarding:
    """Passes requests on to the pods that hold their sessions, so many at a time as the capacity says."""

    def __init__(
        self,
        addresses: Addresses,
        session_ids: SessionIds,
        supervisor: Supervisor,
        capacity: Capacity,
        max_answer_bytes: int,
    ) -> None:
        self._addresses = addresses
        self._ids = session_ids
        self._supervisor = supervisor
        self._capacity = capacity
        self._max_answer_bytes = max_answer_bytes
        # Requests that are being passed on, by the pods that they go to.
        self._hops: Counter[str] = Counter()
        self._pipes = 0
        # Connections are used again for polls alone: aiohttp repeats a GET where the owner closed one meanwhile,
        # and must not repeat a POST.
        self._for_polls: ClientSession | None = None
        self._for_posts: ClientSession | None = None

    @property
    def open_files(self) -> int:
        """How many connections to other pods, and of clients that became those, are open."""
        return self._hops.total() + 2 * self._pipes

    def owner_of(self, request: Request) -> str | None:
        """Tell which other pod holds the session of a request; None for our own and for new ones."""
        session_id = request.arguments.get("sid")
        pod = None if session_id is None else self._ids.pod_of(session_id)
        return None if pod == self._ids.pod else pod

    async def pass_on(self, request: Request, pod: str) -> Response:
        """Give the owner's answer, or that the session is gone, or that its owner cannot be reached now."""
        if self._hops[pod] >= self._capacity.hops_to_one or self._hops.total() >= self._capacity.hops:
            return _busy()
        self._hops[pod] += 1
        try:
            address = await self._address(request, pod)
            return _gone() if address is None else await self._hop(request, address)
        except ClientPayloadError as failure:
            # What was lost of a poll's answer is lost for the session.
            return self._failed(pod, failure, is_gone=True)
        except _FAILURES as failure:
            return self._failed(pod, failure, is_gone=_is_gone(failure))
        finally:
            self._hops[pod] -= 1
            if not self._hops[pod]:
                del self._hops[pod]

    async def _hop(self, request: Request, address: str) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        headers[HOP] = "1"
        http = self._client(request.method)
        url = f"http://{address}{request.target}"
        async with http.request(
            request.method, url, headers=headers, data=request.body, allow_redirects=False
        ) as answer:
            if answer.content_length is None or answer.content_length > self._max_answer_bytes:
                raise ClientPayloadError("the answer is too large, or does not say how large it is")
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            return Response(answer.status, kept, await answer.read())

    def _client(self, method: str) -> ClientSession:
        if self._for_polls is None or self._for_posts is None:
            # The capacity is the limit.
            polls = TCPConnector(limit=0, keepalive_timeout=IDLE_TIMEOUT)
            posts = TCPConnector(limit=0, force_close=True)
            self._for_polls = ClientSession(connector=polls, timeout=TIMEOUT, auto_decompress=False)
            self._for_posts = ClientSession(connector=posts, timeout=TIMEOUT, auto_decompress=False)
        return self._for_polls if method == "GET" else self._for_posts

    def pipe(self, request: Request, pod: str, client: asyncio.Transport, ahead: bytes) -> None:
        """Make a client's connection one with the owner of its session: the upgrade is between these two."""
        if self._pipes >= self._capacity.pipes:
            respond(client, _busy(), request)
            return
        client.pause_reading()
        self._pipes += 1
        self._supervisor.once("pass an upgrade on", self._pipe(request, pod, client, ahead))

    async def _pipe(self, request: Request, pod: str, client: asyncio.Transport, ahead: bytes) -> None:
        owner, refusal = None, None
        try:
            address = await self._address(request, pod)
            if address is None:
                refusal = _gone()
            else:
                owner = await _connect(address, client, self._end_pipe)
        except _FAILURES as failure:
            refusal = self._failed(pod, failure, is_gone=_is_gone(failure))
        finally:
            if owner is None:
                self._end_pipe()
        if owner is None:
            if refusal is not None and not client.is_closing():
                respond(client, refusal, request)
        elif client.is_closing():
            owner.close()
        else:
            lines = [f"{name}: {value}" for name, value in request.headers.items()]
            head = "\r\n".join([f"GET {request.target} HTTP/1.1", f"{HOP}: 1", *lines, "\r\n"])
            owner.write(head.encode("latin-1") + ahead)
            client.set_protocol(PipeEnd(owner))
            client.resume_reading()

    def _end_pipe(self) -> None:
        self._pipes -= 1

    async def _address(self, request: Request, pod: str) -> str | None:
        """Give the address of a pod; None where it is gone, or where the request has come from a pod already.

        Raises what AWAY lists where that cannot be told.
        """
        return None if HOP in request.headers else await self._addresses.of(pod)

    def _failed(self, pod: str, failure: BaseException, *, is_gone: bool) -> Response:
        _log.info("the pod of a session does not answer: %s", str(failure) or type(failure).__name__)
        self._addresses.forget(pod)
        return _gone() if is_gone else _busy()

    async def close(self) -> None:
        for http in (self._for_polls, self._for_posts):
            if http is not None:
                await http.close()


async def _connect(address: str, client: asyncio.Transport, on_end: Callable[[], None]) -> asyncio.Transport:
    where = urlsplit(f"//{address}")
    assert where.hostname is not None
    assert where.port is not None
    async with asyncio.timeout(CONNECT_TIMEOUT):
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: PipeEnd(client, on_end), where.hostname, where.port)
    return transport


def _is_gone(failure: BaseException) -> bool:
    """Tell whether a failure shows that nobody listens at the address of a pod."""
    return getattr(failure, "errno", None) in _NOBODY


def _gone() -> Response:
    return error(HTTPStatus.BAD_REQUEST, "The session is gone, connect again")


def _busy() -> Response:
    metrics.of(metrics.REFUSED, "hop").inc()
    return error(HTTPStatus.SERVICE_UNAVAILABLE, "The pod of the session cannot be reached now, try again")
