"""
How do calls travel by Redis, or Valkey?

By its channels: faster than NOTIFY and no work for the database, and nothing is lost with
it that may not be. While it cannot be reached, they go by NOTIFY.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from holdfast.errors import HoldfastError
from holdfast.store.postgres_hints import LISTEN_HEARTBEAT, LISTEN_TIMEOUT, Failures

#: Seconds for an answer of Redis; calls that wait for longer are late for everybody.
ANSWER_SECONDS = 0.5


class RedisCarrier:
    """The Redis at `url` (see `Carrier`)."""

    failures: Failures = (RedisError, OSError, HoldfastError)

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.from_url(
            url, socket_connect_timeout=ANSWER_SECONDS, decode_responses=True, retry=Retry(NoBackoff(), 0)
        )

    async def call(self, channel: str, calls: Sequence[str]) -> None:
        """Send calls."""
        async with asyncio.timeout(ANSWER_SECONDS), self._redis.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.publish(channel, call)
            await pipeline.execute()

    async def listen(self, channel: str) -> AsyncGenerator[str | None, None]:
        """Yield what is called."""
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(channel)
            is_asked = False  # whether it still lives: it may have gone without a word
            while True:
                message = await pubsub.get_message(timeout=LISTEN_TIMEOUT if is_asked else LISTEN_HEARTBEAT)
                if message is None and is_asked:
                    raise TimeoutError(f"Redis has not answered for {LISTEN_TIMEOUT:g} s")
                is_asked = message is None
                if message is None:
                    await pubsub.ping()
                elif message["type"] == "message":
                    yield message["data"]
                elif message["type"] in ("subscribe", "pong"):
                    yield None

    async def close(self) -> None:
        """Hang up."""
        await self._redis.aclose()
