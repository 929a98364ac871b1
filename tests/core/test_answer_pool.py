"""Which tasks are identical, and when a stored one's steps answer another."""

from dataclasses import replace
from itertools import count

import pytest

from cope.core.answer_pool import answered_by, pool_key, pool_key_of
from cope.core.codec import decode_task, encode_payload, encode_policy, prune_step
from cope.core.history import FinishedStep
from cope.core.ids import TaskId
from cope.core.money import ZERO
from cope.core.policies.spec import PolicyName
from cope.core.problem import Kind, Message, Problem
from cope.core.retention import prune_history
from cope.core.stages import Stage, Step, Tier
from cope.core.task import Cache, CallerOptions, StoreLevel
from tests.support import finished_step, make_policy, make_problem, make_spec, sample, usd

PLAIN = CallerOptions()
POLICY = encode_policy(make_policy())
SOURCE = TaskId("task_source")


def same_prompts(step: Step) -> str:
    return "test-1"


def key(problem: Problem | None = None, options: CallerOptions = PLAIN, policy: str = POLICY, seed: int | None = None):
    return pool_key(problem or make_problem(), options, policy=policy, seed=seed)


def test_the_same_question_under_the_same_policy_has_one_key_of_16_bytes() -> None:
    assert key() == key(make_problem())
    assert len(key()) == 16


@pytest.mark.parametrize(
    "other",
    [
        key(make_problem("What is 2 + 4?")),
        key(make_problem(kind=Kind.EXACT)),
        key(Problem(Kind.MATH, (Message("system", "What is 2 + 3?"),))),
        key(Problem(Kind.MATH, (Message("user", "What is"), Message("user", " 2 + 3?")))),
        key(Problem(Kind.CHOICE, make_problem().conversation, choices=("5", "6"))),
        key(Problem(Kind.EXACT, make_problem().conversation, answer_pattern="[0-9]+")),
        key(Problem(Kind.EXACT, make_problem().conversation, answer_pointer="/a")),
        key(options=CallerOptions(max_tokens=100)),
        key(options=CallerOptions(temperature=0.1)),
        key(options=CallerOptions(stop=("END",))),
        key(options=CallerOptions(choices_n=2)),
        key(policy=encode_policy(make_policy(n=5))),
        key(policy=encode_policy(replace(make_policy(), large="larger"))),
        key(policy=encode_policy(replace(make_policy(), small="smaller"))),
        key(seed=1),
    ],
    ids=count(),
)
def test_whatever_may_change_the_answer_changes_the_key(other: bytes) -> None:
    assert other != key()


def test_the_reading_tasks_key_is_the_one_its_row_was_given() -> None:
    problem, options = make_problem(kind=Kind.EXACT), CallerOptions(stop=("END",), top_p=0.5)
    for own in (False, True):
        payload = encode_payload(
            problem, options, requested_model="cope", store=StoreLevel.FULL, cache=Cache.READ, own_seed=own
        )
        task = decode_task(TaskId("task_1"), payload=payload, policy=POLICY, seed=11, on_budget="hold")

        assert pool_key_of(task) == key(problem, options, seed=11 if own else None)


def test_a_payload_stored_before_there_was_a_pool_reads_none() -> None:
    payload = encode_payload(make_problem(), PLAIN, requested_model="cope", store=StoreLevel.ANSWERS)

    assert '"ca"' not in payload
    assert decode_task(SOURCE, payload=payload, policy=POLICY, seed=1, on_budget="hold").cache is Cache.OFF


def stage1(*answers: str | None) -> FinishedStep:
    drawn = [sample(i, a, plan=f"plan {i}") for i, a in enumerate(answers)]
    return replace(finished_step("stage1", *drawn), model="small")


def escalated() -> tuple[FinishedStep, ...]:
    """Stage 1 and 2 disagree, Stage 3 is paid and answers 9."""
    stage2, large = Stage.LARGE_PLANS_SMALL_EXECUTES, Tier.LARGE
    plan = finished_step("stage2-plan", sample(0, None, plan="Work back."), stage=stage2, tier=large, cost=usd("0.1"))
    tried = finished_step("stage2-execute", *(sample(i, str(i), plan=None) for i in range(4)), stage=stage2)
    last = finished_step("stage3", sample(0, "9", plan=None), stage=Stage.LARGE_EXECUTES, tier=large, cost=usd("0.2"))
    return stage1("1", "2", "3", "4"), plan, tried, last


def test_an_accepted_vote_answers_at_no_cost_and_names_whose_it_is() -> None:
    found = answered_by(make_spec(seed=99), SOURCE, (stage1("5", "5", "5", "7"),), version=same_prompts)

    assert found is not None
    (step,), accept = found
    assert (step.reused_from, step.cost, step.usage.completion) == (SOURCE, ZERO, 0)
    assert (accept.stage, accept.sample_index, accept.accepted) == (Stage.SMALL_PLANS_AND_EXECUTES, 0, True)


@pytest.mark.parametrize("level", [StoreLevel.FULL, StoreLevel.ANSWERS])
def test_a_task_that_took_all_stages_answers_from_what_is_kept_of_it(level: StoreLevel) -> None:
    kept = prune_history(make_spec(store=level), escalated())

    found = answered_by(make_spec(seed=99), SOURCE, kept, version=same_prompts)

    assert found is not None
    history, accept = found
    assert [step.name for step in history] == ["stage1", "stage2-plan", "stage2-execute", "stage3"]
    assert (sum(step.cost for step in history), accept.stage) == (0, Stage.LARGE_EXECUTES)


def test_a_task_that_kept_no_text_answers_nothing() -> None:
    bare = prune_history(make_spec(store=StoreLevel.NONE), escalated())

    assert answered_by(make_spec(), SOURCE, bare, version=same_prompts) is None


def test_an_erased_single_answer_answers_nothing() -> None:
    spec = make_spec(policy=make_policy(PolicyName.LARGE))
    (paid,) = (step for step in escalated() if step.name == "stage3")
    solved = replace(paid, name="solve", samples=prune_step(paid, StoreLevel.NONE, frozenset()).samples)

    assert answered_by(spec, SOURCE, (solved,), version=same_prompts) is None


def test_a_task_that_money_cut_short_answers_nothing() -> None:
    assert answered_by(make_spec(), SOURCE, escalated()[:1], version=same_prompts) is None


def test_other_prompts_than_today_answer_nothing() -> None:
    assert answered_by(make_spec(), SOURCE, escalated(), version=lambda step: "test-2") is None
    assert answered_by(make_spec(), SOURCE, escalated(), version=lambda step: None) is None


def test_several_choices_are_answered_only_where_all_their_texts_are_kept() -> None:
    asks_two = make_spec(options=CallerOptions(choices_n=2))
    agreed = (stage1("5", "5", "5", "7"),)
    pruned = prune_history(make_spec(), agreed)

    assert answered_by(asks_two, SOURCE, agreed, version=same_prompts) is not None
    assert answered_by(asks_two, SOURCE, pruned, version=same_prompts) is None
    assert answered_by(make_spec(), SOURCE, pruned, version=same_prompts) is not None
