"""Which finished steps a retry takes over, decided from the steps alone."""

from dataclasses import replace

from cope.core.codec import decode_step, encode_step
from cope.core.history import FinishedStep, SampleStatus
from cope.core.ids import TaskId
from cope.core.money import NanoUSD
from cope.core.policies.cope import next_decision
from cope.core.policies.decision import Decision
from cope.core.retention import prune_history
from cope.core.reuse import reusable, taken_over
from cope.core.stages import Stage, Step, Tier
from cope.core.task import StoreLevel
from tests.support import finished_step, make_spec, sample

SPEC = make_spec()
DIVIDED = [sample(i, str(i), plan=f"plan {i}") for i in range(4)]
STAGE1 = finished_step("stage1", *DIVIDED)
PLAN = finished_step(
    "stage2-plan", replace(sample(0, None, plan="Halve it."), solution=None),
    stage=Stage.LARGE_PLANS_SMALL_EXECUTES, tier=Tier.LARGE, cost=NanoUSD(700),
)  # fmt: skip
FAILED_PLAN = replace(PLAN, samples=(sample(0, None, plan=None, status=SampleStatus.FAILED),))


def same(step: Step) -> str:
    return "test-1"


def names(taken: tuple[tuple[FinishedStep, ...], Decision]) -> list[str]:
    return [step.name for step in taken[0]]


def test_steps_are_taken_over_in_the_order_that_the_policy_asks_for_them():
    assert names(reusable(SPEC, [PLAN, STAGE1], version=same, whole=True)) == ["stage1", "stage2-plan"]
    assert names(reusable(SPEC, [PLAN], version=same, whole=True)) == []


def test_a_step_of_another_model_size_or_prompt_is_not_taken_over_nor_what_follows_it():
    for other in (
        replace(STAGE1, model="other"),
        replace(STAGE1, n=8),
        replace(STAGE1, prompt_version="test-2"),
        replace(STAGE1, tier=Tier.LARGE),
    ):
        assert reusable(SPEC, [other, PLAN], version=same, whole=True)[0] == ()
    assert reusable(SPEC, [STAGE1, PLAN], version=lambda step: None, whole=True)[0] == ()


def test_a_step_that_leads_to_the_same_failure_again_is_left_out():
    assert isinstance(next_decision(SPEC, (STAGE1,)), Step)
    assert names(reusable(SPEC, [STAGE1, FAILED_PLAN], version=same, whole=True)) == ["stage1"]


def test_a_pruned_history_is_taken_over_where_it_kept_the_plan_that_would_be_drawn():
    pruned = prune_history(SPEC, (STAGE1,))
    with_plan = (*pruned, PLAN)

    taken = reusable(SPEC, pruned, version=same, whole=False)

    assert names(taken) == ["stage1"]
    assert isinstance(taken[1], Step)
    assert taken[1].name == "stage2-plan"
    whole, again = next_decision(SPEC, (STAGE1, PLAN)), next_decision(SPEC, with_plan)
    assert isinstance(whole, Step)
    assert whole == again
    assert whole.goal is not None


def test_a_free_step_without_its_texts_is_done_again_unless_a_paid_one_follows():
    bare = replace(STAGE1, samples=tuple(replace(s, plan=None, solution=None) for s in STAGE1.samples))

    assert reusable(SPEC, [bare], version=same, whole=False)[0] == ()
    assert names(reusable(SPEC, [bare, PLAN], version=same, whole=False)) == ["stage1", "stage2-plan"]
    assert names(reusable(replace(SPEC, store=StoreLevel.FULL), [bare], version=same, whole=False)) == ["stage1"]


def test_a_step_taken_over_costs_nothing_and_keeps_the_first_tasks_name_and_that_it_was_paid():
    once = taken_over(PLAN, TaskId("task_1"))
    twice = taken_over(decode_step(encode_step(once)), TaskId("task_2"))

    assert (once.cost, once.usage.calls, once.reused_from) == (0, 0, "task_1")
    assert twice == once
    assert once.price_version == PLAN.price_version
    assert once.samples == PLAN.samples
