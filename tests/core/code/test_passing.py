"""Kind `code`: the pass gate, the seeded draw, p1* of the best partial program, stops that change neither."""

from itertools import permutations, product

import pytest

from cope.core.answers.model import AnswerKey
from cope.core.codec import decode_step, decode_task, encode_payload, encode_policy, encode_step
from cope.core.history import FinishedStep, History, Sample, SampleStatus
from cope.core.parse_watch import line_parses
from cope.core.policies.decision import Accept
from cope.core.policies.passing import accept_passing, decided, draw_partial_plan
from cope.core.policies.registry import next_decision
from cope.core.policies.spec import PolicyName
from cope.core.problem import Kind, Message, Problem
from cope.core.stages import Step, StopRule
from cope.core.task import StoreLevel, TaskSpec
from tests.support import finished_step, make_policy, make_spec

TESTS = ("assert f(1) == 1", "assert f(2) == 4", "assert f(3) == 9")
SQUARE = Problem(Kind.CODE, (Message("user", "Square a number."),), tests=TESTS, entry_point="f")


def program(index: int, passed: int | None, *, key: str = "pass") -> Sample:
    return Sample(
        index,
        SampleStatus.FINISHED,
        plan=f"plan {index}",
        solution=f"solution {index}",
        answer=f"program {index}",
        key=AnswerKey(key) if passed == len(TESTS) else None,
        tests_passed=passed,
    )


def task(name: PolicyName = PolicyName.COPE, *, n: int = 4, seed: int = 7, problem: Problem = SQUARE) -> TaskSpec:
    return make_spec(problem, policy=make_policy(name, n=n), seed=seed)


def ran(step: Step, *passed: int | None) -> FinishedStep:
    samples = [program(i, count) for i, count in enumerate(passed)]
    return finished_step(step.name, *samples, stage=step.stage, tier=step.tier, n=step.n)


def play(spec: TaskSpec, *steps: tuple[int | None, ...]) -> tuple[list[Step], object]:
    history: History = ()
    taken = []
    for passed in steps:
        decision = next_decision(spec, history)
        assert isinstance(decision, Step)
        taken.append(decision)
        history = (*history, ran(decision, *passed))
    return taken, next_decision(spec, history)


def test_one_passing_program_of_n_is_enough() -> None:
    (first,), end = play(task(), (0, 2, 3, 1))
    assert first.votes_needed == 1
    assert isinstance(end, Accept)
    assert (end.stage, end.accepted, end.sample_index) == (1, True, 2)
    assert end.reason == "1 of 4 programs pass every visible test"


def test_the_answer_is_drawn_among_the_passing_programs_by_the_task_s_seed_alone() -> None:
    drawn = set()
    for seed in range(40):
        _, end = play(task(seed=seed), (3, 0, 3, 3))
        _, again = play(task(seed=seed), (3, 0, 3, 3))
        assert isinstance(end, Accept)
        assert end == again
        drawn.add(end.sample_index)
    assert drawn == {0, 2, 3}


def test_where_nobody_passes_p1_star_is_the_plan_of_the_program_that_passes_most_tests() -> None:
    steps, _ = play(task(), (0, 2, None, 1), (None,))
    assert steps[1].name == "stage2-plan"
    spec, stage1 = task(), ran(steps[0], 0, 2, None, 1)
    plan, why = draw_partial_plan(spec, stage1)
    assert plan is not None
    assert (plan.text, why) == ("plan 1", "p1* is plan 1, whose program passes 2 of 3 visible tests")


def test_ties_for_most_tests_are_drawn_by_the_seed() -> None:
    (step,), _ = play(task(), (1, 2, 2, 0))
    plans = {draw_partial_plan(task(seed=seed), ran(step, 1, 2, 2, 0))[0] for seed in range(30)}
    assert {plan.text for plan in plans if plan is not None} == {"plan 1", "plan 2"}


def test_stage_3_is_returned_without_a_gate() -> None:
    spec, history = task(), ()
    for passed in ((0, 0, 0, 0), None, (0, 0, 0, 0), (0,)):
        decision = next_decision(spec, history)
        assert isinstance(decision, Step)
        if passed is None:
            planned = Sample(0, SampleStatus.FINISHED, plan="Multiply it by itself.")
            history = (*history, finished_step(decision.name, planned, stage=decision.stage, tier=decision.tier, n=1))
        else:
            history = (*history, ran(decision, *passed))
    assert decision.votes_needed is None
    end = next_decision(spec, history)
    assert isinstance(end, Accept)
    assert (end.stage, end.accepted) == (3, True)


@pytest.mark.parametrize("name", [PolicyName.SMALL_MAJORITY, PolicyName.SMALL_MULTI])
def test_small_multi_takes_any_program_that_passes_and_else_the_best_one_unaccepted(name: PolicyName) -> None:
    _, passes = play(task(name), (0, 3, 0, 0))
    _, partial = play(task(name), (0, 1, 2, 0))
    assert isinstance(passes, Accept)
    assert isinstance(partial, Accept)
    assert (passes.sample_index, passes.accepted) == (1, True)
    assert (partial.sample_index, partial.accepted) == (2, False)
    assert partial.reason == "no program of 4 passes; this one passes 2 of 3 visible tests"


def test_told_apart_by_behaviour_the_answer_is_drawn_from_the_largest_class() -> None:
    (step,), _ = play(task(), (3, 3, 3, 0))
    samples = (program(0, 3, key="pass-a"), program(1, 3, key="pass-b"), program(2, 3, key="pass-b"), program(3, 0))
    for seed in range(20):
        accept = accept_passing(task(seed=seed), finished_step(step.name, *samples, stage=step.stage, n=4))
        assert accept is not None
        assert accept.sample_index in {1, 2}
        assert accept.reason == "3 of 4 programs pass every visible test, 2 of them behave alike"


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_lossless_stop_gives_the_very_program_of_the_full_step_in_every_order_of_arrival(n: int) -> None:
    stopped = 0
    for seed, passes in product(range(3), product((False, True), repeat=n)):
        spec = task(n=n, seed=seed)
        samples = [program(i, 3 if good else 1) for i, good in enumerate(passes)]
        (step,), full = play(spec, tuple(3 if good else 1 for good in passes))
        for order in permutations(samples):
            for seen in range(1, n):
                if decided(spec, order[:seen], n, StopRule.LOSSLESS) is None:
                    continue
                stopped += 1
                rest = [Sample(s.index, SampleStatus.ABORTED) for s in order[seen:]]
                partial = sorted([*order[:seen], *rest], key=lambda s: s.index)
                early = next_decision(spec, (finished_step(step.name, *partial, stage=step.stage, n=n),))
                assert isinstance(early, Accept)
                assert isinstance(full, Accept)
                assert (early.sample_index, early.stage) == (full.sample_index, full.stage)
                break
    assert stopped or n == 1


def test_first_pass_stops_at_the_first_passing_program_and_off_never() -> None:
    spec, arrived = task(n=8), (program(5, 1), program(6, 3))
    assert decided(spec, arrived, 8, StopRule.FIRST_PASS) == "a program passes after 2 of 8 samples"
    assert decided(spec, arrived[:1], 8, StopRule.FIRST_PASS) is None
    assert decided(spec, arrived, 8, StopRule.OFF) is None


def test_a_program_that_passes_nothing_counts_as_read_and_one_that_is_missing_does_not() -> None:
    (step,), _ = play(task(), (0, 0, 0, 0))
    assert line_parses(PolicyName.COPE, ran(step, 0, 0, 0, 0)) is True
    unread = [Sample(i, SampleStatus.FINISHED, solution="no code") for i in range(4)]
    assert line_parses(PolicyName.COPE, finished_step(step.name, *unread, stage=step.stage, n=4)) is False


def test_a_task_and_a_step_of_kind_code_are_written_down_and_read_back() -> None:
    spec = task(PolicyName.SMALL_MULTI)
    payload = encode_payload(spec.problem, spec.options, requested_model="cope", store=StoreLevel.ANSWERS)
    again = decode_task(
        spec.task_id, payload=payload, policy=encode_policy(spec.policy), seed=spec.seed, on_budget="hold"
    )
    assert again.problem == spec.problem
    (step,), _ = play(spec, (0, 3, 1, None))
    finished = ran(step, 0, 3, 1, None)
    assert decode_step(encode_step(finished)) == finished


def test_rows_written_before_there_was_kind_code_are_still_read() -> None:
    old = '{"k":"math","m":[["user","1+1?"]],"r":"cope"}'
    spec = task()
    read = decode_task(spec.task_id, payload=old, policy=encode_policy(spec.policy), seed=1, on_budget="hold")
    assert (read.problem.tests, read.problem.setup, read.problem.entry_point) == ((), "", None)
    old_step = (
        '{"name":"solve","stage":1,"tier":"small","model":"s","n":1,"why":"","prompts":"p","u":[1,0,1,0,1],"cost":0,'
        '"samples":[{"i":0,"s":"finished","u":[1,0,1,0,1],"x":"5"}],'
        '"from":"2026-11-02T12:00:00+00:00","to":"2026-11-02T12:00:01+00:00"}'
    )
    assert decode_step(old_step).samples[0].tests_passed is None
