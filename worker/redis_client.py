"""The Redis client: one address, whatever stands behind it, and no long waits."""

from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry


def connect(url: str) -> Any:
    """Return a client for a `redis://` or `rediss://` URL; it connects at its first command.

    A server that refuses costs 0.1 s, one that swallows everything some 3 s: redis-py's own defaults would be a minute.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=0.5,
        socket_connect_timeout=1,
        max_connections=4,
        decode_responses=True,
        retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), 2),
        driver_info=None,  # saves two commands at each connect
        maint_notifications_config=MaintNotificationsConfig(
            enabled=False
        ),  # a push to a frozen sandbox comes too late
    )
