"""Reading a file for a quote: what each line can cost at most, and which lines are drawn for the pilot.

A pilot line is the real line, cut off after Stage 1: the same problem, seed, prompts, samples and vote. Where the vote
does not accept, it ends there with its majority, so no paid model is ever asked.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import heappush, heapreplace
from typing import Protocol

import orjson

from cope.core.batch_tier import batch_price
from cope.core.codec import encode_policy
from cope.core.models import ModelCatalog
from cope.core.money import Price, PriceTier
from cope.core.policies.spec import PolicySpec
from cope.core.prices import PriceTable
from cope.core.prompts import Role
from cope.core.records import Batch
from cope.core.request import ParsedRequest
from cope.core.stages import Stage, StragglerRule, Tier
from cope.core.survey import Group, PilotLine, Reach, StepSize, Survey, paid_step
from cope.core.task import CallerOptions, TaskSpec
from cope.ports.store import NewTask
from cope.usecases.chains import planner_messages
from cope.usecases.worst_path import Rung, content_bytes, step_size, worst_path

_MOST_WAYS, _MOST_SIZES = 4096, 65_536


class SurveyParts(Protocol):
    """What reading a file for a quote needs."""

    @property
    def catalog(self) -> ModelCatalog: ...
    @property
    def prices(self) -> PriceTable: ...


@dataclass(frozen=True, slots=True)
class _Way:
    """How lines of one policy, options and kind are solved. `priced` are the positions of the paid rungs."""

    group: int
    rungs: tuple[Rung, ...]
    priced: tuple[tuple[int, Price], ...]
    policy: PolicySpec
    pilot_policy: str | None


class Surveyor:
    """Sees every valid line of a file once; keeps sums, and the pilot's lines.

    `pilot_lines` ≥ 0 is the most that are drawn; `now` is when the prices are looked up, and `window_s` for how long.
    """

    def __init__(self, parts: SurveyParts, *, seed: int, pilot_lines: int, now: datetime, window_s: float) -> None:
        self._parts = parts
        self._window_s = window_s
        self._pilot_lines = pilot_lines
        self._now = now
        self._used: set[tuple[str, PriceTier]] = set()
        self._survey = Survey(seed=seed, valid_at=int(now.timestamp()))
        self._groups: dict[tuple[str, str, int], int] = {}
        # By identity: the reader gives lines of equal policies one object, and the way holds it, so its id stays its.
        self._ways: dict[tuple[int, CallerOptions, str, int], _Way] = {}
        self._known_sizes: dict[tuple[object, ...], tuple[StepSize, ...]] = {}
        # The pilot: the lines of the lowest lot, the highest of these on top.
        self._drawn: list[tuple[int, int, NewTask, PilotLine]] = []

    def add(self, row: NewTask, request: ParsedRequest) -> None:
        """One valid line."""
        spec = TaskSpec(
            row.task_id, request.problem, request.policy, request.requested_model, row.seed, request.options
        )
        way = self._way(spec, row.policy)
        group = self._survey.groups[way.group]
        group.lines += 1
        sizes = self._sizes(spec, way)
        for step, size in zip(group.steps, sizes, strict=True):
            step.add(size)
        if way.pilot_policy is not None and self._pilot_lines:
            lot = -_lot(self._survey.seed, row.line)
            if len(self._drawn) < self._pilot_lines:
                heappush(self._drawn, (lot, row.line, *self._pilot_of(spec, row, way, sizes)))
            elif lot > self._drawn[0][0]:
                heapreplace(self._drawn, (lot, row.line, *self._pilot_of(spec, row, way, sizes)))

    def _sizes(self, spec: TaskSpec, way: _Way) -> tuple[StepSize, ...]:
        """Prompts are put together from the problem and fixed words: lines of one form and length are of one size."""
        problem = spec.problem
        form = tuple((message.role, bool(message.content)) for message in problem.conversation)
        own = (problem.choices, problem.turns, problem.tests, problem.entry_point, problem.actions)
        key = (id(way), content_bytes(problem.conversation), form, own)
        known = self._known_sizes.get(key)
        if known is None:
            if len(self._known_sizes) >= _MOST_SIZES:
                self._known_sizes.clear()
            known = self._known_sizes[key] = tuple(self._size(spec, way.rungs[i], price) for i, price in way.priced)
        return known

    def _size(self, spec: TaskSpec, rung: Rung, price: Price) -> StepSize:
        entry = self._parts.catalog.entry(rung.longest.model, param="model")
        prompts = self._parts.catalog.prompts(rung.longest.model, rung.longest.prompt_set)
        return step_size(spec, rung, entry, prompts, price)

    def finish(self) -> tuple[Survey, list[NewTask]]:
        """The file's sums, and the pilot's tasks by line."""
        drawn = sorted(self._drawn, key=lambda entry: entry[1])
        self._survey.pilot = {row.task_id: line for _, _, row, line in drawn}
        rows = [row for row in self._parts.prices.rows if (row.price_id, row.tier) in self._used]
        later = [row.effective_at for row in rows if row.effective_at > self._now]
        self._survey.valid_until = int(min(later).timestamp()) if later else None
        return self._survey, [row for _, _, row, _ in drawn]

    def _way(self, spec: TaskSpec, encoded: str) -> _Way:
        key = (id(spec.policy), spec.options, spec.problem.kind.value, len(spec.problem.turns))
        known = self._ways.get(key)
        if known is None:
            if len(self._ways) >= _MOST_WAYS:
                self._ways.clear()  # a file in which every line has options of its own
                self._known_sizes.clear()
            known = self._ways[key] = self._new_way(spec, encoded)
        return known

    def _new_way(self, spec: TaskSpec, encoded: str) -> _Way:
        rungs = worst_path(spec)
        priced = tuple((i, price) for i, rung in enumerate(rungs) if (price := self._price(rung)) is not None)
        escalates = any(rung.reach is not Reach.ALWAYS for rung in rungs)
        # Only where all that every line goes through is free: a dry run spends nothing.
        # A pilot stops after Stage 1, which of several turns would be the first one's only.
        free_start = all(rungs[position].reach is not Reach.ALWAYS for position, _ in priced)
        pilots = escalates and free_start and not spec.problem.turns
        kind = spec.problem.kind.value
        number = self._groups.setdefault((encoded, kind, len(spec.problem.turns)), len(self._survey.groups))
        if number == len(self._survey.groups):
            steps = [
                paid_step(
                    rungs[i].longest.name,
                    rungs[i].longest.model,
                    rungs[i].reach,
                    price,
                    guidelines=rungs[i].guidelines,
                    writes_plan=rungs[i].writes_plan,
                )
                for i, price in priced
            ]
            again = (rung.longest for rung in rungs if rung.longest.stage is Stage.LARGE_PLANS_SMALL_EXECUTES)
            votes = sum(step.n for step in again if step.tier is Tier.SMALL)
            self._survey.groups.append(Group(encoded, kind, votes, pilots, steps))
        # An escalation waits for its last sample here: lengths of those that come first would be short ones.
        short = replace(spec.policy, max_stage=1, p1_star=StragglerRule.FULL)
        return _Way(number, rungs, priced, spec.policy, encode_policy(short) if pilots else None)

    def _price(self, rung: Rung) -> Price | None:
        """The dearest that is or comes in force at any of the model's endpoints while the batch may run: a quote's
        maximum binds wherever its calls go, until its window ends. An unpriced model was refused before."""
        entry, prices = self._parts.catalog.entry(rung.longest.model, param="body.model"), self._parts.prices
        within_s = self._window_s + 2 * entry.timeout_s
        own = [one for served in entry.variants if (one := prices.of_model(served, self._now)) is not None]
        if not own:
            return None
        if entry.batch is not None:
            own.append(batch_price(prices, entry, self._now))
        bounds = [prices.bound(one.price_id, self._now, within_s=within_s, tier=one.tier) for one in own]
        self._used.update((one.price_id, one.tier) for one in own)
        return replace(
            bounds[0],
            input_per_mtok=max(one.input_per_mtok for one in bounds),
            cached_input_per_mtok=max(one.cached_input_per_mtok for one in bounds),
            output_per_mtok=max(one.output_per_mtok for one in bounds),
        )

    def _pilot_of(
        self, spec: TaskSpec, row: NewTask, way: _Way, sizes: tuple[StepSize, ...]
    ) -> tuple[NewTask, PilotLine]:
        first = way.rungs[0].longest
        prompts = self._parts.catalog.prompts(first.model, first.prompt_set)
        planned = first.planner is not None and first.planner.role is Role.GOAL_PLANNER
        sent = content_bytes(planner_messages(spec, first, prompts)) if planned else 0
        task = row._replace(policy=way.pilot_policy or row.policy, queue=Tier.SMALL.value)
        return task, PilotLine(way.group, tuple(size.bytes for size in sizes), sent)


def seed_of(batch: Batch, file_sha256: str) -> int:
    """What a file's pilot is drawn by: the batch's own seed, else one of the file and the batch's defaults."""
    own = orjson.loads(batch.defaults).get("seed")
    if isinstance(own, int):
        return own
    digest = hashlib.sha256(f"{file_sha256}\n{batch.defaults}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _lot(seed: int, line: int) -> int:
    """A line's lot in [0, 2**64): the lowest are drawn."""
    digest = hashlib.blake2b(f"{seed}:pilot:{line}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
