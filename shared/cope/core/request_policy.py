"""Which policy a request asks for, with which parameters: from `model`, the line's `cope` block and the batch's.

Precedence, first found wins: the line's `cope.policy`, a policy named in the line's `model` (``cope@0.75,0.5``), the
batch's `cope.policy`, and last a configured model named in `model`, which is a single call passed through. Where a
policy is named apart, a configured model in `model` takes its tier's place in that policy.
"""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from cope.core.confidence import ThresholdRule, parse_threshold
from cope.core.errors import BadRequest
from cope.core.models import ModelCatalog
from cope.core.policies.spec import MAX_SAMPLES, PolicyName, PolicySpec, Temperatures
from cope.core.request_baselines import (
    BASELINE_KEYS,
    options_for,
    refuse_placed_model,
    thresholds_of,
    with_baseline,
)
from cope.core.request_values import as_choice, as_int, as_mapping, as_number, as_text
from cope.core.stages import StopRule, StragglerRule, Tier
from cope.core.theta import parse_theta
from cope.core.waves import as_waves, check_waves

COPE_POLICY_KEYS = BASELINE_KEYS | frozenset(
    {
        "policy",
        "small",
        "large",
        "n",
        "tau1",
        "tau2",
        "threshold_rule",
        "max_stage",
        "temperatures",
        "prompt_set",
        "stop",
        "p1_star",
        "waves",
        "theta",
    }
)
LATER_COPE_KEYS = frozenset({"on_expiry"})
VOTING = frozenset({PolicyName.COPE, PolicyName.COPE_S2, PolicyName.SMALL_MAJORITY, PolicyName.SMALL_MULTI})
"""The policies whose samples vote, so that `waves` means something."""
SELECTABLE = tuple(name.value for name in PolicyName if name not in {PolicyName.PASSTHROUGH, PolicyName.AUDIT})
_TEMPERATURES = tuple(Temperatures.__dataclass_fields__)


def resolve_policy(
    model: str, own: Mapping[str, object], defaults: Mapping[str, object], catalog: ModelCatalog
) -> PolicySpec:
    """The policy of one request. `own` and `defaults` are `cope` blocks. Raises `BadRequest` naming the key."""
    merged = {**{key: defaults[key] for key in COPE_POLICY_KEYS if key in defaults}, **own}
    named, at = _split(model)
    if "policy" in own:
        name = own["policy"]
    elif named in SELECTABLE:
        name = model
    else:
        name = merged.get("policy")
    if name is None:
        return _passthrough(model, merged, catalog)
    policy_name, at = _split(as_text(name, "cope.policy", longest=256))
    param = "model" if name is model else "cope.policy"
    blank = _blank(policy_name, param, catalog)
    policy = thresholds_of(blank, at, param, _tau)
    policy = _place_model(policy, model, named, catalog)
    if "waves" not in own and policy.name not in VOTING:
        merged.pop("waves", None)  # a batch's default is for those of its lines that vote
    fitting = options_for(policy.name, own, merged)
    return _checked(with_baseline(_override(policy, fitting, catalog), fitting, catalog, _tau))


def _split(text: str) -> tuple[str, str | None]:
    name, at, thresholds = text.partition("@")
    return name, thresholds if at else None


def _blank(name: str, param: str, catalog: ModelCatalog) -> PolicySpec:
    policy = PolicyName(as_choice(name, param, SELECTABLE))
    return PolicySpec(
        name=policy,
        small=catalog.default_small,
        large=catalog.default_large,
        max_stage=2 if policy is PolicyName.COPE_S2 else 3,
    )


def _tau(value: object, param: str) -> Fraction:
    if not isinstance(value, (str, int, float)):
        raise BadRequest(f"`{param}` must be a number between 0 and 1.", param=param)
    try:
        return parse_threshold(value)
    except ValueError as wrong:
        raise BadRequest(f"`{param}`: {wrong}.", param=param) from None


def _place_model(policy: PolicySpec, model: str, named: str, catalog: ModelCatalog) -> PolicySpec:
    if named in SELECTABLE:
        return policy
    refuse_placed_model(policy.name)
    entry = catalog.entry(model, param="model")
    return replace(policy, **_named(entry.tier, model))


def _passthrough(model: str, merged: Mapping[str, object], catalog: ModelCatalog) -> PolicySpec:
    if model not in catalog.entries:
        known = ", ".join((*SELECTABLE, *sorted(catalog.entries)))
        raise BadRequest(
            f"`model` names no policy and no configured model. Known: {known}.", param="model", code="model_not_found"
        )
    for key in merged:
        raise BadRequest(
            f"`cope.{key}` needs a policy, but `model` names a single model: set `cope.policy` too.",
            param=f"cope.{key}",
        )
    tier = catalog.entries[model].tier
    return replace(
        PolicySpec(PolicyName.PASSTHROUGH, catalog.default_small, catalog.default_large, n=1, passthrough_tier=tier),
        **_named(tier, model),
    )


def _named(tier: Tier, model: str) -> dict[str, Any]:
    return {tier.value: model}


def _override(policy: PolicySpec, cope: Mapping[str, object], catalog: ModelCatalog) -> PolicySpec:
    changes: dict[str, Any] = {}
    for key, value in cope.items():
        param = f"cope.{key}"
        match key:
            case "small" | "large":
                name = as_text(value, param, longest=256)
                if catalog.entry(name, param=param).tier is not Tier(key):
                    raise BadRequest(f"Model {name!r} is not of the {key} tier.", param=param)
                changes[key] = name
            case "n":
                changes["n"] = as_int(value, param, low=1, high=MAX_SAMPLES)
            case "tau1" | "tau2":
                changes[key] = _tau(value, param)
            case "threshold_rule":
                changes[key] = ThresholdRule(as_choice(value, param, tuple(ThresholdRule)))
            case "max_stage":
                stage = as_int(value, param, low=2, high=3)
                if policy.name is PolicyName.COPE_S2 and stage != 2:
                    raise BadRequest("Policy `cope-s2` ends with Stage 2; use `cope` for three stages.", param=param)
                changes[key] = stage
            case "temperatures":
                changes[key] = _temperatures(value, param)
            case "prompt_set":
                changes[key] = as_choice(value, param, tuple(catalog.prompt_sets))
            case "stop":
                changes[key] = StopRule(as_choice(value, param, tuple(StopRule)))
            case "theta":
                changes[key] = parse_theta(value, param)
            case "p1_star":
                changes[key] = StragglerRule(as_choice(value, param, tuple(StragglerRule)))
            case "waves":
                changes[key] = as_waves(value, param)
            case _:
                continue
    return replace(policy, **changes)


def _checked(policy: PolicySpec) -> PolicySpec:
    """The policy, once its parameters are found to agree with each other."""
    param = "cope.waves"
    if policy.waves and policy.name not in VOTING:
        raise BadRequest(f"Policy {policy.name.value!r} takes no vote: leave `{param}` out.", param=param)
    if policy.waves and policy.stop is StopRule.OFF:
        raise BadRequest(
            f"`{param}` only delays a vote that never stops early: leave it out, or set `cope.stop` to lossless.",
            param=param,
        )
    check_waves(policy.waves, policy.n, param)
    return policy


def _temperatures(value: object, param: str) -> Temperatures:
    given = as_mapping(value, param)
    for key in given:
        if key not in _TEMPERATURES:
            raise BadRequest(
                f"Unknown key `{key}` in `{param}`. Known keys: {', '.join(_TEMPERATURES)}.", param=f"{param}.{key}"
            )
    return Temperatures(**{key: as_number(t, f"{param}.{key}", low=0, high=2) for key, t in given.items()})
