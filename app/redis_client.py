"""The connection to Redis for commands; pub/sub has its own in `bus`."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from app.settings import Url

POOL_SIZE = 20
TIMEOUT = 1.0

# What is raised when Redis is not there or goes away.
AWAY = (RedisError, OSError, TimeoutError)


def connect(url: Url) -> "Redis":
    """Make a client that connects when first used, and gives up soon when Redis is away."""
    pool = BlockingConnectionPool.from_url(
        url.reveal(),
        max_connections=POOL_SIZE,
        timeout=TIMEOUT,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=None,
        decode_responses=True,
    )
    return Redis(connection_pool=pool)
