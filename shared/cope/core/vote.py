"""Majority vote by canonical answer key (paper, section 4, eq. 1). Independent of the order of arrival."""

from dataclasses import dataclass
from fractions import Fraction

from cope.core.answers.model import AnswerKey
from cope.core.history import Sample


@dataclass(frozen=True, slots=True)
class VoteClass:
    """All samples with one answer key. `indices` ascend; `answer` is the lowest-indexed sample's own wording."""

    key: AnswerKey
    answer: str
    indices: tuple[int, ...]

    @property
    def count(self) -> int:
        """Votes of this class, ≥ 1."""
        return len(self.indices)


@dataclass(frozen=True, slots=True)
class Vote:
    """The classes, largest first; `n` is the number of samples asked for, which every share is measured against."""

    classes: tuple[VoteClass, ...]
    n: int

    @property
    def winner(self) -> VoteClass | None:
        """The largest class, ties to the class whose lowest index is smallest; None when no answer was parsable."""
        return self.classes[0] if self.classes else None

    @property
    def consensus_ratio(self) -> Fraction:
        """Votes of the largest class / n, in [0, 1]. Unparsable answers count below the line only."""
        return Fraction(self.classes[0].count, self.n) if self.classes else Fraction(0)


def tally(samples: tuple[Sample, ...], n: int) -> Vote:
    """Count the answers that arrived. Raises `ValueError` if there are more than `n` of them or an index twice."""
    by_key: dict[AnswerKey, list[Sample]] = {}
    indices = [sample.index for sample in samples]
    if len(set(indices)) != len(indices) or len(indices) > n:
        raise ValueError(f"{len(indices)} samples for n = {n}, or one of them twice")
    for sample in sorted(samples, key=lambda s: s.index):
        if sample.key is not None and sample.answer is not None:
            by_key.setdefault(sample.key, []).append(sample)
    classes = [
        VoteClass(key, members[0].answer or "", tuple(member.index for member in members))
        for key, members in by_key.items()
    ]
    classes.sort(key=lambda c: (-c.count, c.indices[0]))
    return Vote(tuple(classes), n)
