"""The lossless stopping rule (cascade, section 6): end a vote once its decision can no longer change.

Both bounds are exact: a vote is open only while some completion of it would decide otherwise. So decisions equal those
of the full vote in any order of arrival, and none waits longer than it must.
"""

from collections.abc import Collection, Sequence
from enum import StrEnum

from cope.core.history import Sample
from cope.core.stages import StragglerRule
from cope.core.vote import Vote, tally


class VoteState(StrEnum):
    """What a vote under way already says."""

    OPEN = "open"
    ACCEPT = "accept"
    ESCALATE = "escalate"


def vote_state(vote: Vote, outstanding: Collection[int], needed: int) -> VoteState:
    """`outstanding` are the indices of samples still to come; `needed` ≥ 1 equal answers accept.

    Escalate iff even the leader plus every outstanding sample stays below `needed`. Accept iff the leader has `needed`
    votes and no other class, met or not, can come to win: a class that could only draw level loses the tie where the
    leader's lowest index is below both its own and every outstanding one.
    """
    left = len(outstanding)
    leader = vote.winner
    if (leader.count if leader else 0) + left < needed:
        return VoteState.ESCALATE
    if leader is None or leader.count < needed:
        return VoteState.OPEN
    if not left or 2 * leader.count > vote.n:
        return VoteState.ACCEPT
    wins_ties = leader.indices[0] < min(outstanding)
    rivals = [(rival.count, rival.indices[0]) for rival in vote.classes[1:]]
    for count, lowest in (*rivals, (0, vote.n)):  # the last: a class of which nothing has arrived
        level = count + left == leader.count and wins_ties and leader.indices[0] < lowest
        if count + left >= leader.count and not level:
            return VoteState.OPEN
    return VoteState.ACCEPT


def may_stop(ended: Sequence[Sample], n: int, needed: int, stragglers: StragglerRule) -> VoteState:
    """Whether the samples still to come may be done without. Chains that failed for good are among `ended`: they count
    as unparsable.

    With `StragglerRule.FULL` an escalation waits for the last sample, so that p1* is drawn among all of them.
    """
    outstanding = set(range(n)) - {sample.index for sample in ended}
    state = vote_state(tally(tuple(ended), n), outstanding, needed)
    if state is VoteState.ESCALATE and stragglers is StragglerRule.FULL and outstanding:
        return VoteState.OPEN
    return state
