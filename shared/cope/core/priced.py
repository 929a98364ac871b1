"""Whether everything that a policy may call has a price in force."""

from datetime import datetime
from typing import assert_never

from cope.core.errors import BadRequest, Unpriced
from cope.core.models import ModelCatalog
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.prices import PriceTable
from cope.core.stages import Tier


def models_of(policy: PolicySpec) -> tuple[str, ...]:
    """The models that steps of this policy may call."""
    match policy.name:
        case (
            PolicyName.COPE
            | PolicyName.COPE_S2
            | PolicyName.CASCADE_VOTE
            | PolicyName.CASCADE_VERIFY
            | PolicyName.SMALL_GUIDED
        ):
            return policy.small, policy.large
        case PolicyName.SMALL | PolicyName.SMALL_MAJORITY | PolicyName.SMALL_MULTI:
            return (policy.small,)
        case PolicyName.LARGE | PolicyName.LARGE_PLAN | PolicyName.AUDIT:
            return (policy.large,)
        case PolicyName.ABC | PolicyName.FRUGALGPT:
            return tuple(seat.model for tier in policy.baseline.tiers for seat in tier)
        case PolicyName.PLAN_EXECUTE:
            seats = (policy.baseline.planner, policy.baseline.executor)
            return tuple(seat.model for seat in seats if seat is not None)
        case PolicyName.PASSTHROUGH:
            return (policy.small if policy.passthrough_tier is Tier.SMALL else policy.large,)
        case _:
            assert_never(policy.name)


def refuse_unpriced(
    policy: PolicySpec, catalog: ModelCatalog, prices: PriceTable, now: datetime, *, param: str = "model"
) -> None:
    """Raises `BadRequest` (code `model_not_priced`) with the command that adds the missing price."""
    for name in models_of(policy):
        try:
            for served in catalog.entry(name, param=param).variants:
                prices.of_model(served, now)
        except Unpriced as missing:
            raise BadRequest(missing.message, param=param, code=missing.code) from None
