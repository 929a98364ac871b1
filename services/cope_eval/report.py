"""What a run comes to: success with its interval, steps, spend and how often the large model was asked."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cope.core.chances import share_interval
from cope.core.money import NanoUSD, format_usd
from cope_eval.dialogue import Decision
from cope_eval.journal import Journal, Result


@dataclass(frozen=True, slots=True)
class Summary:
    """Of the finished games, and of all decisions that were made, those of unfinished games included.

    `low` and `high` are Wilson's 95 % interval of the share won. `mean_steps` is None where no game is finished.
    `escalated` counts the decisions for which the large model was asked at least once.
    """

    games: int
    won: int
    low: float
    high: float
    mean_steps: float | None
    decisions: int
    invalid: int
    escalated: int
    large_calls: int
    small_calls: int
    spent: NanoUSD
    by_stage: dict[int, int]
    by_kind: dict[str, tuple[int, int]]

    def as_json(self) -> dict[str, object]:
        """For scripts."""
        return {
            "games": self.games,
            "won": self.won,
            "success": None if not self.games else self.won / self.games,
            "success_95": [self.low, self.high],
            "mean_steps": self.mean_steps,
            "decisions": self.decisions,
            "invalid_decisions": self.invalid,
            "escalated_decisions": self.escalated,
            "large_share": None if not self.decisions else self.escalated / self.decisions,
            "large_calls": self.large_calls,
            "small_calls": self.small_calls,
            "by_stage": {str(stage): count for stage, count in sorted(self.by_stage.items())},
            "by_kind": {kind: {"won": won, "games": games} for kind, (won, games) in sorted(self.by_kind.items())},
            "spent_usd": format_usd(self.spent),
            "spent_nanousd": int(self.spent),
        }


def summarise(journal: Journal) -> Summary:
    """The journal so far."""
    results: Sequence[Result] = list(journal.results.values())
    decisions: Sequence[Decision] = [one for made in journal.decisions.values() for one in made]
    won = sum(result.won for result in results)
    low, high = share_interval(won, len(results))
    kinds: dict[str, tuple[int, int]] = {}
    for result in results:
        before = kinds.get(result.kind, (0, 0))
        kinds[result.kind] = before[0] + result.won, before[1] + 1
    return Summary(
        games=len(results),
        won=won,
        low=low,
        high=high,
        mean_steps=sum(result.steps for result in results) / len(results) if results else None,
        decisions=len(decisions),
        invalid=sum(decision.action is None for decision in decisions),
        escalated=sum(decision.large_calls > 0 for decision in decisions),
        large_calls=sum(decision.large_calls for decision in decisions),
        small_calls=sum(decision.small_calls for decision in decisions),
        spent=NanoUSD(sum(decision.cost_nanousd for decision in decisions)),
        by_stage=dict(Counter(decision.stage for decision in decisions if decision.stage is not None)),
        by_kind=kinds,
    )


def seconds_left(so_far: Summary, *, games: int, max_steps: int, now_made: int, elapsed_s: float) -> float | None:
    """A guess at the time that `games` still take; None before this run's first decision (`now_made` in `elapsed_s`).

    Games under way are taken to last as long as the finished ones did, or half of what is allowed before any has.
    """
    if now_made == 0:
        return None
    per_game = max_steps / 2 if so_far.mean_steps is None else so_far.mean_steps
    left = max(games * per_game - so_far.decisions, float(games - so_far.games))
    return left * elapsed_s / now_made
