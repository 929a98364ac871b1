"""From a decided task to the response its caller gets: OpenAI's `chat.completion` with our `cope` block beside it."""

from datetime import datetime
from typing import Any

import orjson

from cope.core.budget import Scope
from cope.core.errors import ErrorInfo
from cope.core.history import FinishedStep, History, Sample, step_named
from cope.core.ids import TaskId
from cope.core.money import NanoUSD, TokenUsage, format_usd
from cope.core.perplexity import candidate, exact_perplexity
from cope.core.policies.decision import Accept
from cope.core.policies.registry import answered_turns
from cope.core.responses.result import finished_response
from cope.core.stages import Tier
from cope.core.task import TaskSpec
from cope.core.vote import tally

Json = dict[str, Any]


def completion_body(
    spec: TaskSpec, history: History, accept: Accept, *, created_at: datetime, cached_from: TaskId | None = None
) -> Json:
    """The `chat.completion` of an accepted task. `usage` counts the returned solutions only; the cascade's whole
    consumption is in the `cope` block, which names `cached_from`, the task whose stored result this is (None: its own).
    Raises `ValueError` if the accepted step is not in the history."""
    step = step_named(history, accept.step)
    if step is None:
        raise ValueError(f"step {accept.step!r} was accepted but never carried out")
    chosen = _choices(spec, step, accept)
    usage = _returned_usage(chosen)
    return {
        "id": f"chatcmpl-{spec.task_id.removeprefix('task_')}",
        "object": "chat.completion",
        "created": int(created_at.timestamp()),
        "model": spec.requested_model,
        "choices": [
            {
                "index": position,
                "message": {"role": "assistant", "content": sample.solution or "", "refusal": None},
                "logprobs": None,
                "finish_reason": sample.finish_reason or "stop",
            }
            for position, sample in enumerate(chosen)
        ],
        "usage": usage_json(usage),
        "cope": {**_cope_block(spec, history, step, accept), **_cached(cached_from)},
    }


def answer_body(
    spec: TaskSpec, history: History, accept: Accept, *, created_at: datetime, cached_from: TaskId | None = None
) -> Json:
    """What the caller gets of an accepted task, in the form that was asked for."""
    completion = completion_body(spec, history, accept, created_at=created_at, cached_from=cached_from)
    return completion if spec.form is None else finished_response(spec, completion, finished_at=created_at)


def usage_json(usage: TokenUsage) -> Json:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def error_body(error: ErrorInfo, *, type_: str = "invalid_request_error") -> Json:
    """OpenAI's error object; all four keys are always there."""
    return {"error": {"message": error.message, "type": type_, "param": error.param, "code": error.code}}


_STATUS_OF_CODE = {
    **{f"{scope.value}_spend_limit_exceeded": 429 for scope in Scope},
    "context_length_exceeded": 400,
    "model_rejected": 400,
    "crashed_repeatedly": 500,
}
_OTHER_STATUS = 502


def failure(error: ErrorInfo) -> tuple[str, int]:
    """The body (JSON text) and HTTP status that a failed task's caller gets."""
    status = error.status or _STATUS_OF_CODE.get(error.code, _OTHER_STATUS)
    kind = "insufficient_quota" if status == 429 else "invalid_request_error" if status == 400 else "server_error"
    return orjson.dumps(error_body(error, type_=kind)).decode(), status


def _choices(spec: TaskSpec, step: FinishedStep, accept: Accept) -> list[Sample]:
    """The accepted solution first, then further samples of its class, up to OpenAI's `n`.

    Where the class has fewer members than `n` asked for, only those are returned: a sample that lost the vote is not
    an answer.
    """
    by_index = {sample.index: sample for sample in step.samples}
    chosen = [by_index[accept.sample_index]]
    if spec.options.choices_n > 1:
        if accept.vote is not None and accept.vote.winner is not None:
            rest = [by_index[i] for i in accept.vote.winner.indices if i != accept.sample_index]
        else:
            rest = [sample for sample in step.arrived if sample.index != accept.sample_index]
        chosen += rest[: spec.options.choices_n - 1]
    return chosen


def _returned_usage(chosen: list[Sample]) -> TokenUsage:
    # One prompt, as OpenAI counts `n` choices, and every returned completion.
    first = chosen[0].solution_usage
    return TokenUsage(
        prompt=first.prompt,
        cached=first.cached,
        completion=sum(sample.solution_usage.completion for sample in chosen),
        reasoning=sum(sample.solution_usage.reasoning for sample in chosen),
        calls=len(chosen),
    )


def _cope_block(spec: TaskSpec, history: History, step: FinishedStep, accept: Accept) -> Json:
    sample = next(s for s in step.samples if s.index == accept.sample_index)
    cost = NanoUSD(sum(s.cost for s in history))
    votes = (
        [{"answer_key": c.key, "answer": c.answer, "count": c.count} for c in accept.vote.classes]
        if accept.vote is not None
        else []
    )
    turns = answered_turns(spec, history)
    return {
        "task_id": spec.task_id,
        "policy": spec.policy.name.value,
        "kind": spec.problem.kind.value,
        "stage": int(accept.stage),
        "accepted": accept.accepted,
        "reason": accept.reason,
        "confidence": None if accept.confidence is None else float(accept.confidence),
        "threshold": None if accept.threshold is None else float(accept.threshold),
        "answer": sample.answer,
        "answer_key": sample.key,
        "degraded": accept.degraded,
        "votes": votes,
        "cost_usd": format_usd(cost),
        "cost_nanousd": int(cost),
        "price_version": next((s.price_version for s in reversed(history) if s.price_version), None),
        "prompt_version": step.prompt_version,
        "usage": {tier.value: _tier_usage(history, tier) for tier in Tier},
        **({} if spec.problem.category is None else {"category": spec.problem.category}),
        **({"turns": [_turn_json(history, turn) for turn in turns]} if spec.problem.turns else {}),
        "steps": [_step_json(s) for s in history],
    }


def _cached(source: TaskId | None) -> Json:
    return {} if source is None else {"cached": True, "cached_from": source}


def _turn_json(history: History, accept: Accept) -> Json:
    """One user turn's answer, of several."""
    step = step_named(history, accept.step)
    samples = () if step is None else step.samples
    return {
        "content": next((s.solution or "" for s in samples if s.index == accept.sample_index), ""),
        "stage": int(accept.stage),
        "accepted": accept.accepted,
        "confidence": None if accept.confidence is None else float(accept.confidence),
        "reason": accept.reason,
    }


def _tier_usage(history: History, tier: Tier) -> Json:
    total = TokenUsage()
    for step in history:
        if step.tier is tier:
            total += step.usage
    return {**usage_json(total), "calls": total.calls}


def _step_json(step: FinishedStep) -> Json:
    return {
        "name": step.name,
        "stage": int(step.stage),
        "role": _roles(step),
        "model": step.model,
        "n": step.n,
        "finished": len(step.arrived),
        "reason": step.reason,
        "stopped_early": step.stopped_early,
        "prompt_tokens": step.usage.prompt,
        "cached_tokens": step.usage.cached,
        "completion_tokens": step.usage.completion,
        "cost_nanousd": int(step.cost),
        "started_at": step.started_at.isoformat(),
        "finished_at": step.finished_at.isoformat(),
        **_confidence_of(step),
        **({} if step.scoring is None else {"scoring": step.scoring}),
        **({} if step.reused_from is None else {"reused_from": step.reused_from}),
    }


def _confidence_of(step: FinishedStep) -> Json:
    """What a step of several samples, or a scored one, was judged by: what thresholds are calibrated from."""
    best = candidate(step)
    if best is not None:
        return {"confidence": float(exact_perplexity(best))}
    if step.n == 1 or not any(sample.solution is not None for sample in step.samples):
        return {}
    return {"confidence": float(tally(step.arrived, step.n).consensus_ratio)}


def _roles(step: FinishedStep) -> str:
    planned = any(sample.plan is not None for sample in step.samples)
    solved = any(sample.solution is not None for sample in step.samples)
    return "planner" if planned and not solved else "planner+executor" if planned else "executor"
