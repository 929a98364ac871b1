"""Which answers are audited: an unbiased share by hash, of exactly those that the small model's vote accepted."""

from dataclasses import replace

import pytest

from cope.core.audit import AuditState, Stratum
from cope.core.audit_sampling import (
    WHOLE,
    as_share,
    audit_payload,
    audit_policy,
    auditable,
    is_sampled,
    share_text,
    verdict,
)
from cope.core.codec import decode_policy
from cope.core.errors import BadRequest
from cope.core.history import FinishedStep
from cope.core.ids import ProjectId, TaskId
from cope.core.money import NanoUSD
from cope.core.policies.degraded import best_vote
from cope.core.policies.registry import next_decision
from cope.core.policies.spec import PolicyName, PolicySpec, Temperatures
from cope.core.request_policy import SELECTABLE
from cope.core.stages import Stage, Tier
from cope.core.task import StoreLevel, TaskSpec
from tests.support import finished_step, make_policy, make_spec, sample

PROJECT = ProjectId("proj_1")


def voted(*answers: str | None, name: str = "stage1", stage: Stage = Stage.SMALL_PLANS_AND_EXECUTES) -> FinishedStep:
    return finished_step(name, *[sample(i, answer) for i, answer in enumerate(answers)], stage=stage, n=4)


def looked_at(spec: TaskSpec, *history: FinishedStep) -> object:
    return auditable(spec, history, next_decision(spec, history))


def test_a_vote_that_accepts_is_auditable_with_its_stage_confidence_answer_and_key():
    found = looked_at(make_spec(), voted("5", "5", "7", "5"))

    assert found is not None
    assert (found.stratum, found.answer, found.key) == (Stratum(1, 3, 4, stopped_early=False), "5", "5")  # type: ignore[attr-defined]


def test_stage_2s_acceptance_counts_too_and_an_early_end_of_the_vote_is_remembered():
    plan = finished_step("stage2-plan", stage=Stage.LARGE_PLANS_SMALL_EXECUTES, tier=Tier.LARGE)
    stage2 = voted("9", "9", name="stage2-execute", stage=Stage.LARGE_PLANS_SMALL_EXECUTES)
    stage2 = replace(stage2, stopped_early="the vote is decided")

    found = looked_at(make_spec(), voted("1", "2", "3", "4"), plan, stage2)

    assert found is not None
    assert found.stratum == Stratum(2, 2, 4, stopped_early=True)  # type: ignore[attr-defined]


def test_what_escalates_is_answered_by_the_large_model_or_is_no_vote_of_cope_is_not_audited():
    plan = finished_step("stage2-plan", stage=Stage.LARGE_PLANS_SMALL_EXECUTES, tier=Tier.LARGE)
    split = voted("1", "2", "3", "4")
    stage2 = voted("1", "2", "3", "4", name="stage2-execute", stage=Stage.LARGE_PLANS_SMALL_EXECUTES)
    stage3 = finished_step("stage3", stage=Stage.LARGE_EXECUTES, tier=Tier.LARGE)
    assert looked_at(make_spec(), split) is None
    assert looked_at(make_spec(), split, plan, stage2, stage3) is None
    for name in (PolicyName.SMALL, PolicyName.SMALL_MAJORITY, PolicyName.LARGE, PolicyName.AUDIT):
        step = "audit" if name is PolicyName.AUDIT else "solve"
        assert looked_at(make_spec(policy=make_policy(name)), voted("5", "5", "5", "5", name=step)) is None


def test_an_answer_that_was_taken_without_acceptance_is_not_audited():
    plan = finished_step("stage2-plan", stage=Stage.LARGE_PLANS_SMALL_EXECUTES, tier=Tier.LARGE)
    split = voted("1", "2", "3", "4")
    stage2 = voted("1", "2", "3", "4", name="stage2-execute", stage=Stage.LARGE_PLANS_SMALL_EXECUTES)
    two_stages = make_spec(policy=replace(make_policy(PolicyName.COPE_S2), max_stage=2))
    assert looked_at(two_stages, split, plan, stage2) is None
    degraded = best_vote((split,), because="no money")
    assert degraded is not None
    assert auditable(make_spec(), (split,), degraded) is None


def test_a_task_that_keeps_no_text_is_not_audited():
    assert looked_at(make_spec(store=StoreLevel.NONE), voted("5", "5", "5", "5")) is None
    assert looked_at(make_spec(store=StoreLevel.FULL), voted("5", "5", "5", "5")) is not None


@pytest.mark.parametrize("share", [20_000, 100_000, 500_000])
def test_the_share_that_is_drawn_lies_within_the_binomials_bounds(share: int):
    trials = 20_000
    drawn = sum(is_sampled(TaskId(f"task_{n}"), PROJECT, share) for n in range(trials))
    p = share / WHOLE

    assert abs(drawn - trials * p) < 5 * (trials * p * (1 - p)) ** 0.5


def test_a_share_of_nothing_draws_nobody_a_whole_share_everybody_and_a_larger_share_a_superset():
    tasks = [TaskId(f"task_{n}") for n in range(2_000)]
    few = {task for task in tasks if is_sampled(task, PROJECT, 50_000)}
    more = {task for task in tasks if is_sampled(task, PROJECT, 200_000)}

    assert not any(is_sampled(task, PROJECT, 0) for task in tasks)
    assert all(is_sampled(task, PROJECT, WHOLE) for task in tasks)
    assert few < more
    assert few != {task for task in tasks if is_sampled(task, ProjectId("proj_2"), 50_000)}


def test_the_audit_asks_as_stage_3_would_without_a_guideline_in_a_step_of_its_own():
    spec = make_spec(policy=replace(make_policy(n=8), temperatures=Temperatures(executor3=0.0), prompt_set="reference"))
    policy = decode_policy(audit_policy(spec.policy))
    step = next_decision(replace(spec, policy=policy), ())

    assert policy == PolicySpec(PolicyName.AUDIT, "small", "large", n=1, prompt_set="reference")
    assert audit_policy(make_policy(n=2)) == audit_policy(make_policy(n=8, tau1="1"))
    assert (step.name, step.tier, step.n, step.planner, step.guideline) == ("audit", Tier.LARGE, 1, None, None)  # type: ignore[union-attr]
    assert (step.executor.temperature, step.prompt_set) == (0.0, "reference")  # type: ignore[union-attr]
    assert "audit" not in SELECTABLE


def test_the_audit_leaves_the_lines_own_cap_behind():
    spec = replace(make_spec(), max_cost=NanoUSD(1))
    assert audit_payload(spec) == audit_payload(replace(spec, max_cost=None))


def test_answers_are_equal_where_their_keys_are():
    def said(answer: str | None) -> FinishedStep:
        return finished_step("audit", sample(0, answer))

    assert verdict("5", said("5")) is AuditState.AGREED
    assert verdict("5", said("6")) is AuditState.DISAGREED
    assert verdict("5", said(None)) is AuditState.UNPARSABLE
    assert verdict("5", None) is AuditState.DROPPED


@pytest.mark.parametrize(
    ("written", "millionths"),
    [("0.02", 20_000), ("0", 0), (0, 0), ("1", WHOLE), (1, WHOLE), ("1/4", 250_000), (0.1, 100_000)],
)
def test_a_share_is_read_exactly_and_written_as_it_was(written: object, millionths: int):
    assert as_share(written, "share") == millionths
    assert as_share(share_text(millionths), "share") == millionths


@pytest.mark.parametrize(
    "written", ["", "2", "-0.1", "1.000001", "0.0000001", "nan", "1/3", True, None, [], "9" * 40, 1e-9]
)
def test_what_is_no_share_is_refused_by_name(written: object):
    with pytest.raises(BadRequest, match=r"`cope\.audit\.share` must be a share from 0 to 1"):
        as_share(written, "cope.audit.share")


def test_a_share_is_written_as_a_short_decimal():
    assert [share_text(n) for n in (0, 1, 20_000, 500_000, WHOLE)] == ["0", "0.000001", "0.02", "0.5", "1"]
