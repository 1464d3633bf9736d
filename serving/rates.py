"""How often a key may ask: a sliding window per key, counted by the library ``limits``.

Counted in each replica's memory, so a key may ask N times as often of N replicas; with
``OPENFOUND_REDIS_URL`` set, in Redis for all of them together. A Redis that does not answer within
``REDIS_SECONDS`` is reported once, the replica counts by itself, and asks it again every
``AGAIN_SECONDS``: a limit must not be an outage.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

import limits
from fastapi import HTTPException
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string

from feature_repo.errors import InputError
from feature_repo.settings import REDIS_VARIABLE, redis_url
from serving.auth import Principal

RATE_VARIABLE: Final = "OPENFOUND_RATE_LIMIT"
DEFAULT_RATE: Final = "6000/minute"
OFF: Final = "off"
REDIS_SECONDS: Final = 0.5
AGAIN_SECONDS: Final = 5.0
_NAMESPACE: Final = "openfound"

log = logging.getLogger(__name__)


def rate_from(environment: Mapping[str, str]) -> str:
    """The environment's limit, such as ``600/minute``, or ``off``. Raises InputError."""
    rate = environment.get(RATE_VARIABLE) or DEFAULT_RATE
    try:
        if rate != OFF:
            _parsed(rate)
    except ValueError:
        raise InputError(
            f"{RATE_VARIABLE}: expected e.g. 600/minute, 20/second or off, got {rate!r}"
        ) from None
    return rate


class Rates:
    """Counts requests by principal, on the event loop: 10 µs in memory.

    Args:
        rate: the limit of every key that has none of its own, or ``off``.
        redis: URL of where to count; in memory if None. Raises InputError without its driver.
        seconds: a clock for when Redis is asked again.
    """

    def __init__(
        self,
        rate: str = DEFAULT_RATE,
        redis: str | None = None,
        *,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate, self._seconds = rate, seconds
        self._here = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared = None if redis is None else _redis(redis)
        self._again: float | None = None  # when to ask a Redis that did not answer

    @classmethod
    def from_env(cls) -> Rates:
        """As the environment says."""
        return cls(rate_from(os.environ), redis_url())

    async def admit(self, who: Principal) -> None:
        """Count a request; raises 429 with ``Retry-After`` if it is one too many."""
        rate = who.rate or self._rate
        if rate == OFF:
            return
        wait = await self._count(rate, who.name)
        if wait is not None:
            raise HTTPException(
                429,
                f"This key may ask {_parsed(rate)}; come back in {wait} s.",
                headers={"Retry-After": str(wait)},
            )

    async def _count(self, rate: str, name: str) -> int | None:
        now = self._seconds()
        if self._shared is None or (self._again is not None and now < self._again):
            return await _count(self._here, rate, name)
        if self._again is not None:
            self._again = now + AGAIN_SECONDS  # one request tries; the others need not wait for it
        try:
            wait = await _count(self._shared, rate, name)
        except StorageError as error:
            if self._again is None:
                log.warning("Redis does not count requests, so this replica does: %s", error)
            self._again = now + AGAIN_SECONDS
            return await _count(self._here, rate, name)
        if self._again is not None:
            log.warning("Redis counts requests again")
            self._again = None
        return wait


@lru_cache(maxsize=1_000)
def _parsed(rate: str) -> limits.RateLimitItem:
    return limits.parse(rate)


async def _count(limiter: SlidingWindowCounterRateLimiter, rate: str, name: str) -> int | None:
    """None if the request fits, else whole seconds until one may."""
    item = _parsed(rate)
    if await limiter.hit(item, _NAMESPACE, name):
        return None
    stats = await limiter.get_window_stats(item, _NAMESPACE, name)
    return max(1, math.ceil(stats.reset_time - time.time()))


def _redis(url: str) -> SlidingWindowCounterRateLimiter:
    try:
        storage = storage_from_string(
            f"async+{url}", implementation="redispy", wrap_exceptions=True,
            socket_connect_timeout=REDIS_SECONDS, socket_timeout=REDIS_SECONDS,
        )  # fmt: skip
    except ConfigurationError as error:
        raise InputError(
            f"{REDIS_VARIABLE}: its driver is missing ({error}); install it with `pip install -e "
            f"'.[redis]'`"
        ) from error
    assert isinstance(storage, Storage)
    return SlidingWindowCounterRateLimiter(storage)
