"""Quotes as pure functions: the binding maximum, what is expected, and a p90 that holds in worlds that are known."""

import random
from dataclasses import replace

import pytest

from cope.core.chances import draw_count, share_interval
from cope.core.lengths import Basis
from cope.core.money import TokenUsage
from cope.core.quote import Past, PilotOutcome, Quote, estimate
from cope.core.survey import (
    Group,
    PilotLine,
    Reach,
    StepSize,
    Survey,
    decode_survey,
    encode_survey,
    paid_step,
)
from tests.core.quote_world import World, cost_of, draw_line, make_world, past_of, survey_of
from tests.support import make_price, usd

PRICE = make_price("2.50", "10.00")
TRIALS, WORLDS = 50, 12


def a_group(lines: int = 100, *, policy: str = "policy") -> Group:
    """COPE's paid steps: 400 bytes a line, outputs of at most 256 and 2,048 tokens."""
    plan = paid_step("stage2-plan", "large", Reach.ESCALATED, PRICE, guidelines=0, writes_plan=True)
    solve = paid_step("stage3", "large", Reach.UNRESOLVED, PRICE, guidelines=1, writes_plan=False)
    for _ in range(lines):
        plan.add(StepSize(400, 256, usd("0.004")))
        solve.add(StepSize(400, 2048, usd("0.03")))
    return Group(policy, "math", 8, pilots=True, steps=[plan, solve], lines=lines)


def a_survey(*groups: Group) -> Survey:
    return Survey(seed=7, valid_at=1_790_000_000, groups=list(groups))


def tried(accepted: int, escalated: int, *, group: int = 0) -> list[PilotOutcome]:
    """A pilot of 400-byte lines: 100 prompt tokens a call, solutions of 50 tokens."""
    outcome = PilotOutcome(
        line=PilotLine(group, (400, 400), 400),
        accepted=True,
        failed=False,
        readable=True,
        planner=TokenUsage(prompt=800, calls=8),
        solutions=(50,) * 8,
        small=TokenUsage(prompt=1600, completion=480, calls=16),
    )
    return [outcome] * accepted + [replace(outcome, accepted=False)] * escalated


def quote(survey: Survey, outcomes: list[PilotOutcome], past: Past | None = None, *, draws: int = 500) -> Quote:
    return estimate(survey, outcomes, past or Past(), random.Random(survey.seed), draws=draws)


KNOWN = Past({("large", "stage2-plan"): (40,) * 60, ("large", "stage3"): (200,) * 60}, {"policy": (30, 30)})


def test_the_maximum_is_the_sum_of_every_lines_worst_case_whatever_the_pilot_says():
    survey = a_survey(a_group(100))

    assert survey.worst == usd("3.40")
    assert survey.largest_call == usd("0.03")
    assert quote(survey, tried(100, 0)).survey.worst == usd("3.40")


def test_the_expected_cost_is_that_of_the_shares_and_lengths_that_were_seen():
    # 50.5 of 101 escalate, half of these go on: 50 plans of 100 + 40 tokens, 25 solutions of 140 + 200.
    told = quote(a_survey(a_group(100)), tried(50, 50), KNOWN)

    assert told.expected == pytest.approx(50 * (250_000 + 400_000) + 25 * (350_000 + 2_000_000), rel=0.03)
    assert told.expected < told.p90 < 2 * told.expected


def test_what_nobody_knows_is_taken_at_its_worst_for_p90_and_at_its_middle_for_the_expected():
    told = quote(a_survey(a_group(100)), [])

    assert told.p90 == pytest.approx(100 * (256 + 2048) * 10_000, rel=0.2)
    assert [length.basis for length in told.groups[0].outputs] == [Basis.NONE, Basis.NONE]
    assert told.expected < told.p90 / 3


def test_without_a_past_p90_lets_stage_2_settle_nothing():
    outcomes = tried(50, 50)
    half = quote(a_survey(a_group(100)), outcomes, replace(KNOWN, stage2={"policy": (30, 30)}))
    unknown = quote(a_survey(a_group(100)), outcomes, replace(KNOWN, stage2={"policy": (14, 15)}))

    assert unknown.p90 > 1.5 * half.p90
    assert unknown.expected == half.expected


def test_a_larger_pilot_narrows_the_distance_from_expected_to_p90():
    few, many = (quote(a_survey(a_group(1000)), tried(n, n), KNOWN) for n in (5, 200))

    assert few.p90 - few.expected > 1.5 * (many.p90 - many.expected)


def test_a_pilot_without_a_single_escalation_still_leaves_some_doubt():
    told = quote(a_survey(a_group(1000)), tried(100, 0), KNOWN)

    assert 0 < told.expected < told.p90 < told.survey.worst // 20


def test_longer_lines_that_escalate_make_the_quote_dearer():
    group = a_group(50)
    for step in group.steps:
        for _ in range(50):
            step.add(StepSize(4000, step.limit // 50, 10**7))
    group.lines = 100
    long = PilotLine(0, (4000, 4000), 4000)
    asked = TokenUsage(prompt=8000, calls=8)
    outcomes = tried(50, 0) + [replace(o, line=long, planner=asked) for o in tried(0, 50)]

    assert (
        quote(a_survey(group), outcomes, KNOWN).expected > 1.3 * quote(a_survey(group), tried(50, 50), KNOWN).expected
    )


def test_equal_seeds_give_equal_quotes_and_money_is_whole_nano_dollars():
    survey = a_survey(a_group(100))
    one, two = quote(survey, tried(60, 40)), quote(survey, tried(60, 40))

    assert (one.p90, one.expected) == (two.p90, two.expected)
    assert {type(amount) for amount in (one.p90, one.expected, survey.worst)} == {int}


def test_a_group_without_paid_steps_costs_nothing_and_groups_add_up():
    free = Group("free", "math", 8, pilots=False, steps=[], lines=10)
    alone, both = quote(a_survey(a_group()), tried(5, 5)), quote(a_survey(a_group(), free), tried(5, 5))

    assert quote(a_survey(free), []).p90 == 0
    assert both.expected == alone.expected


def test_nothing_is_quoted_above_the_maximum():
    group = a_group(10)
    for step in group.steps:
        step.worst = 5
    told = quote(a_survey(group), tried(0, 10))

    assert (told.expected, told.p90, told.survey.worst) == (10, 10, 10)


def test_a_survey_is_read_back_as_it_was_written():
    survey = a_survey(a_group(3))
    survey.pilot = {"task_1": PilotLine(0, (400, 400), 410)}
    survey.valid_until = 1_800_000_000

    assert decode_survey(encode_survey(survey)) == survey


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("total", [0, 1, 40, 5000])
def test_counts_are_drawn_about_their_mean_and_within_their_total(total: int, share: float):
    chance = random.Random(1)
    drawn = [draw_count(chance, total, share) for _ in range(400)]

    assert all(0 <= count <= total for count in drawn)
    spread = (total * share * (1 - share)) ** 0.5
    assert sum(drawn) / 400 == pytest.approx(total * share, abs=0.25 * spread + 1e-9)


def test_the_interval_of_a_share_holds_it_and_is_everything_when_nothing_was_seen():
    assert share_interval(0, 0) == (0.0, 1.0)
    low, high = share_interval(62, 100)
    assert (round(low, 3), round(high, 3)) == (0.522, 0.709)


def trial(world: World, seed: int, *, past: bool) -> tuple[Quote, int]:
    """A file of this world, its quote, and what it then really costs."""
    rng = random.Random(seed)
    lines = [draw_line(rng, world) for _ in range(world.lines)]
    survey, outcomes = survey_of(lines, world, rng)
    told = estimate(survey, outcomes, past_of(rng, world, 300) if past else Past(), random.Random(seed), draws=200)
    return told, cost_of(rng, world, lines)


@pytest.mark.parametrize("past", [False, True])
def test_in_every_one_of_many_worlds_p90_holds_in_at_least_40_of_50_trials_and_the_maximum_in_all(past: bool):
    held = []
    for number in range(WORLDS):
        world = make_world(random.Random(number))
        trials = [trial(world, 1000 * number + i, past=past) for i in range(TRIALS)]
        assert all(cost <= told.survey.worst for told, cost in trials)
        held.append(sum(cost <= told.p90 for told, cost in trials))

    assert min(held) >= 40, held
    # With a past it is a quantile, not merely a ceiling: it does fail now and then.
    assert not past or sum(held) < WORLDS * TRIALS, held
