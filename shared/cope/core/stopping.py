"""The lossless stopping rule (cascade, section 6): end a vote once its decision can no longer change.

Both bounds are monotone in the final count, so decisions equal those of the full vote in any order of arrival.
"""

from enum import StrEnum

from cope.core.history import Sample
from cope.core.stages import StragglerRule
from cope.core.vote import Vote, tally


class VoteState(StrEnum):
    """What a vote under way already says."""

    OPEN = "open"
    ACCEPT = "accept"
    ESCALATE = "escalate"


def vote_state(vote: Vote, outstanding: int, needed: int) -> VoteState:
    """`outstanding` samples are still to come, `needed` equal answers accept.

    Escalate iff even the leader plus every outstanding sample stays below `needed`. Accept iff the leader has
    `needed` votes and its class can no longer lose the lead: a runner-up may still draw level only where the tie rule
    (smallest lowest index) already favours the leader, and outstanding samples may have smaller indices than any seen,
    so level is not enough unless no sample is outstanding.
    """
    leader = vote.classes[0].count if vote.classes else 0
    if leader + outstanding < needed:
        return VoteState.ESCALATE
    if leader < needed:
        return VoteState.OPEN
    if outstanding == 0 or 2 * leader > vote.n:
        return VoteState.ACCEPT
    second = vote.classes[1].count if len(vote.classes) > 1 else 0
    return VoteState.ACCEPT if leader > second + outstanding else VoteState.OPEN


def may_stop(arrived: tuple[Sample, ...], n: int, lost: int, needed: int, stragglers: StragglerRule) -> VoteState:
    """Whether the samples still running may be aborted. `lost` chains failed for good: they count as unparsable.

    With `StragglerRule.FULL` an escalation waits for the last sample, so that p1* is drawn among all of them.
    """
    outstanding = n - len(arrived) - lost
    state = vote_state(tally(arrived, n), outstanding, needed)
    if state is VoteState.ESCALATE and stragglers is StragglerRule.FULL and outstanding > 0:
        return VoteState.OPEN
    return state
