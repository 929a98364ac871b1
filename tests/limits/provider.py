"""A provider with an exact sliding window, and a crowd of callers that want more than it allows, in made-up time."""

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cope.core.limits.types import UNUSED, Ask, Grant, Pace, Report, Verdict, Wait
from cope.ports.limiter import Limiter
from tests.limits.conftest import Bench


@dataclass
class Provider:
    """Calls and tokens in (now - window_s, now]. `correct`: an answer's true tokens take the place of the estimate."""

    rpm: int | None
    tpm: int | None
    window_s: float = 60.0
    correct: bool = True
    entries: deque[list[float]] = field(default_factory=deque)
    refused: int = 0
    admitted: int = 0
    admitted_tokens: float = 0.0
    at_most: int = 0

    def arrive(self, now: float, tokens: int) -> list[float] | None:
        """The entry of an admitted call."""
        while self.entries and now - self.entries[0][0] >= self.window_s:
            self.entries.popleft()
        full = self.rpm is not None and len(self.entries) >= self.rpm
        if full or (self.tpm is not None and sum(entry[1] for entry in self.entries) + tokens > self.tpm):
            self.refused += 1
            return None
        entry = [now, float(tokens)]
        self.entries.append(entry)
        self.admitted += 1
        self.at_most = max(self.at_most, len(self.entries))
        return entry


@dataclass
class Outcome:
    """What a crowd got in a run: shares are of what the provider allows in `seconds`."""

    calls: int
    tokens: float
    refused: int
    asked: int
    seconds: float


async def crowd(
    bench: Bench,
    limiters: Sequence[Limiter],
    provider: Provider,
    *,
    seconds: float,
    callers: int,
    tokens: Callable[[random.Random], tuple[int, int]],
    latency_s: tuple[float, float] = (0.2, 2.0),
    late_s: float = 1.0,
    pace: Pace | None = None,
    warm_up_s: float = 0.0,
    seed: int = 1,
) -> Outcome:
    """`callers` that always want another call. `tokens` draws (estimate, actual); an answer takes `latency_s`, and a
    call reaches the provider up to `late_s` after its place in line came."""
    rng, longest = random.Random(seed), (pace or Pace()).line_s
    began = bench.now
    events: list[tuple[float, int, str, object]] = [
        (began + rng.random() * 0.1, number, "ask", limiters[number % len(limiters)]) for number in range(callers)
    ]
    heapq.heapify(events)
    count, asked, calls, used = callers, 0, 0, 0.0

    def push(at: float, what: str, item: object) -> None:
        nonlocal count
        count += 1
        heapq.heappush(events, (at, count, what, item))

    while events and events[0][0] < began + seconds:
        bench.now, _, what, item = heapq.heappop(events)
        if what == "ask":
            limiter: Limiter = item  # type: ignore[assignment]
            estimate, actual = tokens(rng)
            asked += 1
            answer = await limiter.acquire("large", Ask(estimate))
            if isinstance(answer, Wait):
                push(bench.now + answer.seconds, "ask", limiter)
                continue
            assert answer.wait_s <= longest + 1e-6
            push(bench.now + answer.wait_s + rng.random() * late_s, "arrive", (limiter, answer, estimate, actual))
        elif what == "arrive":
            limiter, grant, estimate, actual = item  # type: ignore[misc]
            entry = provider.arrive(bench.now, estimate)
            if entry is None:
                await limiter.give_back(grant, Report(Verdict.RATE, tokens=0, block_s=1.0))
                push(bench.now, "ask", limiter)
            else:
                if bench.now >= began + warm_up_s:
                    calls += 1
                    used += actual if provider.correct else estimate
                push(bench.now + rng.uniform(*latency_s), "end", (limiter, grant, entry, actual))
        else:
            limiter, grant, entry, actual = item  # type: ignore[misc]
            if provider.correct:
                entry[1] = float(actual)
            await limiter.give_back(grant, Report(Verdict.FINE, tokens=actual, took_s=1.0))
            push(bench.now, "ask", limiter)
    return Outcome(calls, used, provider.refused, asked, seconds - warm_up_s)


async def take(limiter: Limiter, tokens: int = 1, *, calls: int = 1) -> Grant:
    """A grant that there must be."""
    answer = await limiter.acquire("large", Ask(tokens, calls=calls))
    assert isinstance(answer, Grant), answer
    return answer


async def turned_away(limiter: Limiter, tokens: int = 1) -> Wait:
    """A refusal that there must be."""
    answer = await limiter.acquire("large", Ask(tokens))
    assert isinstance(answer, Wait), answer
    return answer


__all__ = ["UNUSED", "Outcome", "Provider", "crowd", "take", "turned_away"]
