"""Where the chat service is, and what the two share."""

from dataclasses import dataclass, field

from aiohttp import ClientSession, web


@dataclass(frozen=True)
class MasterConfig:
    """What the master has to know of the chat service."""

    chat_url: str
    socket_url: str
    jwt_issuer: str
    jwt_secret: str = field(repr=False)
    internal_secret: str = field(repr=False)
    webhook_secret: str = field(repr=False)


CONFIG = web.AppKey("config", MasterConfig)
SESSION = web.AppKey("session", ClientSession)
