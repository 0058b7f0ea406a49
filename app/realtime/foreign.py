"""Requests for the session of another pod are passed on to it, so that polling works behind any load balancer.

The session id names its pod, and the pods' addresses stand in Redis under a lease. One hop, from pod to pod, on
the port that browsers use; if the owner is gone the answer is 400 and the client starts afresh.
"""

import asyncio
import logging

from aiohttp import ClientError, ClientSession, ClientTimeout, ClientWebSocketResponse, WSMsgType, web

from app.addresses import Addresses
from app.realtime.session_ids import SessionIds

# Longer than a poll may wait, shorter than a client would.
TIMEOUT = ClientTimeout(total=60, connect=2)
HOP = "X-Chat-Hop"
MAX_MESSAGE_BYTES = 1 << 21

_HOP_BY_HOP = {
    "connection",
    "host",
    "keep-alive",
    "te",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "content-length",
}
_log = logging.getLogger(__name__)


class ForeignSessions:
    """Passes requests on to the pods that hold their sessions."""

    def __init__(self, addresses: Addresses, session_ids: SessionIds) -> None:
        self._addresses = addresses
        self._ids = session_ids
        self._http: ClientSession | None = None

    def owner_of(self, request: web.Request) -> str | None:
        """Tell which other pod holds the session of a request; None for our own and for new ones."""
        session_id = request.query.get("sid")
        pod = None if session_id is None else self._ids.pod_of(session_id)
        return None if pod == self._ids.pod else pod

    async def pass_on(self, request: web.Request, pod: str) -> web.StreamResponse | None:
        """Give the owner's answer; None where it is gone, or where the request has come from a pod already."""
        address = None if HOP in request.headers else await self._addresses.of(pod)
        if address is None:
            return None
        if self._http is None:
            self._http = ClientSession(timeout=TIMEOUT, auto_decompress=False)
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._pipe(self._http, request, address)
            return await self._forward(self._http, request, address)
        except (ClientError, TimeoutError, OSError) as error:
            _log.info("the pod of a session does not answer: %s", error)
            self._addresses.forget(pod)
            return None

    async def _forward(self, http: ClientSession, request: web.Request, address: str) -> web.Response:
        body = await request.read()
        url = f"http://{address}{request.path_qs}"
        async with http.request(request.method, url, headers=_headers(request), data=body) as answer:
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            return web.Response(status=answer.status, headers=headers, body=await answer.read())

    async def _pipe(self, http: ClientSession, request: web.Request, address: str) -> web.WebSocketResponse:
        headers = {name: value for name, value in _headers(request).items() if not name.lower().startswith("sec-")}
        url = f"http://{address}{request.path_qs}"
        async with http.ws_connect(url, headers=headers, max_msg_size=MAX_MESSAGE_BYTES, autoping=True) as owner:
            client = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES)
            await client.prepare(request)
            both = [asyncio.create_task(_pump(owner, client)), asyncio.create_task(_pump(client, owner))]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)
                await client.close()
            return client

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()


async def _pump(
    source: ClientWebSocketResponse | web.WebSocketResponse, sink: ClientWebSocketResponse | web.WebSocketResponse
) -> None:
    """Carry messages one way until that side is over."""
    async for message in source:
        if message.type is WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await sink.send_bytes(message.data)


def _headers(request: web.Request) -> dict[str, str]:
    kept = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
    return {**kept, HOP: "1"}
