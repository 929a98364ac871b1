"""When a line counts as read, and what 200 of them come to."""

import pytest

from cope.core.parse_watch import ParseWatch, line_parses, verdict
from cope.core.policies.spec import PolicyName
from cope.core.stages import Stage
from tests.support import finished_step, sample


def test_a_line_parses_when_half_of_its_answers_can_be_read() -> None:
    half = finished_step("stage1", sample(0), sample(1, None))
    less = finished_step("stage1", sample(0), sample(1, None), sample(2, None))

    assert line_parses(PolicyName.COPE, half) is True
    assert line_parses(PolicyName.COPE, less) is False


def test_only_the_first_stage_of_policies_that_may_escalate_is_watched() -> None:
    unread = finished_step("x", sample(0, None))
    later = finished_step("stage2", sample(0), stage=Stage.LARGE_PLANS_SMALL_EXECUTES)

    assert line_parses(PolicyName.COPE_S2, unread) is False
    assert line_parses(PolicyName.COPE, later) is None
    assert line_parses(PolicyName.SMALL_MAJORITY, unread) is None
    assert line_parses(PolicyName.PASSTHROUGH, unread) is None


@pytest.mark.parametrize(
    ("judged", "parsed", "may_pause", "expected"),
    [
        (199, 0, True, ParseWatch.WATCHING),
        (200, 99, True, ParseWatch.PAUSED),
        (200, 100, True, ParseWatch.PASSED),
        (250, 124, True, ParseWatch.PAUSED),
        (200, 0, False, ParseWatch.PASSED),
    ],
)
def test_the_verdict_falls_at_two_hundred_lines(
    judged: int, parsed: int, may_pause: bool, expected: ParseWatch
) -> None:
    assert verdict(judged, parsed, may_pause=may_pause) is expected
