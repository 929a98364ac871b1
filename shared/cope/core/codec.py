"""How tasks, policies and steps are written down: compact JSON text, read back to equal values.

Keys are short because a million tasks store them a million times; absent keys mean the default.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from typing import Any, cast

import orjson

from cope.core.answers.model import AnswerKey
from cope.core.confidence import ThresholdRule
from cope.core.history import FinishedStep, Sample, SampleStatus
from cope.core.ids import TaskId
from cope.core.money import NanoUSD, TokenUsage
from cope.core.policies.options_codec import decode_options, encode_options
from cope.core.policies.spec import PolicyName, PolicySpec, Temperatures
from cope.core.problem import Kind, Message, Problem
from cope.core.responses.form import ResponseForm, decode_form, encode_form
from cope.core.stages import Stage, StopRule, StragglerRule, Tier
from cope.core.task import Cache, CallerOptions, OnBudget, ProviderBatch, StoreLevel, TaskSpec

Json = dict[str, Any]


def encode_payload(
    problem: Problem,
    options: CallerOptions,
    *,
    requested_model: str,
    store: StoreLevel,
    max_cost: NanoUSD | None = None,
    provider_batch: ProviderBatch = ProviderBatch.AUTO,
    form: ResponseForm | None = None,
    cache: Cache = Cache.OFF,
    own_seed: bool = False,
) -> str:
    """A task's own part: what is asked and in which form. The policy is stored apart, once per distinct policy."""
    data: Json = {
        "k": problem.kind,
        "m": [[message.role, message.content] for message in problem.conversation],
        "r": requested_model,
    }
    if problem.choices:
        data["c"] = problem.choices
    if problem.answer_pattern is not None:
        data["ap"] = problem.answer_pattern
    if problem.answer_pointer is not None:
        data["aj"] = problem.answer_pointer
    if problem.tests:
        data["ts"] = problem.tests
    if problem.setup:
        data["su"] = problem.setup
    if problem.entry_point is not None:
        data["ep"] = problem.entry_point
    if problem.by_behaviour:
        data["bb"] = True
    if problem.turns:
        data["ut"] = problem.turns
    if problem.category is not None:
        data["cg"] = problem.category
    if problem.actions:
        data["ac"] = problem.actions
    if store is not StoreLevel.ANSWERS:
        data["st"] = store.value
    if max_cost is not None:
        data["mc"] = max_cost
    if provider_batch is not ProviderBatch.AUTO:
        data["pb"] = provider_batch.value
    if cache is not Cache.OFF:
        data["ca"] = cache.value
        if own_seed:
            data["os"] = 1
    if options.max_tokens is not None:
        data["mt"] = options.max_tokens
    if options.temperature is not None:
        data["t"] = options.temperature
    if options.top_p is not None:
        data["tp"] = options.top_p
    if options.stop:
        data["sp"] = options.stop
    if options.choices_n != 1:
        data["n"] = options.choices_n
    if form is not None:
        data["rf"] = encode_form(form)
    return orjson.dumps(data).decode()


def blank_payload(payload: str) -> str:
    """The payload of a task whose caller had it erased: no text of theirs is left, only that it was a task."""
    data: Json = orjson.loads(payload)
    kept = {key: value for key, value in data.items() if key in {"k", "r", "st"}}
    kept["m"] = [["user", ""]]
    if "rf" in data:
        form = decode_form(data["rf"]) or ResponseForm()
        kept["rf"] = encode_form(ResponseForm(background=form.background, store=form.store, erased=True))
    return orjson.dumps(kept).decode()


def encode_policy(policy: PolicySpec) -> str:
    """Canonical JSON of a policy: equal policies give equal text."""
    t, baseline = policy.temperatures, encode_options(policy.baseline)
    return orjson.dumps(
        {
            "name": policy.name.value,
            "small": policy.small,
            "large": policy.large,
            "n": policy.n,
            "tau1": str(policy.tau1),
            "tau2": str(policy.tau2),
            "threshold_rule": policy.threshold_rule.value,
            "max_stage": policy.max_stage,
            "temperatures": {
                "planner1": t.planner1,
                "executor1": t.executor1,
                "planner2": t.planner2,
                "executor2": t.executor2,
                "executor3": t.executor3,
            },
            "prompt_set": policy.prompt_set,
            "stop": policy.stop.value,
            "p1_star": policy.p1_star.value,
            "passthrough_tier": policy.passthrough_tier.value,
            # Absent where there are none: policies stored before there were waves keep their text, and so their id.
            **({"waves": policy.waves} if policy.waves else {}),
            **({"baseline": baseline} if baseline else {}),
            **({"theta": {category: str(value) for category, value in policy.theta}} if policy.theta else {}),
        },
        option=orjson.OPT_SORT_KEYS,
    ).decode()


def policy_id(text: str) -> str:
    """The id of an encoded policy: 32 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def decode_policy(text: str) -> PolicySpec:
    """The inverse of `encode_policy`."""
    data: Json = orjson.loads(text)
    return PolicySpec(
        name=PolicyName(data["name"]),
        small=data["small"],
        large=data["large"],
        n=data["n"],
        tau1=Fraction(data["tau1"]),
        tau2=Fraction(data["tau2"]),
        threshold_rule=ThresholdRule(data["threshold_rule"]),
        max_stage=data["max_stage"],
        temperatures=Temperatures(**data["temperatures"]),
        prompt_set=data["prompt_set"],
        stop=StopRule(data["stop"]),
        p1_star=StragglerRule(data["p1_star"]),
        passthrough_tier=Tier(data["passthrough_tier"]),
        waves=tuple(data.get("waves", ())),
        baseline=decode_options(data.get("baseline", {})),
        theta=tuple((category, Fraction(value)) for category, value in data.get("theta", {}).items()),
    )


def decode_task(task_id: TaskId, *, payload: str, policy: PolicySpec | str, seed: int, on_budget: str) -> TaskSpec:
    """The task of a stored row. `policy` may come decoded, so that a claim of many tasks decodes each policy once."""
    data: Json = orjson.loads(payload)
    return TaskSpec(
        task_id=task_id,
        problem=Problem(
            kind=Kind(data["k"]),
            conversation=tuple(Message(role, content) for role, content in data["m"]),
            choices=tuple(data.get("c", ())),
            answer_pattern=data.get("ap"),
            answer_pointer=data.get("aj"),
            tests=tuple(data.get("ts", ())),
            setup=data.get("su", ""),
            entry_point=data.get("ep"),
            by_behaviour=data.get("bb", False),
            turns=tuple(data.get("ut", ())),
            category=data.get("cg"),
            actions=tuple(data.get("ac", ())),
        ),
        policy=decode_policy(policy) if isinstance(policy, str) else policy,
        requested_model=data["r"],
        seed=seed,
        options=CallerOptions(
            max_tokens=data.get("mt"),
            temperature=data.get("t"),
            top_p=data.get("tp"),
            stop=tuple(data.get("sp", ())),
            choices_n=data.get("n", 1),
        ),
        on_budget=OnBudget(on_budget),
        store=StoreLevel(data.get("st", StoreLevel.ANSWERS.value)),
        max_cost=None if "mc" not in data else NanoUSD(data["mc"]),
        provider_batch=ProviderBatch(data.get("pb", ProviderBatch.AUTO.value)),
        form=decode_form(data.get("rf")),
        cache=Cache(data.get("ca", Cache.OFF.value)),
        own_seed="os" in data,
    )


def encode_usage(usage: TokenUsage) -> list[int]:
    """Five counts: prompt, cached, completion, reasoning, calls."""
    return [usage.prompt, usage.cached, usage.completion, usage.reasoning, usage.calls]


def decode_usage(data: list[int]) -> TokenUsage:
    """The inverse of `encode_usage`."""
    return TokenUsage(*data)


def encode_step(step: FinishedStep) -> str:
    """One finished step with all its samples, as JSON text."""
    data: Json = {
        "name": step.name,
        "stage": int(step.stage),
        "tier": step.tier.value,
        "model": step.model,
        "n": step.n,
        "samples": [_sample(sample) for sample in step.samples],
        "why": step.reason,
        "prompts": step.prompt_version,
        "from": step.started_at.isoformat(),
        "to": step.finished_at.isoformat(),
        "u": encode_usage(step.usage),
        "cost": step.cost,
    }
    if step.price_version is not None:
        data["price"] = step.price_version
    if step.stopped_early is not None:
        data["early"] = step.stopped_early
    if step.reused_from is not None:
        data["of"] = step.reused_from
    if step.scoring is not None:
        data["how"] = step.scoring
    return orjson.dumps(data).decode()


def _sample(sample: Sample) -> Json:
    data: Json = {"i": sample.index, "s": sample.status.value, "u": encode_usage(sample.usage)}
    texts = {
        "p": sample.plan,
        "x": sample.solution,
        "a": sample.answer,
        "key": sample.key,
        "f": sample.finish_reason,
        "e": sample.error,
    }
    data.update({name: text for name, text in texts.items() if text is not None})
    if sample.tests_passed is not None:
        data["tp"] = sample.tests_passed
    if sample.mean_logprob is not None:
        data["lp"] = sample.mean_logprob
    if sample.solution_usage != sample.usage:
        data["xu"] = encode_usage(sample.solution_usage)
    return data


def decode_step(text: str) -> FinishedStep:
    """The inverse of `encode_step`."""
    data: Json = orjson.loads(text)
    return FinishedStep(
        name=data["name"],
        stage=Stage(data["stage"]),
        tier=Tier(data["tier"]),
        model=data["model"],
        n=data["n"],
        samples=tuple(_decode_sample(sample) for sample in data["samples"]),
        reason=data["why"],
        prompt_version=data["prompts"],
        started_at=datetime.fromisoformat(data["from"]),
        finished_at=datetime.fromisoformat(data["to"]),
        usage=decode_usage(data["u"]),
        cost=NanoUSD(data["cost"]),
        price_version=data.get("price"),
        stopped_early=data.get("early"),
        reused_from=data.get("of"),
        scoring=data.get("how"),
    )


def _decode_sample(data: Mapping[str, Any]) -> Sample:
    usage = decode_usage(data["u"])
    key = cast("str | None", data.get("key"))
    return Sample(
        index=data["i"],
        status=SampleStatus(data["s"]),
        plan=data.get("p"),
        solution=data.get("x"),
        answer=data.get("a"),
        key=None if key is None else AnswerKey(key),
        finish_reason=data.get("f"),
        error=data.get("e"),
        tests_passed=data.get("tp"),
        usage=usage,
        solution_usage=decode_usage(data["xu"]) if "xu" in data else usage,
        mean_logprob=data.get("lp"),
    )


def prune_step(step: FinishedStep, level: StoreLevel, kept: frozenset[int]) -> FinishedStep:
    """What a finished task keeps of a step at its store level.

    `full`: everything. `answers`: every answer and key, and the texts of the samples in `kept` (plans that were used,
    the solution returned). `none`: counts and decisions only, no text at all.
    """
    if level is StoreLevel.FULL:
        return step
    if level is StoreLevel.NONE:
        return replace(step, samples=tuple(_without_text(s, answers=False) for s in step.samples))
    return replace(step, samples=tuple(s if s.index in kept else _without_text(s, answers=True) for s in step.samples))


def _without_text(sample: Sample, *, answers: bool) -> Sample:
    if answers:
        return replace(sample, plan=None, solution=None)
    return replace(sample, plan=None, solution=None, answer=None, key=None)
