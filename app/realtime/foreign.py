"""Requests for the session of another pod are passed on to it, so that polling works behind any load balancer.

The session id names its pod, and the pods' addresses stand in Redis under a lease. One hop, from pod to pod, on
the port that browsers use; if the owner is gone the answer is 400 and the client starts afresh.
"""

import asyncio
import logging
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout

from app.addresses import Addresses
from app.realtime.listener import Request, Response, error, respond
from app.realtime.pipe import PipeEnd
from app.realtime.session_ids import SessionIds
from app.supervisor import Supervisor

CONNECT_TIMEOUT = 2.0
# Longer than a poll may wait, shorter than a client would.
TIMEOUT = ClientTimeout(total=60, connect=CONNECT_TIMEOUT)
HOP = "x-chat-hop"

_HOP_BY_HOP = {"connection", "host", "keep-alive", "te", "trailers", "transfer-encoding", "upgrade"}
_HOP_BY_HOP |= {"content-length", "expect"}
_log = logging.getLogger(__name__)


class ForeignSessions:
    """Passes requests on to the pods that hold their sessions."""

    def __init__(self, addresses: Addresses, session_ids: SessionIds, supervisor: Supervisor) -> None:
        self._addresses = addresses
        self._ids = session_ids
        self._supervisor = supervisor
        self._http: ClientSession | None = None

    def owner_of(self, request: Request) -> str | None:
        """Tell which other pod holds the session of a request; None for our own and for new ones."""
        session_id = request.arguments.get("sid")
        pod = None if session_id is None else self._ids.pod_of(session_id)
        return None if pod == self._ids.pod else pod

    async def pass_on(self, request: Request, pod: str) -> Response:
        """Give the owner's answer, or that the session is gone."""
        address = await self._address(request, pod)
        if address is None:
            return _gone()
        if self._http is None:
            self._http = ClientSession(timeout=TIMEOUT, auto_decompress=False)
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        headers[HOP] = "1"
        url = f"http://{address}{request.target}"
        try:
            async with self._http.request(request.method, url, headers=headers, data=request.body) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
                return Response(answer.status, kept, await answer.read())
        except (ClientError, TimeoutError, OSError) as failure:
            self._forget(pod, failure)
            return _gone()

    def pipe(self, request: Request, pod: str, client: asyncio.Transport, ahead: bytes) -> None:
        """Make a client's connection one with the owner of its session: the upgrade is between these two."""
        client.pause_reading()
        self._supervisor.once("pass an upgrade on", self._pipe(request, pod, client, ahead))

    async def _pipe(self, request: Request, pod: str, client: asyncio.Transport, ahead: bytes) -> None:
        address = await self._address(request, pod)
        try:
            owner = None if address is None else await _connect(address, client)
        except (TimeoutError, OSError) as failure:
            self._forget(pod, failure)
            owner = None
        if client.is_closing():
            if owner is not None:
                owner.close()
        elif owner is None:
            respond(client, _gone(), request)
        else:
            lines = [f"{name}: {value}" for name, value in request.headers.items()]
            head = "\r\n".join([f"GET {request.target} HTTP/1.1", f"{HOP}: 1", *lines, "\r\n"])
            owner.write(head.encode("latin-1") + ahead)
            client.set_protocol(PipeEnd(owner))
            client.resume_reading()

    async def _address(self, request: Request, pod: str) -> str | None:
        """Give the address of a pod; None where it is gone, or where the request has come from a pod already."""
        return None if HOP in request.headers else await self._addresses.of(pod)

    def _forget(self, pod: str, failure: Exception) -> None:
        _log.info("the pod of a session does not answer: %s", failure)
        self._addresses.forget(pod)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()


async def _connect(address: str, client: asyncio.Transport) -> asyncio.Transport:
    where = urlsplit(f"//{address}")
    assert where.hostname is not None
    assert where.port is not None
    async with asyncio.timeout(CONNECT_TIMEOUT):
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: PipeEnd(client), where.hostname, where.port)
    return transport


def _gone() -> Response:
    return error(HTTPStatus.BAD_REQUEST, "The session is gone, connect again")
