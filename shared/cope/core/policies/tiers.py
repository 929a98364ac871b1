"""What the policies with tiers of models share: the names of their steps, and which stage a tier counts as."""

from cope.core.stages import Stage

SOLVE = "solve"


def tier_step(place: int, seat: int = 0) -> str:
    """The step of model `seat` of tier `place`, both from 0: ``tier1`` is the first, ``tier1-2`` beside it."""
    return f"tier{place + 1}" if seat == 0 else f"tier{place + 1}-{seat + 1}"


def stage_of(place: int, tiers: int) -> Stage:
    """First, in between, last: a tier is counted as the stage that stands where it does in the paper's cascade."""
    if place == 0:
        return Stage.SMALL_PLANS_AND_EXECUTES
    return Stage.LARGE_EXECUTES if place == tiers - 1 else Stage.LARGE_PLANS_SMALL_EXECUTES
