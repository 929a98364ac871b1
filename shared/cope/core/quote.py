"""What a batch will cost: its binding maximum, what is to be expected, and what 9 batches in 10 stay below.

The maximum is a sum over all lines (`cope.core.survey`). The other two are predictions from a pilot: lines drawn at
random have been through Stage 1. Up to 2,000 imaginary batches are drawn; in each, the share that escalates comes from
its Beta posterior, the lines that do are drawn, and so are the lengths of what is written, with the doubt there is
about each. The ninetieth percentile of their costs is `p90`.

Where nothing is known, `p90` takes the worst (every line escalates, nothing is settled in Stage 2, outputs use their
whole limit) and `expected` the middle (half of each). A provider's prompt cache is left out: it only makes it cheaper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt

from cope.core.chances import Chance, draw_count, mean_factor
from cope.core.lengths import FEWEST_PAST, PAST_IS_WORTH, Doubts, Length, length_of
from cope.core.money import NanoUSD, TokenUsage
from cope.core.survey import Group, PilotLine, Reach, Survey

DRAWS = 2000
TOKENS_PER_BYTE, UNMEASURED_DOUBT, TOKENIZER_DOUBT = 0.3, 0.35, 0.1
_LIKE_ALL = 5
"""The lengths of the lines that escalate are drawn towards those of all lines as if so many more had been seen."""


@dataclass(frozen=True, slots=True)
class PilotOutcome:
    """A pilot line that ended. `accepted`: Stage 1 did; a line that failed escalates as far as is known.

    `readable`: at least half of its answers could be read. `planner` is the small planner's usage, `solutions` the
    output tokens of the solutions that arrived, `small` everything.
    """

    line: PilotLine
    accepted: bool
    failed: bool
    readable: bool
    planner: TokenUsage
    solutions: tuple[int, ...]
    small: TokenUsage


@dataclass(frozen=True, slots=True)
class Past:
    """What the project has seen: output tokens of settled calls by (model, step); by policy (as encoded), how many of
    the tasks that escalated Stage 2 settled, and how many it did not."""

    outputs: Mapping[tuple[str, str], Sequence[int]] = field(default_factory=dict)
    stage2: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupQuote:
    """One group of the file. `accepted` of `piloted` lines ended in Stage 1; `settled` of `escalated` past tasks of
    this policy ended in Stage 2 (0 of 0: the past says too little). `outputs` are by the group's paid steps."""

    group: Group
    piloted: int
    accepted: int
    failed: int
    readable: int
    settled: int
    escalated: int
    outputs: tuple[Length, ...]
    expected: NanoUSD


@dataclass(frozen=True, slots=True)
class Quote:
    """The answer. `small` is what the small model will have to read and write, 0 where no pilot tells."""

    survey: Survey
    expected: NanoUSD
    p90: NanoUSD
    groups: tuple[GroupQuote, ...]
    small: TokenUsage


def estimate(
    survey: Survey, outcomes: Sequence[PilotOutcome], past: Past, chance: Chance, *, draws: int = DRAWS
) -> Quote:
    """The quote of a file. Equal arguments and an equally seeded `chance` give the same one.

    `draws` ≥ 1 imaginary batches are drawn; fewer where the lines are solved in hundreds of different ways.
    """
    views = [
        _View(group, [outcome for outcome in outcomes if outcome.line.group == number], past)
        for number, group in enumerate(survey.groups)
    ]
    draws = min(draws, max(200, 200_000 // max(1, len(views))))
    totals = sorted(_draw(views, Doubts(chance)) for _ in range(draws))
    expected = sum(view.expected for view in views)
    p90 = min(survey.worst, max(totals[ceil(0.9 * draws) - 1], expected))
    small = TokenUsage()
    for view in views:
        small += view.small_tokens()
    return Quote(survey, NanoUSD(expected), NanoUSD(p90), tuple(view.quote() for view in views), small)


def _draw(views: Sequence["_View"], doubts: Doubts) -> int:
    return sum(view.draw(doubts) for view in views)


class _View:
    """One group with what the pilot and the past say of it."""

    def __init__(self, group: Group, outcomes: Sequence[PilotOutcome], past: Past) -> None:
        self.group = group
        self._outcomes = outcomes
        self._escalated = [outcome for outcome in outcomes if not outcome.accepted]
        self._escalated_bytes = [
            sum(outcome.line.step_bytes[number] for outcome in self._escalated) for number in range(len(group.steps))
        ]
        settled, not_settled = past.stage2.get(group.policy, (0, 0))
        believed = settled + not_settled >= FEWEST_PAST
        self._settled, self._past_escalated = (settled, settled + not_settled) if believed else (0, 0)
        self._outputs = tuple(length_of(step, self._solutions(), past.outputs) for step in group.steps)
        self._tokens_per_byte = _tokens_per_byte(outcomes)
        self.expected = self._expect()

    def draw(self, doubts: Doubts) -> int:
        """The cost of these lines in one imaginary batch."""
        group, chance = self.group, doubts.chance
        if not group.steps:
            return 0
        counts = self._draw_counts(chance)
        measured, doubt = self._tokens_per_byte, TOKENIZER_DOUBT
        if measured is None:
            measured, doubt = TOKENS_PER_BYTE, UNMEASURED_DOUBT
        mean_doubt, lines_doubt = chance.normalvariate(), chance.normalvariate()
        guideline, total = 0.0, 0
        for number, (step, output) in enumerate(zip(group.steps, self._outputs, strict=True)):
            lines = counts[step.reach]
            sent = self._bytes(number, lines, mean_doubt=mean_doubt, lines_doubt=lines_doubt)
            written = output.draw(doubts, step, lines)
            ratio = measured * doubts.factor("tokenizer", step.model, doubt)
            read = sent * ratio + step.guidelines * lines * guideline
            if step.writes_plan and lines:
                guideline = written / lines
            cost = step.cost(input_tokens=ceil(read), output_tokens=ceil(written), calls=lines)
            total += min(cost, step.worst)
        return total

    def _draw_counts(self, chance: Chance) -> dict[Reach, int]:
        lines = escalated = self.group.lines
        if self._outcomes:
            misses = len(self._escalated)
            # One more miss than were seen (for the mean it is half a one): a small pilot may have missed the rare ones.
            share = chance.betavariate(misses + 1.0, len(self._outcomes) - misses + 0.5)
            escalated = draw_count(chance, lines, share)
        unresolved = escalated
        if self._past_escalated:
            unresolved = draw_count(chance, escalated, 1 - chance.betavariate(*self._settling()))
        return {Reach.ALWAYS: lines, Reach.ESCALATED: escalated, Reach.UNRESOLVED: unresolved}

    def _settling(self) -> tuple[float, float]:
        """The Beta posterior of the share of escalated lines that Stage 2 settles; without a past, the prior."""
        worth = min(1.0, PAST_IS_WORTH / self._past_escalated) if self._past_escalated else 0.0
        return worth * self._settled + 0.5, worth * (self._past_escalated - self._settled) + 0.5

    def _expect(self) -> int:
        group = self.group
        escalated = group.lines * (len(self._escalated) + 0.5) / (len(self._outcomes) + 1)
        settled, not_settled = self._settling()
        counts = {
            Reach.ALWAYS: float(group.lines),
            Reach.ESCALATED: escalated,
            Reach.UNRESOLVED: escalated * not_settled / (settled + not_settled),
        }
        ratio = self._tokens_per_byte
        if ratio is None:
            ratio = TOKENS_PER_BYTE * mean_factor(UNMEASURED_DOUBT)
        guideline, total = 0.0, 0
        for number, (step, output) in enumerate(zip(group.steps, self._outputs, strict=True)):
            lines = counts[step.reach]
            each = output.middle(step.limit / step.lines)
            read = self._bytes(number, lines) * ratio + step.guidelines * lines * guideline
            if step.writes_plan:
                guideline = each
            cost = step.cost(input_tokens=ceil(read), output_tokens=ceil(lines * each), calls=ceil(lines))
            total += min(cost, step.worst)
        return total

    def _bytes(self, number: int, lines: float, *, mean_doubt: float = 0.0, lines_doubt: float = 0.0) -> float:
        """What `lines` lines send in this step: the doubts are standard normal."""
        step = self.group.steps[number]
        if step.reach is Reach.ALWAYS:
            return step.bytes
        mean = step.bytes / step.lines
        sd = sqrt(max(0.0, step.bytes_squared / step.lines - mean * mean))
        seen = len(self._escalated) + _LIKE_ALL
        mean = (self._escalated_bytes[number] + _LIKE_ALL * mean) / seen
        total = lines * (mean + mean_doubt * sd / sqrt(seen)) + lines_doubt * sd * sqrt(lines)
        return min(lines * step.most_bytes, max(lines * step.least_bytes, total))

    def _solutions(self) -> list[float]:
        """The small model's solution length by line; of those that escalate, where there are any."""
        told = [o for o in self._escalated if o.solutions] or [o for o in self._outcomes if o.solutions]
        return [sum(o.solutions) / len(o.solutions) for o in told]

    def small_tokens(self) -> TokenUsage:
        """Stage 1 of every line and Stage 2 of those to be expected there, from the pilot's own usage."""
        seen, group = len(self._outcomes), self.group
        if not seen:
            return TokenUsage()
        first = [sum(o.small.prompt for o in self._outcomes), sum(o.small.completion for o in self._outcomes)]
        calls = sum(o.planner.calls for o in self._outcomes)
        asked = sum(o.planner.prompt for o in self._outcomes) / calls if calls else 0.0
        solutions = self._solutions()
        solved = sum(solutions) / len(solutions) if solutions else 0.0
        again = group.votes * group.lines * (len(self._escalated) + 0.5) / (seen + 1)
        return TokenUsage(
            prompt=round(first[0] * group.lines / seen + again * asked),
            completion=round(first[1] * group.lines / seen + again * solved),
        )

    def quote(self) -> GroupQuote:
        """What is told of this group."""
        return GroupQuote(
            group=self.group,
            piloted=len(self._outcomes),
            accepted=len(self._outcomes) - len(self._escalated),
            failed=sum(o.failed for o in self._outcomes),
            readable=sum(o.readable for o in self._outcomes),
            settled=self._settled,
            escalated=self._past_escalated,
            outputs=self._outputs,
            expected=NanoUSD(self.expected),
        )


def _tokens_per_byte(outcomes: Sequence[PilotOutcome]) -> float | None:
    told = [o for o in outcomes if o.planner.calls and o.line.planner_bytes]
    sent = sum(o.line.planner_bytes * o.planner.calls for o in told)
    return sum(o.planner.prompt for o in told) / sent if sent else None
