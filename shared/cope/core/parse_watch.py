"""Whether a batch's answers can be read at all: its first lines say so before much money is spent.

A wrong `kind`, or prompts that never ask for a final answer, make every vote fail, so that every line would escalate
to the paid model. Of the first `WATCHED_LINES` lines at least half must parse; otherwise the batch's paid calls wait
for somebody to look (http contract, b16). A project can switch this off.
"""

from enum import StrEnum

from cope.core.history import FinishedStep, Sample
from cope.core.policies.cascade_vote import set_step
from cope.core.policies.spec import CASCADES, PolicyName
from cope.core.policies.tiers import tier_step
from cope.core.stages import Stage

WATCHED_LINES = 200


class ParseWatch(StrEnum):
    """Where a batch stands. `passed` is also what a resumed batch is, and one whose project does not watch."""

    WATCHING = "watching"
    PASSED = "passed"
    PAUSED = "paused"


def line_parses(policy: PolicyName, step: FinishedStep) -> bool | None:
    """Whether at least half of the answers of a line's first step could be read; None for any other step.

    Only the policies that may escalate are watched: the others either pay for every line, as told, or for none.
    """
    if policy not in CASCADES or step.stage is not Stage.SMALL_PLANS_AND_EXECUTES:
        return None
    several = policy not in {PolicyName.COPE, PolicyName.COPE_S2}
    if several and step.name not in {set_step(0), tier_step(0)}:
        return None  # a line counts once, however many steps its first stage has
    readable = sum(_readable(sample) for sample in step.arrived)
    return readable > 0 and 2 * readable >= len(step.arrived)


def _readable(sample: Sample) -> bool:
    """A program that passes no test was read all the same, and a text without a vote where it came with what it is
    judged by."""
    ran = sample.tests_passed is not None and sample.answer is not None
    return sample.key is not None or ran or sample.mean_logprob is not None


def verdict(judged: int, parsed: int, *, may_pause: bool) -> ParseWatch:
    """What a batch still watched comes to after `judged` lines (≥ 0) of which `parsed` (≤ `judged`) could be read."""
    if judged < WATCHED_LINES:
        return ParseWatch.WATCHING
    return ParseWatch.PAUSED if may_pause and 2 * parsed < judged else ParseWatch.PASSED
