"""One claimed task, one step: decide, set the money aside, call, judge, and say how the task goes on.

The order of a paid call is fixed: rate limit → reserve → `sent` committed → call → settle in the commit. Whatever
kills the worker in between, the money is either released, or counted as unconfirmed until the answer is known.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, assert_never

import orjson

from cope.core import retry
from cope.core.audit_sampling import auditable
from cope.core.batch_tier import Order, batch_price, encode_order, may_wait
from cope.core.budget import Scope, output_limit, settle, worst_case
from cope.core.codec import decode_step, encode_step
from cope.core.errors import ErrorInfo, ModelError, ModelMalformed, SandboxUnavailable, Unpriced
from cope.core.history import FinishedStep, History
from cope.core.ids import AttemptId, TaskId
from cope.core.lifecycle import HoldReason
from cope.core.limits import reports
from cope.core.limits.types import UNKNOWN, UNUSED, Verdict
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import ZERO, NanoUSD, Price, TokenUsage, format_usd
from cope.core.parse_watch import line_parses
from cope.core.perplexity import scoring_text
from cope.core.plans import GoalPlan
from cope.core.policies.decision import Accept, Decision, Stop
from cope.core.policies.degraded import best_vote
from cope.core.policies.registry import next_decision
from cope.core.prices import PriceTable, is_free
from cope.core.prompts import PromptSet
from cope.core.result import answer_body, failure
from cope.core.stages import Step, Tier
from cope.core.task import OnBudget, TaskSpec
from cope.ports.answer_pool import Pooled, PoolQuestion
from cope.ports.answers import AnswerJudge
from cope.ports.limiter import Limiter
from cope.ports.model import ChatAnswer, ChatModel
from cope.ports.provider_batches import BatchProvider, GatherRequest
from cope.ports.store import (
    Adopted,
    ClaimedTask,
    CommitStatus,
    Fenced,
    GiveBack,
    Granted,
    NextState,
    Paused,
    Refused,
    ReserveRequest,
    ReserveResult,
    Settlement,
    StepCommit,
    ToDone,
    ToFailed,
    ToQueue,
)
from cope.ports.support import Clock, IdMaker
from cope.usecases.answer_pool import from_pool
from cope.usecases.chains import (
    PLAN_BYTES_PER_TOKEN,
    ChainRunner,
    StepOutcome,
    executor_messages,
    planner_messages,
    single_request,
    single_sample,
)
from cope.usecases.places import Place, ask_of, find_place

UNPRICED_RECHECK_S = 30.0
MAX_CRASHES = 5


class StepParts(Protocol):
    """What a step needs of its worker process."""

    @property
    def model(self) -> ChatModel: ...
    @property
    def judge(self) -> AnswerJudge: ...
    @property
    def limiter(self) -> Limiter: ...
    @property
    def batches(self) -> BatchProvider: ...
    @property
    def catalog(self) -> ModelCatalog: ...
    @property
    def prices(self) -> PriceTable: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def ids(self) -> IdMaker: ...


class StepLedger(Protocol):
    """The store's part of a step, grouped with other tasks' by the drainer."""

    async def reserve(self, request: ReserveRequest) -> ReserveResult: ...
    async def gather(self, request: GatherRequest) -> ReserveResult: ...
    async def mark_sent(self, granted: Granted) -> bool: ...
    async def pooled(self, question: PoolQuestion) -> tuple[Pooled, ...]: ...
    async def commit(self, commit: StepCommit) -> CommitStatus: ...
    async def give_back(self, back: GiveBack) -> None: ...
    async def store_late_answer(self, settlement: Settlement, answer: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Plan:
    """A step about to be carried out, with what it needs to know of its model."""

    step: Step
    entry: ModelEntry
    prompts: PromptSet
    prompt_version: str | None = None  # that of the prompts that were sent, where it may differ from today's


class StepRun:
    """One task's turn on one queue. `paying` is True from the `sent` mark until the bill is settled: such a run must
    not be cancelled, because its answer is paid for."""

    def __init__(
        self,
        parts: StepParts,
        ledger: StepLedger,
        task: ClaimedTask,
        *,
        gate: asyncio.Semaphore,
        on_chain_end: Callable[[], None],
        on_limited: Callable[[float], None] = lambda wait_s: None,
        on_more_chains: Callable[[int], None] = lambda chains: None,
    ) -> None:
        """`on_limited` is told 0 for each task that got on, and the wait for each that the limiter put off."""
        self._parts = parts
        self._ledger = ledger
        self._task = task
        self._gate = gate
        self._on_chain_end = on_chain_end
        self._on_more_chains = on_more_chains
        self._on_limited = on_limited
        self.paying = False

    async def run(self) -> CommitStatus | None:
        """Carry out the task's next step and commit it; None where the task was given back instead."""
        task = self._task
        if task.crashes >= MAX_CRASHES:
            error = ErrorInfo("crashed_repeatedly", f"The worker died {task.crashes} times while running this task.")
            return await self._commit(None, Stop(error))
        decision = next_decision(task.spec, task.history)
        if not isinstance(decision, Step):
            return await self._commit(None, decision)
        pooled = await from_pool(self._ledger, task, self._parts.catalog)
        if pooled is not None:
            return await self._ledger.commit(StepCommit(task.task_id, task.fence, None, self._cached(*pooled)))
        entry = self._parts.catalog.entry(decision.model, param="model")
        plan = _Plan(decision, entry, self._parts.catalog.prompts(decision.model, decision.prompt_set))
        try:
            if is_free(entry):
                return await self._free_step(plan)
            if may_wait(task.spec, decision, entry, window_left_s=task.window_left_s, batch_off=task.batch_off):
                return await self._gather(plan)
            return await self._paid_step(plan)
        except Unpriced as missing:
            # Its price lapsed after the task was accepted: it waits until somebody adds one (`watch_prices` says so).
            back = GiveBack(task.task_id, task.fence, delay_s=UNPRICED_RECHECK_S, note=missing.code)
            await self._give_back(back)
            return None
        except SandboxUnavailable as away:
            # Nothing was run, and waiting would not mend it. What a paid call of this step cost stays unconfirmed.
            return await self._commit(None, Stop(ErrorInfo(away.code, away.message, status=503)))

    def _cached(self, source: TaskId, history: History, accept: Accept) -> ToDone:
        """The end of a task that another's stored result answers. None of its steps is this task's: they stay there."""
        now = self._parts.clock.now()
        body = answer_body(self._task.spec, history, accept, created_at=now, cached_from=source)
        return ToDone(orjson.dumps(body).decode(), int(accept.stage), accept.accepted, cached=True)

    # ---- the small model -------------------------------------------------------------------------------------------

    async def _free_step(self, plan: _Plan) -> CommitStatus | None:
        started = self._parts.clock.now()
        try:
            outcome = await self._chains(plan).run()
        except ModelError as error:
            return await self._after_error(error, settlements=(), released=())
        finished = self._finished(plan, outcome, started, cost=ZERO, price=None)
        return await self._commit(finished, self._next(finished))

    # ---- a paid call -----------------------------------------------------------------------------------------------

    async def _paid_step(self, plan: _Plan) -> CommitStatus | None:
        ask = ask_of(self._task.spec, plan.step, plan.entry, plan.prompts)
        place = await find_place(self._parts.limiter, self._task, plan.entry.name, ask, on_limited=self._on_limited)
        if isinstance(place, GiveBack):
            await self._give_back(place)
            return None
        try:
            # The money is of the endpoint that was granted: its price bounds the call and settles it.
            plan = replace(plan, entry=plan.entry.at(place.endpoint))
            try:
                price, amount = self._quote(plan)
            except Unpriced:
                # Else this endpoint, never used, would be preferred for ever, and the priced ones would stand idle.
                await place.end(replace(UNUSED, verdict=Verdict.OUTAGE))
                raise
            reserved = await self._reserve(plan, price, amount)
            if isinstance(reserved, Granted):
                return await self._pay(plan, price, amount, reserved, place)
            return await self._not_granted(reserved)
        finally:
            await place.end()

    async def _not_granted(self, reserved: Adopted | Refused | Paused | Fenced) -> CommitStatus | None:
        match reserved:
            case Adopted():
                return await self._adopt(reserved)
            case Refused():
                return await self._no_money(reserved)
            case Paused(reason):
                await self._give_back(GiveBack(self._task.task_id, self._task.fence, hold=reason, note=reason.value))
                return None
            case Fenced():
                return CommitStatus.FENCED
            case _:
                assert_never(reserved)

    def _quote(self, plan: _Plan) -> tuple[Price, NanoUSD]:
        """The price in force now, which the call is settled at, and what is set aside for it: the worst case at the
        dearest price that is or comes in force before a planner's call and an executor's after it can have ended."""
        prices, entry, now = self._parts.prices, plan.entry, self._parts.clock.now()
        price = prices.of_model(entry, now)
        assert price is not None  # `is_free`
        bound = prices.bound(price.price_id, now, within_s=2 * entry.timeout_s, tier=price.tier)
        return price, step_worst_case(self._task.spec, plan.step, entry, plan.prompts, bound)

    async def _reserve(self, plan: _Plan, price: Price, amount: NanoUSD) -> ReserveResult:
        return await self._ledger.reserve(self._reserve_request(plan, price, amount))

    def _reserve_request(self, plan: _Plan, price: Price, amount: NanoUSD) -> ReserveRequest:
        task = self._task
        return ReserveRequest(
            task_id=task.task_id,
            fence=task.fence,
            project_id=task.project_id,
            batch_id=task.batch_id,
            step=plan.step.name,
            model=plan.entry.name,
            price_version=price.version,
            amount=amount,
            request_id=self._request_id(),
            task_cap=task.spec.max_cost,
            price_id=price.price_id,
            price_tier=price.tier,
        )

    async def _gather(self, plan: _Plan) -> CommitStatus | None:
        """Leave the call to the provider's next batch, its money set aside at the batch tier's price: no lease, and no
        place with the limiter, is held for hours."""
        spec, tier = self._task.spec, plan.entry.batch
        price = batch_price(self._parts.prices, plan.entry, self._parts.clock.now())
        # A rise that takes effect while the provider's batch is under way stays within what is set aside.
        within_s = 0.0 if tier is None else tier.max_wait_s + tier.turnaround_s + tier.margin_s
        bound = self._parts.prices.bound(price.price_id, self._parts.clock.now(), within_s=within_s, tier=price.tier)
        amount = step_worst_case(spec, plan.step, plan.entry, plan.prompts, bound)
        request = single_request(spec, plan.step, plan.entry, plan.prompts, request_id=self._request_id())
        order = Order(self._parts.batches.body(request), price, plan.prompts.version(spec.problem.kind))
        wanted = GatherRequest(self._reserve_request(plan, price, amount), encode_order(order))
        reserved = await self._ledger.gather(wanted)
        return None if isinstance(reserved, Granted) else await self._not_granted(reserved)

    async def settle_batched(
        self, step: Step, order: Order, answer: ChatAnswer, *, attempt_id: AttemptId, amount: NanoUSD, started: datetime
    ) -> CommitStatus:
        """Judge, settle and commit an answer that came in the provider's batch, as if the call had been made here."""
        prompts = self._parts.catalog.prompts(step.model, step.prompt_set)
        entry = self._parts.catalog.entry(step.model, param="model")
        sample = await single_sample(self._parts.judge, self._task.spec, step, answer, prompts)
        outcome = StepOutcome((sample,), answer.usage, None, answer.provider_id)
        plan = _Plan(step, entry, prompts, order.prompt_version)
        return await self._settle(plan, order.price, outcome, started, attempt_id=attempt_id, amount=amount)

    async def _pay(
        self, plan: _Plan, price: Price, amount: NanoUSD, granted: Granted, place: Place
    ) -> CommitStatus | None:
        self.paying = True  # before the mark, so that no cancellation falls between the mark and the call
        if not await self._ledger.mark_sent(granted):
            self.paying = False
            return CommitStatus.FENCED
        place.report = UNKNOWN
        started, chains = self._parts.clock.now(), self._chains(plan, on_send=place.sending)
        try:
            outcome = await chains.run()
        except ModelError as error:
            # The limiter first: once the task is given back another worker may ask for its next place at once.
            report = reports.of_error(error, jitter=self._parts.ids.jitter())
            if chains.answered or chains.open_calls:  # one call of several failed: the others' tokens were used
                report = replace(report, calls=None, tokens=None)
            await place.end(report)
            settlements, released = _after_failed_step(error, chains, price, granted, amount)
            return await self._after_error(error, settlements=settlements, released=released, endpoints=plan.entry)
        took_s = (self._parts.clock.now() - started).total_seconds()
        # The money first: the place is ended by `_paid_step`, whatever is wrong with the limiter.
        place.report = reports.of_answer(outcome.usage, outcome.hints, took_s=took_s)
        return await self._settle(plan, price, outcome, started, attempt_id=granted.attempt_id, amount=amount)

    async def _settle(
        self,
        plan: _Plan,
        price: Price,
        outcome: StepOutcome,
        started: datetime,
        *,
        attempt_id: AttemptId,
        amount: NanoUSD,
    ) -> CommitStatus:
        bill = settle(price, outcome.usage, amount, open_calls=outcome.open_calls, chains=plan.step.n)
        cost = NanoUSD(bill.cost + bill.overrun)
        finished = self._finished(plan, outcome, started, cost=cost, price=price)
        settlement = Settlement(attempt_id, bill.cost, bill.overrun, outcome.usage, bill.flag, outcome.provider_id)
        status = await self._commit(finished, self._next(finished), settlements=(settlement,))
        if status is CommitStatus.FENCED:
            # Someone else owns the task now; the answer is paid for, so it is kept for them to adopt.
            await self._ledger.store_late_answer(settlement, encode_step(finished))
        return status

    async def _adopt(self, adopted: Adopted) -> CommitStatus:
        finished = replace(decode_step(adopted.answer), stopped_early=None)
        return await self._commit(finished, self._next(finished))

    async def _no_money(self, refused: Refused) -> CommitStatus | None:
        task = self._task
        way = task.spec.on_budget
        if refused.scope is Scope.TASK and way is OnBudget.HOLD:
            way = OnBudget.BEST_VOTE  # a task's own cap is never raised: to wait for that would be to wait for ever
        match way:
            case OnBudget.HOLD:
                await self._give_back(
                    GiveBack(task.task_id, task.fence, hold=HoldReason.BUDGET, needed=refused.needed, note="budget")
                )
                return None
            case OnBudget.BEST_VOTE:
                because = f"the next call did not fit under the {refused.scope.value}'s cap"
                best = best_vote(task.history, because=because)
                return await self._commit(None, best or Stop(spend_limit_error(refused)))
            case OnBudget.FAIL:
                return await self._commit(None, Stop(spend_limit_error(refused)))
            case _:
                assert_never(way)

    # ---- shared ----------------------------------------------------------------------------------------------------

    def _chains(self, plan: _Plan, on_send: Callable[[], None] | None = None) -> ChainRunner:
        return ChainRunner(
            self._parts,
            self._task.spec,
            plan.step,
            entry=plan.entry,
            prompts=plan.prompts,
            gate=self._gate,
            request_id=self._request_id(),
            on_end=self._on_chain_end,
            on_send=on_send,
            on_more=self._on_more_chains,
        )

    def _request_id(self) -> str:
        return f"{self._task.task_id}-{self._task.fence:06d}"

    def _finished(
        self, plan: _Plan, outcome: StepOutcome, started: datetime, *, cost: NanoUSD, price: Price | None
    ) -> FinishedStep:
        step = plan.step
        return FinishedStep(
            name=step.name,
            stage=step.stage,
            tier=step.tier,
            model=step.model,
            n=step.n,
            samples=outcome.samples,
            reason=step.reason,
            prompt_version=plan.prompt_version or plan.prompts.version(self._task.spec.problem.kind),
            started_at=started,
            finished_at=self._parts.clock.now(),
            usage=outcome.usage if outcome.usage is not None else TokenUsage(),
            cost=cost,
            price_version=None if price is None else price.version,
            stopped_early=outcome.stopped_early,
            scoring=scoring_text(step.executor.temperature) if step.executor and step.executor.logprobs else None,
        )

    def _next(self, finished: FinishedStep) -> Decision:
        return next_decision(self._task.spec, (*self._task.history, finished))

    async def _commit(
        self, finished: FinishedStep | None, decision: Decision, *, settlements: tuple[Settlement, ...] = ()
    ) -> CommitStatus:
        task = self._task
        history = task.history if finished is None else (*task.history, finished)
        state = next_state(task.spec, history, decision, now=self._parts.clock.now())
        parses = None if finished is None else line_parses(task.spec.policy.name, finished)
        return await self._ledger.commit(
            StepCommit(
                task.task_id,
                task.fence,
                finished,
                state,
                settlements,
                parses=parses,
                audit=auditable(task.spec, history, decision),
            )
        )

    async def _give_back(self, back: GiveBack) -> None:
        await self._ledger.give_back(back)

    async def _after_error(
        self,
        error: ModelError,
        *,
        settlements: tuple[Settlement, ...],
        released: tuple[Granted, ...],
        endpoints: ModelEntry | None = None,
    ) -> CommitStatus | None:
        """`endpoints`: the model of a paid call. If it has several, the task goes to each of them at once, without
        waiting for the one that failed; once all have had their turn it waits as with a single one. The limiter, which
        knows them all, holds it where none is left."""
        task = self._task
        decision = retry.decide(error, task.tries, jitter=self._parts.ids.jitter())
        released_ids = tuple(granted.attempt_id for granted in released)
        elsewhere = endpoints is not None and len(endpoints.endpoints) > 1
        match decision:
            case retry.RetryLater(delay_s, counts):
                untried = endpoints is not None and task.tries + 1 < len(endpoints.endpoints)
                delay_s = 0.0 if elsewhere and (untried or not counts) else delay_s
                back = GiveBack(task.task_id, task.fence, delay_s=delay_s, count_try=counts, note=error.code)
            case retry.HoldForQuota() if elsewhere:
                back = GiveBack(task.task_id, task.fence, note=error.code)
            case retry.HoldForQuota(recheck_s):
                # A model of one's own knows no quota: its key is wrong. No breaker ends such a hold, so it is a wait.
                hold = None if endpoints is None else HoldReason.PROVIDER_QUOTA
                back = GiveBack(task.task_id, task.fence, delay_s=recheck_s, hold=hold, note=error.code)
            case retry.GiveUp(info):
                state = next_state(task.spec, task.history, Stop(info), now=self._parts.clock.now())
                return await self._ledger.commit(
                    StepCommit(task.task_id, task.fence, None, state, settlements, released_ids)
                )
            case _:
                assert_never(decision)
        await self._give_back(replace(back, settlements=settlements, released=released_ids))
        return None


def step_worst_case(spec: TaskSpec, step: Step, entry: ModelEntry, prompts: PromptSet, price: Price) -> NanoUSD:
    """What a whole step can cost at most: every chain's planner and executor with the output limits that will be sent.

    An executor that follows a planner is bounded by the longest plan that can be handed on (`chains.clip_plan`), and by
    its whole output limit: a shorter plan leaves the context more room.
    """
    total = 0
    own: GoalPlan | None = None
    if step.planner is not None:
        messages = planner_messages(spec, step, prompts)
        total += worst_case(price, messages, output_limit(entry, messages, step.planner.max_tokens), step.n)
        own = GoalPlan("x" * (step.planner.max_tokens * PLAN_BYTES_PER_TOKEN))
    if step.executor is not None:
        messages = executor_messages(spec, step, prompts, own)
        limit = step.executor.max_tokens
        total += worst_case(price, messages, limit if own else output_limit(entry, messages, limit), step.n)
    return NanoUSD(total)


_MENDING = {
    Scope.TASK: "Raise the line's `cope.max_cost_usd`.",
    Scope.BATCH: "Raise the batch's `max_cost_usd` (POST /v1/batches/{id}/spend_limit), or submit with "
    "`cope.on_budget: hold` to wait for it.",
    Scope.KEY: "Have the key's cap raised, or submit with `cope.on_budget: hold` to wait for it.",
    Scope.AUDIT: "The audit is dropped; raise the project's `cope.audit.cap_usd` for those to come.",
    Scope.PROJECT: "Raise the cap, or submit with `cope.on_budget: hold` to wait for it.",
}


def spend_limit_error(refused: Refused) -> ErrorInfo:
    """The error of a task that may not wait for money, in OpenAI's terms."""
    period = "" if refused.scope in {Scope.TASK, Scope.BATCH} else f" for {refused.month}"
    return ErrorInfo(
        f"{refused.scope.value}_spend_limit_exceeded",
        f"The next call may cost up to ${format_usd(refused.needed)}, and ${format_usd(refused.headroom)} is left "
        f"under this {refused.scope.value}'s cap{period}. {_MENDING[refused.scope]}",
        status=429,
    )


def next_state(spec: TaskSpec, history: tuple[FinishedStep, ...], decision: Decision, *, now: datetime) -> NextState:
    """How a task goes on after a decision: to a queue, or to its end with the body its caller gets."""
    match decision:
        case Step():
            return ToQueue(decision.tier.value)
        case Accept():
            body = answer_body(spec, history, decision, created_at=now)
            return ToDone(orjson.dumps(body).decode(), int(decision.stage), decision.accepted)
        case Stop(error):
            text, status = failure(error)
            return ToFailed(error, text, status)
        case _:
            assert_never(decision)


def _after_failed_step(
    error: ModelError, chains: ChainRunner, price: Price, granted: Granted, amount: NanoUSD
) -> tuple[tuple[Settlement, ...], tuple[Granted, ...]]:
    """The money of a step whose first error ended it, of all its calls together.

    An unreadable answer takes the whole reserve. A call that is open (unanswered, or given up because another failed)
    leaves the attempt as `sent`, which the sweep turns into `unconfirmed`. Else what was answered is what was billed;
    where that is nothing, the reserve is released if nothing left, and settled at zero if the provider refused.
    """
    if isinstance(error, ModelMalformed):
        return (Settlement(granted.attempt_id, amount, ZERO, None, "malformed"),), ()
    if chains.open_calls:
        return (), ()
    if not chains.answered:
        refused = Settlement(granted.attempt_id, ZERO, ZERO, None, f"refused: {error.code}")
        return ((refused,), ()) if error.sent else ((), (granted,))
    bill = settle(price, chains.usage, amount)
    return (Settlement(granted.attempt_id, bill.cost, bill.overrun, chains.usage, f"failed: {error.code}"),), ()


def first_queue(spec: TaskSpec) -> str:
    """The queue of a new task's first step."""
    decision = next_decision(spec, ())
    return decision.tier.value if isinstance(decision, Step) else Tier.SMALL.value
