"""One vote over the samples of several steps: the prompt sets of a cascade, the models of a tier.

Each step is one part of the vote, with the same number of samples; sample i of part p votes with index p · size + i. So
ties go to the first part, and a vote does not depend on which part was carried out first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from cope.core.history import FinishedStep
from cope.core.policies.common import no_sample
from cope.core.policies.decision import Accept, Stop
from cope.core.stages import Stage
from cope.core.stopping import VoteState, vote_state
from cope.core.vote import Vote, tally


@dataclass(frozen=True, slots=True)
class Pool:
    """The finished parts of a vote, in order, of `parts` ≥ 1 altogether with `size` ≥ 1 samples each."""

    steps: tuple[FinishedStep, ...]
    parts: int
    size: int

    @property
    def n(self) -> int:
        """Samples of the whole vote: what shares are measured against."""
        return self.parts * self.size

    @property
    def complete(self) -> bool:
        """Whether every part has been carried out."""
        return len(self.steps) == self.parts

    @property
    def vote(self) -> Vote:
        """The vote over what has arrived so far."""
        arrived = [
            replace(sample, index=part * self.size + sample.index)
            for part, step in enumerate(self.steps)
            for sample in step.arrived
        ]
        return tally(tuple(arrived), self.n)

    def hopeless(self, needed: int) -> bool:
        """Whether so many equal answers can't come together any more (cascade, section 6): the parts that are left
        need not be asked."""
        outstanding = range(len(self.steps) * self.size, self.n)
        return vote_state(self.vote, outstanding, needed) is VoteState.ESCALATE

    def accept(self, stage: Stage, *, accepted: bool, reason: str, threshold: Fraction | None = None) -> Accept | Stop:
        """The majority's answer. With none that could be read: the first solution that arrived, unaccepted; with none
        at all a `Stop`. The pool has at least one step."""
        vote = self.vote
        if vote.winner is not None:
            step, index = self._sample(vote.winner.indices[0])
        else:
            arrived = [(step, sample.index) for step in self.steps for sample in step.arrived]
            if not arrived:
                return no_sample(self.steps[0])
            (step, index), accepted = arrived[0], False
            reason = f"none of {self.n} answers could be read"
        return Accept(
            step=step.name,
            sample_index=index,
            stage=stage,
            accepted=accepted,
            reason=reason,
            confidence=vote.consensus_ratio,
            threshold=threshold,
            vote=vote,
        )

    def _sample(self, index: int) -> tuple[FinishedStep, int]:
        part, within = divmod(index, self.size)
        return self.steps[part], within


def leading(vote: Vote) -> int:
    """Votes of the largest class, 0 where nothing could be read."""
    return vote.winner.count if vote.winner is not None else 0


def pool_of(steps: Sequence[FinishedStep | None], size: int) -> Pool:
    """The parts up to the first that has not been carried out."""
    done: list[FinishedStep] = []
    for step in steps:
        if step is None:
            break
        done.append(step)
    return Pool(tuple(done), len(steps), size)
