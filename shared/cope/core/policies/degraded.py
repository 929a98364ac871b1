"""The best answer that costs nothing more: what `on_budget: best_vote` ends a task with."""

from dataclasses import replace

from cope.core.history import History
from cope.core.policies.common import majority
from cope.core.policies.decision import Accept
from cope.core.stages import Tier


def best_vote(history: History, *, because: str) -> Accept | None:
    """The small model's majority answer of the latest stage it answered in, not accepted and marked as degraded.

    Stage 2's vote comes before Stage 1's: it followed the large model's guideline. None where the small model has given
    no answer at all (a policy that begins with the large model; every chain failed).
    """
    for step in reversed(history):
        if step.tier is not Tier.SMALL or not any(sample.solution is not None for sample in step.arrived):
            continue
        best = majority(step, accepted=False)
        if isinstance(best, Accept):
            return replace(best, degraded=True, reason=f"{best.reason}; {because}")
    return None
