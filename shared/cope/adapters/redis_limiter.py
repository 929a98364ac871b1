"""The shared limiter: calls a minute, tokens a minute and calls in flight in one Lua script, all or nothing.

Rates are leaky buckets (GCRA) at 0.985 of the provider's figure with a burst of 1 %, so that a provider with a sliding
window never refuses. Redis's own clock is used. When Redis is away, this process goes on within its share alone.
"""

import logging
import secrets

from redis.asyncio import Redis
from redis.exceptions import RedisError

from cope.adapters.local_limiter import LocalLimiter
from cope.core.models import ModelCatalog
from cope.ports.support import Grant

logger = logging.getLogger(__name__)

RATE, BURST = 0.985, 0.01
_SLOT_EXPIRY_MS = 900_000
_PREFIX = "cope:limit:"

# KEYS: rpm, tpm, slots, block. ARGV: ms per call (0 none), burst ms, ms per token, burst ms, tokens, slots, slot id,
# slot expiry. Times are in milliseconds; a bucket's value is when it will be empty again.
_ACQUIRE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local wait = 0
local blocked = tonumber(redis.call('GET', KEYS[4]) or 0)
if blocked > now then wait = blocked - now end
local slots = tonumber(ARGV[6])
if slots > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  if redis.call('ZCARD', KEYS[3]) >= slots then wait = math.max(wait, 50) end
end
local next = {}
local amounts = {1, tonumber(ARGV[5])}
for i = 1, 2 do
  local each = tonumber(ARGV[2 * i - 1])
  if each > 0 then
    local full = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now)
    local burst = math.max(tonumber(ARGV[2 * i]), each * amounts[i])
    next[i] = full + each * amounts[i]
    wait = math.max(wait, next[i] - burst - now)
  end
end
if wait > 0 then return tostring(wait) end
for i = 1, 2 do
  if next[i] then
    redis.call('SET', KEYS[i], string.format('%.3f', next[i]), 'PX', 120000 + math.ceil(next[i] - now))
  end
end
if slots > 0 then redis.call('ZADD', KEYS[3], now + tonumber(ARGV[8]), ARGV[7]) end
return '0'
"""
# KEYS: tpm, slots. ARGV: ms to give back (negative: to charge), slot id.
_GIVE_BACK = """
redis.call('ZREM', KEYS[2], ARGV[2])
local full = redis.call('GET', KEYS[1])
if full and tonumber(ARGV[1]) ~= 0 then
  redis.call('SET', KEYS[1], string.format('%.3f', tonumber(full) - tonumber(ARGV[1])), 'KEEPTTL')
end
return 1
"""
_BLOCK = """
local t = redis.call('TIME')
local until_ms = t[1] * 1000 + t[2] / 1000 + tonumber(ARGV[1])
local known = tonumber(redis.call('GET', KEYS[1]) or 0)
if until_ms > known then
  redis.call('SET', KEYS[1], string.format('%.3f', until_ms), 'PX', math.ceil(ARGV[1]) + 1000)
end
return 1
"""


class RedisLimiter:
    """A `Limiter` shared by all workers through Redis; never raises."""

    def __init__(self, url: str, catalog: ModelCatalog, *, processes: int = 1) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=2, socket_connect_timeout=1, health_check_interval=30, decode_responses=True
        )
        self._catalog = catalog
        self._alone = LocalLimiter(catalog, share=1.0 / max(1, processes))
        self._acquire = self._redis.register_script(_ACQUIRE)
        self._return = self._redis.register_script(_GIVE_BACK)
        self._stop = self._redis.register_script(_BLOCK)

    async def acquire(self, model: str, *, tokens: int) -> Grant:
        """Ask for one call of about `tokens` tokens."""
        entry = self._catalog.entries[model]
        if entry.rpm is None and entry.tpm is None and entry.concurrency is None:
            return Grant(0.0, None)
        token = f"{tokens}:{secrets.token_hex(8)}"
        rpm, tpm = _bucket(entry.rpm), _bucket(entry.tpm)
        try:
            wait_ms = float(
                await self._acquire(
                    keys=self._keys(model),
                    args=[*rpm, *tpm, tokens, entry.concurrency or 0, token, _SLOT_EXPIRY_MS],
                )
            )
        except (RedisError, OSError) as away:
            logger.warning("the shared limiter is away (%s): this process keeps to its share", type(away).__name__)
            return await self._alone.acquire(model, tokens=tokens)
        return Grant(wait_ms / 1000, None) if wait_ms > 0 else Grant(0.0, token)

    async def give_back(self, model: str, grant: Grant, *, tokens_used: int | None) -> None:
        """The call ended; its slot is free and its token charge corrected."""
        if grant.token is None:
            return
        estimate, colon, _ = grant.token.partition(":")
        if not colon:  # granted by this process alone
            await self._alone.give_back(model, grant, tokens_used=tokens_used)
            return
        per_token = _bucket(self._catalog.entries[model].tpm)[0]
        surplus = 0.0 if tokens_used is None else (int(estimate) - tokens_used) * per_token
        keys = self._keys(model)
        try:
            await self._return(keys=[keys[1], keys[2]], args=[surplus, grant.token])
        except (RedisError, OSError):
            logger.debug("the shared limiter is away; the slot expires by itself")

    async def block(self, model: str, *, seconds: float) -> None:
        """No worker calls this model for `seconds`."""
        await self._alone.block(model, seconds=seconds)
        try:
            await self._stop(keys=[self._keys(model)[3]], args=[seconds * 1000])
        except (RedisError, OSError):
            logger.debug("the shared limiter is away; the block holds in this process")

    async def aclose(self) -> None:
        """Close connections."""
        await self._redis.aclose()

    def _keys(self, model: str) -> list[str]:
        return [f"{_PREFIX}{{{model}}}:{part}" for part in ("rpm", "tpm", "slots", "block")]


def _bucket(per_minute: int | None) -> tuple[float, float]:
    """Milliseconds one unit takes at our rate, and the burst in milliseconds; zeros for no limit."""
    if per_minute is None:
        return 0.0, 0.0
    return 60_000 / (per_minute * RATE), 60_000 * BURST / RATE
