"""Open-ended tasks (paper, section 4): candidates by perplexity, θ by category, one cascade per turn."""

from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from math import exp, log

import pytest

from cope.core.codec import decode_policy, decode_step, decode_task, encode_payload, encode_policy, encode_step
from cope.core.history import FinishedStep, History, Sample
from cope.core.parse_watch import line_parses
from cope.core.perplexity import candidate, mean_logprob, perplexity, scoring_text
from cope.core.policies.common import draw_p1_star
from cope.core.policies.decision import Accept, Decision
from cope.core.policies.degraded import best_vote
from cope.core.policies.registry import answered_turns, next_decision
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.policies.turns import problem_of
from cope.core.problem import Kind, Message, Problem
from cope.core.result import completion_body
from cope.core.retention import prune_history
from cope.core.stages import Step
from cope.core.task import StoreLevel, TaskSpec
from tests.support import NOON, finished_step, make_spec, sample

ASKED = (Message("user", "Write a toast."),)
THETA = (("default", Fraction(2)), ("writing", Fraction(4)))


def spec_of(*turns: str, category: str | None = None, name: PolicyName = PolicyName.COPE, n: int = 3) -> TaskSpec:
    policy = PolicySpec(name, "small", "large", n=n, max_stage=2 if name is PolicyName.COPE_S2 else 3, theta=THETA)
    return make_spec(Problem(Kind.OPEN, ASKED, turns=turns, category=category), policy=policy)


def text(index: int, ppl: float | None, *, plan: str | None = None) -> Sample:
    drawn = sample(index, None, plan=plan or f"plan {index}", solution=f"text {index}")
    return replace(drawn, mean_logprob=None if ppl is None else -log(ppl))


def finish(step: Step, *ppls: float | None) -> FinishedStep:
    drawn = (
        (replace(sample(0, None, plan="Be brief."), solution=None),)
        if step.executor is None
        else tuple(text(i, ppl) for i, ppl in enumerate(ppls))
    )
    return finished_step(step.name, *drawn, stage=step.stage, tier=step.tier, n=step.n)


def step_of(decision: Decision) -> Step:
    assert isinstance(decision, Step)
    return decision


def accept_of(decision: Decision) -> Accept:
    assert isinstance(decision, Accept)
    return decision


def play(spec: TaskSpec, answers: dict[str, tuple[float | None, ...]]) -> tuple[History, Accept]:
    history: History = ()
    while isinstance(decision := next_decision(spec, history), Step):
        history = (*history, finish(decision, *answers.get(decision.name, (1.5,) * decision.n)))
    return history, accept_of(decision)


def test_perplexity_is_the_exponential_of_the_mean_negative_log_probability():
    assert perplexity(0.0) == 1.0
    assert perplexity(-1.0) == pytest.approx(exp(1))
    assert mean_logprob([-1.0, -3.0]) == -2.0
    assert mean_logprob([]) is None
    assert perplexity(-1e9) < float("inf")


def test_the_candidate_has_the_lowest_perplexity_and_is_accepted_at_theta_or_below():
    _, end = play(spec_of(), {"stage1": (3.0, 1.9, 2.5)})

    assert (end.step, end.sample_index, end.accepted, int(end.stage)) == ("stage1", 1, True, 1)
    assert float(end.confidence or 0) == pytest.approx(1.9)
    assert end.threshold == 2
    assert end.vote is None


def test_above_theta_the_large_model_plans_then_the_small_one_retries_then_the_large_one_solves():
    history, end = play(spec_of(), {"stage1": (3.0, 2.1, 2.5), "stage2-execute": (2.4, 2.2, None)})

    assert [step.name for step in history] == ["stage1", "stage2-plan", "stage2-execute", "stage3"]
    assert (end.step, int(end.stage)) == ("stage3", 3)


def test_only_the_small_models_executors_are_asked_for_log_probabilities_and_no_vote_stops_them():
    spec = spec_of()
    first = step_of(next_decision(spec, ()))
    second = step_of(next_decision(spec, (finish(first, 9.0, 9.0, 9.0),)))

    assert first.executor is not None
    assert first.planner is not None
    assert (first.executor.logprobs, first.planner.logprobs, first.votes_needed) == (True, False, None)
    assert second.planner is not None
    assert second.planner.logprobs is False


def test_p1_star_is_the_plan_of_the_surest_text():
    step = finished_step("stage1", text(0, 3.0), text(1, 2.1), text(2, 2.1))

    goal, why = draw_p1_star(spec_of(), step)

    assert goal is not None
    assert goal.text == "plan 1"
    assert "lowest perplexity" in why


def test_a_category_has_its_own_theta_and_an_unknown_one_the_defaults():
    answers = {"stage1": (3.0, 3.5, 9.0)}

    assert int(play(spec_of(category="writing"), answers)[1].stage) == 1
    assert int(play(spec_of(category="roleplay"), answers)[1].stage) == 2
    assert int(play(spec_of(), answers)[1].stage) == 2


def test_without_log_probabilities_nothing_is_accepted_on_the_small_model_and_the_watch_sees_it():
    history, end = play(spec_of(), {"stage1": (None,) * 3, "stage2-execute": (None,) * 3})

    assert int(end.stage) == 3
    assert "no log-probabilities arrived" in step_of(next_decision(spec_of(), history[:1])).reason
    assert line_parses(PolicyName.COPE, history[0]) is False
    assert line_parses(PolicyName.COPE, finished_step("stage1", text(0, 2.0), text(1, 2.0))) is True


def test_the_truncated_variant_returns_stage_2s_candidate_without_accepting_it():
    _, end = play(spec_of(name=PolicyName.COPE_S2), {"stage1": (3.0,) * 3, "stage2-execute": (2.9, 2.3, 2.4)})

    assert (end.step, end.sample_index, end.accepted) == ("stage2-execute", 1, False)


def test_when_the_money_is_gone_the_surest_text_is_the_answer():
    best = best_vote((finished_step("stage1", text(0, 3.0), text(1, 2.5)),), because="no money")

    assert best is not None
    assert (best.sample_index, best.accepted, best.degraded) == (1, False, True)


def test_each_turn_is_a_cascade_on_the_accepted_earlier_turns():
    spec = spec_of("Shorter.", "In rhyme.")
    answers = {"stage1": (1.5, 1.2, 3.0), "turn2/stage1": (5.0,) * 3, "turn2/stage2-execute": (1.1, 1.3, 1.4)}
    history, end = play(spec, answers)

    assert [step.name for step in history] == [
        "stage1", "turn2/stage1", "turn2/stage2-plan", "turn2/stage2-execute", "turn3/stage1",
    ]  # fmt: skip
    last = step_of(next_decision(spec, history[:4]))
    assert [(m.role, m.content) for m in problem_of(spec, last).conversation] == [
        ("user", "Write a toast."), ("assistant", "text 1"), ("user", "Shorter."), ("assistant", "text 0"),
        ("user", "In rhyme."),
    ]  # fmt: skip
    assert (end.step, end.accepted) == ("turn3/stage1", True)
    assert [turn.step for turn in answered_turns(spec, history)] == ["stage1", "turn2/stage2-execute", "turn3/stage1"]


def test_the_result_holds_every_turns_text_and_how_sure_each_was():
    spec = spec_of("Shorter.")
    history, end = play(spec, {"stage1": (1.5, 1.2, 3.0), "turn2/stage1": (1.9, 1.8, 1.7)})
    body = completion_body(spec, history, end, created_at=datetime(2026, 11, 2, tzinfo=UTC))

    assert body["choices"][0]["message"]["content"] == "text 2"
    assert [turn["content"] for turn in body["cope"]["turns"]] == ["text 1", "text 2"]
    assert [step["confidence"] for step in body["cope"]["steps"]] == pytest.approx([1.2, 1.7])
    assert body["cope"]["votes"] == []


def test_what_a_finished_task_keeps_are_its_turns_texts_and_every_samples_score():
    spec = spec_of("Shorter.")
    history, _ = play(spec, {"stage1": (1.5, 1.2, 3.0), "turn2/stage1": (1.9, 1.8, 1.7)})
    kept = prune_history(replace(spec, store=StoreLevel.ANSWERS), history)

    assert [[s.index for s in step.samples if s.solution] for step in kept] == [[1], [2]]
    assert all(s.mean_logprob is not None for step in kept for s in step.samples)


def test_policies_tasks_and_steps_of_kind_open_are_read_back_as_they_were_written():
    spec = spec_of("Shorter.", category="writing")
    payload = encode_payload(spec.problem, spec.options, requested_model="cope", store=spec.store)
    decoded = decode_task(spec.task_id, payload=payload, policy=encode_policy(spec.policy), seed=7, on_budget="hold")
    step = replace(finished_step("stage1", text(0, 2.5)), scoring=scoring_text(0.4), started_at=NOON)

    assert decoded.problem == spec.problem
    assert decoded.policy == spec.policy
    assert decode_step(encode_step(step)) == step
    assert "original log-probabilities" in (step.scoring or "")
    assert "temperature 0.4" in (step.scoring or "")
    assert candidate(step) is not None


def test_a_policy_stored_before_there_was_a_theta_still_reads():
    old = encode_policy(PolicySpec(PolicyName.COPE, "small", "large"))

    assert "theta" not in old
    assert decode_policy(old).theta == ()
