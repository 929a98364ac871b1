"""The audit's figures: Wilson's interval keeps its promises, a finite population is known as far as it was audited."""

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.core.audit import (
    NOT_CORRECTNESS,
    AuditCounts,
    Stratum,
    StratumCounts,
    by_stratum,
    caveats,
    estimate,
    sentence,
    total,
    wilson,
)
from cope.core.money import NanoUSD

TRIALS = st.integers(1, 100_000)


@given(TRIALS.flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_lies_in_0_to_1_around_the_point_estimate(case: tuple[int, int]):
    successes, trials = case
    low, high = wilson(successes, trials)

    assert 0 <= low <= successes / trials <= high <= 1
    assert low < high


@given(TRIALS.flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_one_success_more_moves_both_ends_up(case: tuple[int, int]):
    successes, trials = case
    low, high = wilson(successes, trials)
    more_low, more_high = wilson(successes + 1, trials)

    assert more_low > low
    assert more_high >= high


@given(st.integers(0, 50), st.integers(1, 50), st.integers(2, 20))
def test_the_same_share_of_more_trials_is_known_better(successes: int, misses: int, times: int):
    low, high = wilson(successes, successes + misses)
    closer_low, closer_high = wilson(successes * times, (successes + misses) * times)

    assert closer_high - closer_low < high - low


@given(TRIALS.flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_agreement_and_disagreement_mirror_each_other(case: tuple[int, int]):
    successes, trials = case
    low, high = wilson(successes, trials)
    other_low, other_high = wilson(trials - successes, trials)

    assert low == pytest.approx(1 - other_high, abs=1e-12)
    assert high == pytest.approx(1 - other_low, abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_published_intervals_come_out(successes: int, trials: int, low: float, high: float):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_no_trials_or_an_impossible_share_give_no_interval():
    for successes, trials in ((0, 0), (2, 1), (-1, 5)):
        with pytest.raises(ValueError, match=r"interval|share"):
            wilson(successes, trials)


def test_in_many_seeded_worlds_the_interval_covers_the_truth_about_95_times_in_100():
    random = Random(20261102)
    covered_rate = covered_count = worlds = 0
    for _ in range(3_000):
        size, share = random.randint(300, 3_000), random.choice([0.02, 0.1, 0.3, 0.8])
        truth = [random.random() < (rate) for rate in [random.uniform(0.01, 0.4)] for _ in range(size)]
        drawn = [differs for differs in truth if random.random() < share]
        if not drawn:
            continue
        counts = AuditCounts(accepted=size, agreed=len(drawn) - sum(drawn), disagreed=sum(drawn))
        found = estimate(counts)
        assert found is not None
        worlds += 1
        covered_rate += found.low <= sum(truth) / size <= found.high
        covered_count += found.fewest <= sum(truth) <= found.most

    assert worlds > 2_900
    assert covered_rate / worlds >= 0.93
    assert covered_count / worlds >= 0.93


def test_when_everything_was_audited_nothing_is_left_to_guess():
    counts = AuditCounts(accepted=50, agreed=47, disagreed=3)
    found = estimate(counts)

    assert found is not None
    assert (found.rate, found.fewest, found.most) == (Fraction(3, 50), 3, 3)
    assert found.low < 0.06 < found.high  # for answers like these, fifty are still few
    assert sentence(counts) == "Of 50 unescalated answers 3 differ from what the large model says."


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5_000))
def test_what_was_seen_bounds_what_may_differ(agreed: int, disagreed: int, others: int):
    counts = AuditCounts(accepted=agreed + disagreed + others, agreed=agreed, disagreed=disagreed)
    found = estimate(counts)

    if found is None:
        assert counts.judged == 0
    else:
        assert disagreed <= found.fewest <= found.most <= counts.accepted - agreed


def test_without_a_judged_audit_there_is_no_estimate():
    counts = AuditCounts(accepted=1_200, pending=3, unparsable=2, dropped=1)

    assert estimate(counts) is None
    assert sentence(counts) == "No estimate: none of 1,200 unescalated answers has been compared yet."


def test_the_sentence_gives_a_range_of_answers():
    counts = AuditCounts(accepted=10_000, agreed=190, disagreed=10)

    found = estimate(counts)

    assert found is not None
    assert (found.rate, found.fewest, found.most) == (Fraction(1, 20), 275, 891)
    assert (found.low, found.high) == pytest.approx((0.02738, 0.08957), abs=1e-5)
    assert sentence(counts) == (
        "Of 10,000 unescalated answers about 275 to 891 differ from what the large model says (95 % interval)."
    )


def test_strata_are_added_up_over_shares_and_in_order():
    weak, strong = Stratum(1, 6, 8, stopped_early=False), Stratum(1, 8, 8, stopped_early=False)
    strata = [
        StratumCounts(strong, 20_000, AuditCounts(accepted=5, agreed=1, cost=NanoUSD(3))),
        StratumCounts(weak, 20_000, AuditCounts(accepted=7, disagreed=1, cost=NanoUSD(4))),
        StratumCounts(weak, 50_000, AuditCounts(accepted=2, dropped=1)),
    ]

    assert by_stratum(strata) == {
        weak: AuditCounts(accepted=9, disagreed=1, dropped=1, cost=NanoUSD(4)),
        strong: AuditCounts(accepted=5, agreed=1, cost=NanoUSD(3)),
    }
    assert list(by_stratum(strata)) == [weak, strong]
    assert (total(strata).accepted, total(strata).sampled, total(strata).cost) == (14, 3, 7)
    assert Stratum(1, 6, 8, stopped_early=True).label == "6/8 or more"
    assert Stratum(1, 8, 8, stopped_early=True).label == "8/8"


def test_that_agreement_is_not_correctness_is_said_always_and_every_other_bias_where_it_may_be():
    stratum = Stratum(1, 6, 8, stopped_early=False)
    plain = [StratumCounts(stratum, 20_000, AuditCounts(accepted=9, agreed=9))]
    rough = [
        StratumCounts(stratum, 20_000, AuditCounts(accepted=50, agreed=9, disagreed=1, pending=2, dropped=4)),
        StratumCounts(stratum, 50_000, AuditCounts(accepted=50, unparsable=10)),
    ]

    assert caveats(plain) == (NOT_CORRECTNESS,)
    told = caveats(rough)
    assert told[0] == NOT_CORRECTNESS
    assert [text.split(" ", 2)[0] for text in told[1:]] == ["2", "10", "4", "The"]
    assert "the estimate would be 55.0%" in told[2]
