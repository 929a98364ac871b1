"""What the limiter is asked and told of one paid step."""

import asyncio

from cope.adapters.memory import FixedClock, MemoryLimiter
from cope.core.limits.types import Ask, Grant, Report, Verdict
from cope.core.models import ModelEntry
from cope.core.problem import Kind, Message, Problem
from cope.core.prompts import BUILT_IN
from cope.core.stages import Call, Role, Stage, Step, Tier
from cope.usecases.places import Place, ask_of
from tests.support import make_spec


class Told(MemoryLimiter):
    """Keeps what it was told."""

    def __init__(self) -> None:
        super().__init__(FixedClock())
        self.reports: list[Report] = []

    async def give_back(self, grant: Grant, report: Report) -> None:
        self.reports.append(report)
        await super().give_back(grant, report)


async def test_the_limiter_is_told_how_late_the_last_call_left():
    limiter, now = Told(), asyncio.get_running_loop().time()
    grant = await limiter.acquire("large", Ask(10))
    assert isinstance(grant, Grant)
    place = Place(limiter, grant, due=now - 7)
    place.sending()
    place.report = Report(Verdict.FINE, tokens=9)

    await place.end()
    await place.end()

    (told,) = limiter.reports
    assert (told.verdict, told.tokens) == (Verdict.FINE, 9)
    assert told.late_s >= 7


async def test_a_place_that_was_never_used_was_not_late():
    limiter = Told()
    grant = await limiter.acquire("large", Ask(10))
    assert isinstance(grant, Grant)

    await Place(limiter, grant, due=0.0).end()

    assert [(told.verdict, told.late_s) for told in limiter.reports] == [(Verdict.UNUSED, 0.0)]


async def test_tokens_are_asked_for_as_providers_estimate_them():
    spec = make_spec(Problem(kind=Kind.MATH, conversation=(Message("system", "Be brief."), Message("user", "Wie? ä"))))
    asked = Call(Role.EXECUTOR, temperature=0.0, max_tokens=100)
    step = Step("solve", Stage.LARGE_EXECUTES, Tier.LARGE, "large", 3, None, asked, verbatim=True)
    entry = ModelEntry("large", "large", "http://one/v1", Tier.LARGE, "instruct", 4096, price_id="p")

    # 9 and 7 bytes at four a token, four for each message's frame and three for the answer's, and the output limit.
    assert ask_of(spec, step, entry, BUILT_IN["instruct"]) == Ask(3 * (3 + 4 + 2 + 4 + 3 + 100), calls=3, parallel=3)
