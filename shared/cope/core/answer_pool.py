"""The answer pool: what makes two tasks identical, and how one's steps answer the other.

The pool keeps nothing of its own: it is the project's ended tasks with what their store level kept of them, found by a
key. What was never kept, or is not kept any longer, is not in it.
"""

import hashlib
from functools import lru_cache

import orjson

from cope.core.codec import encode_policy
from cope.core.history import FinishedStep, History, step_named
from cope.core.ids import TaskId
from cope.core.policies.decision import Accept
from cope.core.problem import Kind, Problem
from cope.core.reuse import PromptVersion, reusable, taken_over
from cope.core.task import NO_OPTIONS, CallerOptions, TaskSpec

KEY_BYTES = 16


def pool_key(problem: Problem, options: CallerOptions, *, policy: str, seed: int | None) -> bytes:
    """Equal for identical tasks of a project, 16 bytes: the same kind, conversation and keys of that kind (choices,
    answer form, tests, turns), the same options of the caller's, the same policy with its models (`policy` is the
    encoded one), and the same `seed` where the caller chose one (None: any draw will do). Labels, priorities, caps and
    the form of the response don't count."""
    parts = [_digest(policy), "" if seed is None else str(seed), problem.kind.value, str(len(problem.conversation))]
    for message in problem.conversation:
        parts += (message.role, message.content)
    if problem.choices or problem.answer_pattern is not None or problem.answer_pointer is not None:
        parts.append(_json(problem.choices, problem.answer_pattern, problem.answer_pointer))
    if problem.kind is Kind.CODE:
        parts.append(_json(problem.tests, problem.setup, problem.entry_point, problem.by_behaviour))
    if problem.kind is Kind.OPEN:
        parts.append(_json(problem.turns, problem.category))
    if problem.actions:
        parts.append(_json("actions", problem.actions))
    if options is not NO_OPTIONS and options != NO_OPTIONS:  # by identity first: to compare takes as long as to hash
        asked = (options.max_tokens, options.temperature, options.top_p, options.stop, options.choices_n)
        parts.append(_json("options", *asked))
    # No part holds a NUL, which every text is refused for, so no two lists of parts are one text.
    return hashlib.sha256("\x00".join(parts).encode()).digest()[:KEY_BYTES]


@lru_cache(maxsize=256)
def _digest(policy: str) -> str:
    """A few policies for a million lines: each is hashed once."""
    return hashlib.sha256(policy.encode()).hexdigest()


def pool_key_of(task: TaskSpec) -> bytes:
    """The key that `task` reads the pool by."""
    seed = task.seed if task.own_seed else None
    return pool_key(task.problem, task.options, policy=encode_policy(task.policy), seed=seed)


def _json(*values: object) -> str:
    return orjson.dumps(values).decode()


def answered_by(
    task: TaskSpec, source: TaskId, stored: tuple[FinishedStep, ...], *, version: PromptVersion
) -> tuple[History, Accept] | None:
    """The steps of `source`, an ended task of the same key, as they answer `task`: at no cost, and naming whose they
    are. None where they don't: the prompts are others by now (`version`), the answer was not its policy's own (money
    cut it short), or its text is not kept."""
    history, decision = reusable(task, stored, version=version, whole=True)
    if not isinstance(decision, Accept) or decision.degraded:
        return None
    step = step_named(history, decision.step)
    by_index = {} if step is None else {sample.index: sample for sample in step.samples}
    wanted = [decision.sample_index]
    if task.options.choices_n > 1:
        winner = None if decision.vote is None else decision.vote.winner
        wanted = list(by_index if winner is None else winner.indices)
    if any(by_index[index].solution is None for index in wanted):
        return None
    return tuple(taken_over(one, source) for one in history), decision
