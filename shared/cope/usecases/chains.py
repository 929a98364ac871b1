"""One step's chains against the model: plan, then solution, judged as they arrive, stopped once the vote is decided."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cope.core.budget import output_limit
from cope.core.errors import ContextTooLong, ModelError, SandboxUnavailable
from cope.core.history import Sample, SampleStatus
from cope.core.limits.hints import NO_HINTS, RateHints
from cope.core.models import ModelEntry
from cope.core.money import TokenUsage
from cope.core.plans import GoalPlan
from cope.core.policies import passing
from cope.core.policies.turns import problem_of
from cope.core.problem import Kind, Message
from cope.core.prompts import PromptSet, Role, render_executor, render_goal_planner, render_guideline_planner
from cope.core.stages import Call, Step, StopRule, Tier
from cope.core.stopping import VoteState, may_stop
from cope.core.task import TaskSpec
from cope.core.waves import launched
from cope.ports.answers import AnswerJudge
from cope.ports.model import ChatAnswer, ChatModel, ChatRequest

PLAN_BYTES_PER_TOKEN = 8


class ChainParts(Protocol):
    """What running a step needs of the worker."""

    @property
    def model(self) -> ChatModel: ...
    @property
    def judge(self) -> AnswerJudge: ...


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """The samples of a step by index. `usage` is None where the provider left it out of any answer.

    `stopped_early` says why samples were aborted, None where none was. `hints` are those of the last answer.
    `open_calls` were begun and have no answer: whether they are billed is not known.
    """

    samples: tuple[Sample, ...]
    usage: TokenUsage | None
    stopped_early: str | None
    provider_id: str | None
    hints: RateHints = NO_HINTS
    open_calls: int = 0


def planner_messages(spec: TaskSpec, step: Step, prompts: PromptSet) -> tuple[Message, ...]:
    """What the step's planner is sent."""
    if step.planner is not None and step.planner.role is Role.GUIDELINE_PLANNER:
        return render_guideline_planner(prompts, problem_of(spec, step))
    return render_goal_planner(prompts, problem_of(spec, step))


def executor_messages(spec: TaskSpec, step: Step, prompts: PromptSet, own: GoalPlan | None) -> tuple[Message, ...]:
    """What the step's executor is sent; `own` is the chain's own goal plan."""
    if step.verbatim:
        return problem_of(spec, step).conversation
    return render_executor(prompts, problem_of(spec, step), goal=own or step.goal, guideline=step.guideline)


def clip_plan(text: str, max_tokens: int) -> str:
    """A plan at its longest: eight bytes for each token it was allowed.

    Plans go into further prompts whose worst case is reserved before they are known, so their length is bounded.
    """
    longest = max_tokens * PLAN_BYTES_PER_TOKEN
    return text.encode("utf-8", "replace")[:longest].decode("utf-8", "ignore").strip()


def chat_request(
    spec: TaskSpec, call: Call, entry: ModelEntry, messages: tuple[Message, ...], *, request_id: str, index: int
) -> ChatRequest:
    """One call of chain `index` of a step whose id is `request_id`."""
    options, executing = spec.options, call.role is Role.EXECUTOR
    return ChatRequest(
        model=entry,
        messages=messages,
        temperature=call.temperature,
        max_tokens=output_limit(entry, messages, call.max_tokens),
        # Fixed width: servers abort by prefix, and job-1 must not take job-10 with it.
        request_id=f"{request_id}-{index:03d}{'x' if executing else 'p'}",
        top_p=options.top_p if executing else None,
        stop=options.stop if executing else (),
        seed=(spec.seed + index) & 0x7FFFFFFF if entry.supports_seed else None,
        logprobs=call.logprobs,
    )


def single_request(
    spec: TaskSpec, step: Step, entry: ModelEntry, prompts: PromptSet, *, request_id: str
) -> ChatRequest:
    """The only call of a step that has one. Raises `ValueError` for any other step."""
    call, messages = step.planner, None
    if step.n == 1 and step.planner is not None and step.executor is None:
        messages = planner_messages(spec, step, prompts)
    elif step.n == 1 and step.planner is None and step.executor is not None:
        call, messages = step.executor, executor_messages(spec, step, prompts, None)
    if call is None or messages is None:
        raise ValueError(f"step {step.name!r} is more than one call")
    return chat_request(spec, call, entry, messages, request_id=request_id, index=0)


async def single_sample(
    judge: AnswerJudge, spec: TaskSpec, step: Step, answer: ChatAnswer, prompts: PromptSet
) -> Sample:
    """The only sample of a step that has one, from the answer to its `single_request`."""
    if step.planner is not None:
        return plan_sample(step.planner, 0, answer)
    return await solution_sample(judge, spec, step, 0, answer, programs=prompts.programs)


def plan_sample(planner: Call, index: int, planned: ChatAnswer) -> Sample:
    """The sample of a chain that only plans."""
    return Sample(
        index,
        SampleStatus.FINISHED,
        plan=clip_plan(planned.text, planner.max_tokens),
        finish_reason=planned.finish_reason,
        usage=planned.usage or TokenUsage(),
    )


async def solution_sample(
    judge: AnswerJudge, spec: TaskSpec, step: Step, index: int, solved: ChatAnswer, *, programs: bool
) -> Sample:
    """The sample of a solution, with its answer read unless the step passes the caller's own messages through.

    `programs`: the solution is a program, and its answer what that computes.
    """
    usage = solved.usage or TokenUsage()
    sample = Sample(
        index,
        SampleStatus.FINISHED,
        solution=solved.text,
        finish_reason=solved.finish_reason,
        usage=usage,
        solution_usage=usage,
        mean_logprob=solved.mean_logprob,
    )
    if step.verbatim or spec.problem.kind is Kind.OPEN:  # nothing is read out of an open-ended text
        return sample
    problem = spec.problem
    if problem.kind is Kind.CODE and step.votes_needed is None:
        problem = replace(problem, tests=())  # no gate follows, so nothing is run: a paid answer must not wait for that
    try:
        (judged,) = await judge.judge(problem, [solved.text], programs=programs)
    except SandboxUnavailable:
        if step.tier is Tier.SMALL or step.votes_needed is not None:
            raise
        return sample  # it is paid for, and no gate waits for its value: the caller has its text
    return replace(sample, answer=judged.answer, key=judged.key, tests_passed=judged.tests_passed)


class ChainRunner:
    """Runs the chains of one step. `gate` bounds the calls in flight over all steps of the process; `on_send` is told
    of each call as it leaves, `on_more` of the size of each wave after the first.

    Also after a failed run `usage` says what was answered (None: an answer did not say), `answered` how many calls that
    was, and `open_calls` how many were begun and have no answer, so that nobody knows whether they are billed.
    """

    def __init__(
        self,
        parts: ChainParts,
        spec: TaskSpec,
        step: Step,
        *,
        entry: ModelEntry,
        prompts: PromptSet,
        gate: asyncio.Semaphore,
        request_id: str,
        on_end: Callable[[], None],
        on_send: Callable[[], None] | None = None,
        on_more: Callable[[int], None] = lambda chains: None,
    ) -> None:
        self._parts = parts
        self._spec = spec
        self._step = step
        self._entry = entry
        self._prompts = prompts
        self._gate = gate
        self._request_id = request_id
        self._on_end = on_end
        self._on_send = on_send
        self._on_more = on_more
        self.usage: TokenUsage | None = TokenUsage()
        self.answered = self.open_calls = 0
        self._provider_id: str | None = None
        self._hints = NO_HINTS

    async def run(self) -> StepOutcome:
        """All chains, or as many as the decision takes. Raises the first `ModelError` that fails the whole step;
        on that, and on cancellation, every chain still running is aborted."""
        step = self._step
        running: list[asyncio.Task[Sample]] = []
        stopped: str | None = None
        try:
            ended: list[Sample] = []
            waiting: set[asyncio.Task[Sample]] = set()
            while len(ended) < step.n and stopped is None:
                wave = range(len(running), launched(step.waves, step.n, len(ended)))
                if wave and running:
                    self._on_more(len(wave))
                running += [asyncio.create_task(self._chain(index)) for index in wave]
                waiting |= set(running[wave.start :])
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                ended += [chain.result() for chain in done]
                stopped = self._decided(ended)
        finally:
            await _abort(running)
        samples = tuple(
            chain.result()
            if not chain.cancelled() and chain.exception() is None
            else Sample(index, SampleStatus.ABORTED)
            for index, chain in enumerate(running)
        ) + tuple(Sample(index, SampleStatus.ABORTED) for index in range(len(running), step.n))
        return StepOutcome(samples, self.usage, stopped, self._provider_id, self._hints, self.open_calls)

    def _decided(self, samples: Sequence[Sample]) -> str | None:
        step = self._step
        if step.votes_needed is None or step.stop is StopRule.OFF or len(samples) == step.n:
            return None
        if self._spec.problem.kind is Kind.CODE:
            return passing.decided(self._spec, tuple(samples), step.n, step.stop)
        state = may_stop(samples, step.n, step.votes_needed, step.stragglers)
        if state is VoteState.OPEN:
            return None
        return f"{state.value} was certain after {len(samples)} of {step.n} samples"

    async def _chain(self, index: int) -> Sample:
        try:
            return await self._plan_and_solve(index)
        except ContextTooLong as error:
            # Not the end of the step: a small model whose context is too short escalates to the large one.
            return Sample(index, SampleStatus.FAILED, error=f"{error.code}: {error.message}")
        finally:
            self._on_end()

    async def _plan_and_solve(self, index: int) -> Sample:
        step, own, plan_text = self._step, None, None
        used = TokenUsage()
        if step.planner is not None:
            planned = await self._call(index, step.planner, planner_messages(self._spec, step, self._prompts))
            plan_text = clip_plan(planned.text, step.planner.max_tokens)
            used += planned.usage or TokenUsage()
            if step.executor is None:
                return plan_sample(step.planner, index, planned)
            own = GoalPlan(plan_text)
        if step.executor is None:
            raise ValueError(f"step {step.name!r} has neither planner nor executor")
        solved = await self._call(index, step.executor, executor_messages(self._spec, step, self._prompts, own))
        programs = self._prompts.programs
        sample = await solution_sample(self._parts.judge, self._spec, self._step, index, solved, programs=programs)
        return replace(sample, plan=plan_text, usage=used + sample.usage)

    async def _call(self, index: int, call: Call, messages: tuple[Message, ...]) -> ChatAnswer:
        request = chat_request(self._spec, call, self._entry, messages, request_id=self._request_id, index=index)
        async with self._gate:
            if self._on_send is not None:
                self._on_send()
            try:
                answer = await self._parts.model.chat(request)
            except ModelError as error:
                self.open_calls += error.sent and not error.answered
                raise
            except BaseException:
                self.open_calls += 1
                raise
        self._count(answer)
        return answer

    def _count(self, answer: ChatAnswer) -> None:
        self.answered += 1
        self._provider_id = self._provider_id or answer.provider_id
        self._hints = answer.hints
        if answer.usage is None:
            self.usage = None
        elif self.usage is not None:
            self.usage += answer.usage


async def _abort(chains: Sequence["asyncio.Task[Sample]"]) -> None:
    for chain in chains:
        chain.cancel()
    await asyncio.gather(*chains, return_exceptions=True)
