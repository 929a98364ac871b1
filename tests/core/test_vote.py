"""Majority votes and the lossless stopping rule."""

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.core.answers.model import AnswerKey
from cope.core.confidence import ThresholdRule, parse_threshold, votes_needed
from cope.core.history import Sample, SampleStatus
from cope.core.stages import StragglerRule
from cope.core.stopping import VoteState, may_stop
from cope.core.vote import tally


def samples(*answers: str | None) -> tuple[Sample, ...]:
    return tuple(
        Sample(i, SampleStatus.FINISHED, solution=a or "?", answer=a, key=None if a is None else AnswerKey(a))
        for i, a in enumerate(answers)
    )


def test_the_largest_class_wins_and_its_share_is_measured_against_all_samples_asked_for():
    vote = tally(samples("7", "8", "7", None), 4)

    assert vote.winner is not None
    assert (vote.winner.key, vote.winner.indices) == ("7", (0, 2))
    assert vote.consensus_ratio == Fraction(1, 2)


def test_an_unparsable_answer_never_wins_but_counts_below_the_line():
    vote = tally(samples(None, None, None, "3"), 4)

    assert vote.winner is not None
    assert vote.winner.key == "3"
    assert vote.consensus_ratio == Fraction(1, 4)


def test_without_any_parsable_answer_there_is_no_winner_and_no_consensus():
    vote = tally(samples(None, None), 2)

    assert vote.winner is None
    assert vote.consensus_ratio == 0


def test_a_tie_goes_to_the_class_with_the_smallest_index():
    vote = tally(samples("b", "a", "a", "b"), 4)

    assert vote.winner is not None
    assert vote.winner.key == "b"


def test_more_samples_than_asked_for_or_one_twice_is_refused():
    with pytest.raises(ValueError, match="samples for n"):
        tally(samples("a", "b"), 1)
    with pytest.raises(ValueError, match="twice"):
        tally((samples("a")[0], samples("a")[0]), 2)


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=12), st.randoms())
def test_a_vote_does_not_depend_on_the_order_of_arrival(answers: list[str | None], rng: random.Random):
    drawn = list(samples(*answers))
    in_order = tally(tuple(drawn), len(drawn))
    rng.shuffle(drawn)

    assert tally(tuple(drawn), len(drawn)) == in_order


@pytest.mark.parametrize(
    ("tau", "n", "rule", "needed"),
    [
        ("0.75", 8, ThresholdRule.AT_LEAST, 6),
        ("0.5", 8, ThresholdRule.AT_LEAST, 4),
        ("0.75", 8, ThresholdRule.EXCEEDS, 7),
        ("0.5", 8, ThresholdRule.EXCEEDS, 5),
        ("0.56", 25, ThresholdRule.AT_LEAST, 14),
        ("1", 8, ThresholdRule.AT_LEAST, 8),
        ("1", 8, ThresholdRule.EXCEEDS, 9),
        ("0", 8, ThresholdRule.AT_LEAST, 1),
        ("2/3", 3, ThresholdRule.AT_LEAST, 2),
    ],
)
def test_thresholds_are_exact_fractions_under_both_rules(tau: str, n: int, rule: ThresholdRule, needed: int):
    assert votes_needed(parse_threshold(tau), n, rule) == needed


def test_a_json_number_is_read_by_its_shortest_decimal_form():
    assert parse_threshold(0.1) == Fraction(1, 10)


@pytest.mark.parametrize("bad", ["", "abc", "1.5", "-0.1", "nan", "1/0", True, "0." + "1" * 40])
def test_a_threshold_outside_zero_to_one_is_refused(bad: object):
    with pytest.raises(ValueError, match=r"number|between|characters"):
        parse_threshold(bad)  # type: ignore[arg-type]


def test_an_early_escalation_waits_for_the_stragglers_when_p1_star_is_drawn_among_all():
    arrived = samples("a", "b", "c", "d")

    assert may_stop(arrived, 8, 6, StragglerRule.FULL) is VoteState.OPEN
    assert may_stop(arrived, 8, 6, StragglerRule.ARRIVED) is VoteState.ESCALATE


def test_a_chain_that_failed_for_good_counts_as_unparsable():
    failed = tuple(Sample(i, SampleStatus.FAILED, error="context_length_exceeded: too long") for i in (2, 3))

    assert may_stop((*samples("a", "a"), *failed), 4, 3, StragglerRule.FULL) is VoteState.ESCALATE
