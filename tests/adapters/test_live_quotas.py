"""What `/v1/limits` says of the providers: the limiter's state, or the configuration where it can't be read."""

from cope.adapters.live_quotas import LiveQuotas
from cope.adapters.memory import FixedClock, MemoryLimiter
from cope.core.limits.types import Ask, Grant, Headroom, Limits
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier

SMALL = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 1024)
LARGE = ModelEntry("large", "large", "http://localhost/v1", Tier.LARGE, "instruct", 1024, rpm=100, tpm=None)
CATALOG = ModelCatalog({"small": SMALL, "large": LARGE}, "small", "large", BUILT_IN)


class Away:
    async def headroom(self) -> tuple[Headroom, ...]:
        raise ConnectionError


async def test_what_is_left_is_the_limit_less_what_the_workers_have_used() -> None:
    clock = FixedClock()
    limiter = MemoryLimiter(clock, {"large": Limits(rpm=100), "small": Limits()})
    assert isinstance(await limiter.acquire("large", Ask(10)), Grant)

    (quota,) = await LiveQuotas(CATALOG, limiter, clock).quotas()

    assert (quota.model, quota.rpm, quota.tpm, quota.tpm_left, quota.blocked_until) == ("large", 100, None, None, None)
    assert quota.rpm_left == 99
    assert quota.as_of == clock.now()


async def test_a_limiter_that_can_not_be_read_leaves_what_is_configured() -> None:
    (quota,) = await LiveQuotas(CATALOG, Away(), FixedClock()).quotas()

    assert (quota.model, quota.rpm, quota.rpm_left, quota.as_of) == ("large", 100, None, None)
