"""Schemas that several areas share: the `cope` blocks and usage."""

from cope.core.answers.actions import MAX_ACTION_CHARS
from cope.core.policies.options import MAX_TIER_MODELS, MAX_TIERS, PlanKind
from cope.core.policies.spec import MAX_SAMPLES, PolicyName, Temperatures
from cope.core.problem import Kind
from cope.core.programs import MAX_TESTS
from cope.core.request import BATCH_ONLY_KEYS, MAX_CHOICES, MAX_PATTERN, MAX_PILOT, MAX_PRIORITY, SERVED_KINDS
from cope.core.request_actions import MAX_ACTIONS
from cope.core.request_code import CHOOSE, MAX_NAME, MAX_SETUP
from cope.core.request_open import MAX_TURNS
from cope.core.request_policy import COPE_POLICY_KEYS, SELECTABLE
from cope.core.stages import StopRule, StragglerRule, Tier
from cope.core.task import Cache, OnBudget, ProviderBatch, StoreLevel
from cope.core.theta import MAX_CATEGORIES, MAX_CATEGORY_CHARS
from cope_api.openapi.shapes import (
    ID,
    NANO,
    USD,
    USD_IN,
    array,
    closed,
    const,
    either,
    flag,
    mapping,
    named,
    nullable,
    number,
    one_of,
    record,
    text,
    whole,
)

BIG = 2**63 - 1
THRESHOLD = either(text("Such as 0.75 or 3/4.", low=1, high=32), number(low=0, high=1), about="A ratio from 0 to 1.")
COUNTS = mapping(whole(low=0))

_THETA = either(text('Such as "3.2".', low=1, high=64), number(low=1))
_LINE = {
    "kind": one_of([kind.value for kind in SERVED_KINDS], "How answers are judged. Default: the project's."),
    "policy": text(f"One of {', '.join(SELECTABLE)}; thresholds may follow: cope@0.75,0.5.", low=1, high=256),
    "small": text("A configured model of the small tier.", low=1, high=256),
    "large": text("A configured model of the large tier.", low=1, high=256),
    "n": whole("Samples of each vote.", low=1, high=MAX_SAMPLES),
    "tau1": {**THRESHOLD, "description": "Share of the votes that ends Stage 1. Default 0.75."},
    "tau2": {**THRESHOLD, "description": "The same of Stage 2. Default 0.5."},
    "threshold_rule": one_of(["at_least", "exceeds"]),
    "max_stage": whole("2: Stage 2's majority is the answer.", low=2, high=3),
    "temperatures": closed({}, optional={name: number(low=0, high=2) for name in Temperatures.__dataclass_fields__}),
    "prompt_set": text("A configured prompt set.", low=1),
    "stop": one_of([rule.value for rule in StopRule], "Whether a decided vote ends at once."),
    "p1_star": one_of([rule.value for rule in StragglerRule]),
    "waves": array(whole(low=1, high=MAX_SAMPLES), "Samples launched together; n in all. Default: all at once.", low=1),
    "prompt_sets": array(text(low=1, high=256), "Policies cascade-*: sets that share the samples.", low=1, high=4),
    "tiers": array(
        array(text(low=1, high=256), low=1, high=MAX_TIER_MODELS),
        "Policies abc, frugalgpt: models by tier, the last of one.",
        low=2,
        high=MAX_TIERS,
    ),
    "samples_per_model": whole("Policy abc: samples of each model of a tier.", low=1, high=MAX_SAMPLES),
    "agreement": {**THRESHOLD, "description": "Policy abc: share of a tier's votes that accepts. Default 1."},
    "scorer": text("Policy frugalgpt: a configured scorer.", low=1, high=256),
    "planner": text("Policy plan-execute: the model that plans.", low=1, high=256),
    "executor": text("Policy plan-execute: the model that solves.", low=1, high=256),
    "plan": one_of([kind.value for kind in PlanKind], "Policy plan-execute: what is planned."),
    "seed": nullable(whole("Draws the same plan again.", low=-BIG - 1, high=BIG)),
    "choices": array(text(low=1, high=10_000), "Kind choice: what to choose from.", low=2, high=MAX_CHOICES),
    "answer_pattern": nullable(text("Kind exact: a regular expression of the answer.", low=1, high=MAX_PATTERN)),
    "answer_pointer": nullable(text("Kind exact: a JSON pointer to the answer.", high=MAX_PATTERN)),
    "tests": nullable(
        array(text(low=1, high=10_000), "Kind code: the visible tests, statements.", low=1, high=MAX_TESTS)
    ),
    "setup": nullable(text("Kind code: what runs before the tests.", high=MAX_SETUP)),
    "entry_point": nullable(text("Kind code: the function that the program must define.", low=1, high=MAX_NAME)),
    "choose": nullable(one_of(CHOOSE, "Kind code: which of the passing programs is the answer.")),
    "theta": either(
        _THETA,
        {"type": "object", "additionalProperties": _THETA, "minProperties": 1, "maxProperties": MAX_CATEGORIES},
        about="Kind open: the perplexity that accepts, or one for each category.",
    ),
    "category": nullable(text("Kind open: which threshold judges it.", low=1, high=MAX_CATEGORY_CHARS)),
    "turns": nullable(
        array(text(low=1, high=10_000), "Kind open: the user's later turns, a cascade each.", low=1, high=MAX_TURNS)
    ),
    "actions": nullable(
        array(text(low=1, high=MAX_ACTION_CHARS), "Kind action: the admissible ones.", low=1, high=MAX_ACTIONS)
    ),
    "on_budget": nullable(one_of([way.value for way in OnBudget], "When the money runs out.")),
    "priority": whole("Lower goes first.", low=0, high=MAX_PRIORITY),
    "store": one_of([level.value for level in StoreLevel], "What of the samples' texts is kept."),
    "cache": one_of([way.value for way in Cache], "Whether a stored result of an identical task will do."),
    "max_cost_usd": nullable(USD_IN),
    "provider_batch": one_of([way.value for way in ProviderBatch], "Whether a paid step may wait for half price."),
}
POLICY_OPTIONS = {name: schema for name, schema in _LINE.items() if name in COPE_POLICY_KEYS}
LINE_COPE = named("CopeOptions", closed({}, "How one task is solved. Unknown keys are refused.", optional=_LINE))
_BATCH = {
    "webhook_url": nullable(text("Where the batch's end is told.", low=1, high=2000)),
    "order": one_of(["completion", "input"], "Of the result lines."),
    "dry_run": either(
        flag(), closed({}, optional={"pilot_lines": whole(low=0, high=MAX_PILOT)}), {"type": "null"},
        about="A quote instead of answers; it costs nothing.",
    ),
    "audit_share": nullable(either(text('Such as "0.02".', low=1, high=32), number(low=0, high=1))),
    "open": nullable(flag("It begins without lines and takes some until it is sealed.")),
}  # fmt: skip
assert set(_BATCH) == BATCH_ONLY_KEYS
BATCH_COPE = named(
    "CopeBatchOptions",
    closed({}, "What concerns the batch, and defaults for its lines.", optional={**_LINE, **_BATCH}),
)

CHAT_USAGE = named(
    "CompletionUsage",
    record(
        {
            "prompt_tokens": whole(low=0),
            "completion_tokens": whole(low=0),
            "total_tokens": whole(low=0),
            "prompt_tokens_details": record({"cached_tokens": whole(low=0)}),
            "completion_tokens_details": record({"reasoning_tokens": whole(low=0)}),
        },
        "What the returned solutions took; the cascade's whole consumption is in `cope.usage`.",
    ),
)
TIER_USAGE = {"allOf": [CHAT_USAGE, record({"calls": whole(low=0)})]}
RESULT_COPE = named(
    "CopeResult",
    record(
        {
            "task_id": ID,
            "policy": one_of([name.value for name in PolicyName]),
            "kind": one_of([kind.value for kind in Kind]),
            "stage": whole("The stage that answered.", low=1, high=3),
            "accepted": flag("Whether the vote was confident enough, or the last stage was reached."),
            "reason": text("Why this answer, in words."),
            "confidence": nullable(number("Votes of the winning class / n; null where there was no vote.")),
            "threshold": nullable(number()),
            "answer": nullable(text("As it was read out of the solution.")),
            "answer_key": nullable(text("Its canonical form: equal keys are one vote class.")),
            "degraded": flag("The money ran out, and this is the small model's majority."),
            "votes": array(record({"answer_key": text(), "answer": text(), "count": whole(low=1)})),
            "cost_usd": USD,
            "cost_nanousd": NANO,
            "price_version": nullable(text()),
            "prompt_version": nullable(text()),
            "usage": record({tier.value: TIER_USAGE for tier in Tier}),
            "steps": array(
                record(
                    {
                        "name": text(),
                        "stage": whole(low=1, high=3),
                        "role": one_of(["planner", "executor", "planner+executor"]),
                        "model": text(),
                        "n": whole(low=1),
                        "finished": whole(low=0),
                        "reason": text(),
                        "stopped_early": nullable(text()),
                        "prompt_tokens": whole(low=0),
                        "cached_tokens": whole(low=0),
                        "completion_tokens": whole(low=0),
                        "cost_nanousd": NANO,
                        "started_at": text("ISO 8601."),
                        "finished_at": text("ISO 8601."),
                    },
                    optional={
                        "reused_from": text("The task that carried it out, where a retry took it over."),
                        "confidence": number("The share of the largest vote class, or the lowest perplexity."),
                        "scoring": text("How the samples' log-probabilities were obtained and are read."),
                    },
                )
            ),
        },
        "How the answer came about.",
        optional={
            "cached": const(True),
            "cached_from": text("The identical task whose stored result this is; nothing was charged for it."),
            "category": text(),
            "turns": array(
                record(
                    {
                        "content": text(),
                        "stage": whole(low=1, high=3),
                        "accepted": flag(),
                        "confidence": nullable(number()),
                        "reason": text(),
                    }
                ),
                "Kind open with later turns: every turn's answer, in order.",
            ),
        },
    ),
)
