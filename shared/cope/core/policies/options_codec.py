"""How the baselines' options are written down with their policy: absent keys mean the default."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from cope.core.policies.options import NO_OPTIONS, BaselineOptions, PlanKind, Seat
from cope.core.scorer import decode_scorer, encode_scorer
from cope.core.stages import Tier

Json = dict[str, Any]


def encode_options(options: BaselineOptions) -> Json:
    """JSON values; empty for a policy that has none of them."""
    data: Json = {}
    if options.prompt_sets:
        data["prompt_sets"] = list(options.prompt_sets)
    if options.tiers:
        data["tiers"] = [[_seat(seat) for seat in tier] for tier in options.tiers]
    if options.samples_per_model != NO_OPTIONS.samples_per_model:
        data["samples_per_model"] = options.samples_per_model
    if options.agreement != NO_OPTIONS.agreement:
        data["agreement"] = str(options.agreement)
    if options.scorer is not None:
        data["scorer"] = encode_scorer(options.scorer)
    if options.planner is not None:
        data["planner"] = _seat(options.planner)
    if options.executor is not None:
        data["executor"] = _seat(options.executor)
    if options.plan is not NO_OPTIONS.plan:
        data["plan"] = options.plan.value
    return data


def decode_options(data: Mapping[str, Any]) -> BaselineOptions:
    """The inverse of `encode_options`."""
    return BaselineOptions(
        prompt_sets=tuple(data.get("prompt_sets", ())),
        tiers=tuple(tuple(_decode_seat(seat) for seat in tier) for tier in data.get("tiers", ())),
        samples_per_model=data.get("samples_per_model", NO_OPTIONS.samples_per_model),
        agreement=Fraction(data.get("agreement", NO_OPTIONS.agreement)),
        scorer=decode_scorer(data["scorer"]) if "scorer" in data else None,
        planner=_decode_seat(data["planner"]) if "planner" in data else None,
        executor=_decode_seat(data["executor"]) if "executor" in data else None,
        plan=PlanKind(data.get("plan", NO_OPTIONS.plan)),
    )


def _seat(seat: Seat) -> list[str]:
    return [seat.model, seat.tier.value]


def _decode_seat(data: list[str]) -> Seat:
    model, tier = data
    return Seat(model, Tier(tier))
