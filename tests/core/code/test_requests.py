"""What a request of kind `code` may say, how it is refused, and the words that models are sent."""

from dataclasses import replace

import pytest

from cope.core.behaviours import MAX_PROBES, probes_of
from cope.core.errors import BadRequest
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.plans import GoalPlan
from cope.core.policies.spec import PolicyName
from cope.core.problem import Kind
from cope.core.prompts import BUILT_IN, INSTRUCT, render_executor, render_guideline_planner
from cope.core.request import ParsedRequest, RequestDefaults, parse_cope_defaults, parse_request
from cope.core.stages import StopRule, Tier

CATALOG = ModelCatalog(
    {
        "s": ModelEntry("s", "s", "http://localhost/v1", Tier.SMALL, "instruct", 4096),
        "l": ModelEntry("l", "l", "http://localhost/v1", Tier.LARGE, "instruct", 4096),
        "tiny": ModelEntry("tiny", "tiny", "http://localhost/v1", Tier.SMALL, "reference", 4096),
    },
    "s",
    "l",
    BUILT_IN,
    runs_programs=True,
)
TESTS = ["assert add(1, 2) == 3"]


def parse(kind: str = "code", model: str = "cope", **cope: object) -> ParsedRequest:
    body = {"model": model, "messages": [{"role": "user", "content": "Add."}], "cope": {"kind": kind, **cope}}
    return parse_request(body, defaults=RequestDefaults(Kind.MATH), catalog=CATALOG)


def test_a_request_of_kind_code_brings_tests_a_setup_and_an_entry_point() -> None:
    request = parse(tests=TESTS, setup="import math", entry_point="add", choose="behaviour", n=4)
    problem = request.problem
    assert (problem.tests, problem.setup, problem.entry_point) == (tuple(TESTS), "import math", "add")
    assert problem.by_behaviour
    assert parse(tests=TESTS, stop="first_pass").policy.stop is StopRule.FIRST_PASS
    assert parse(model="small-multi", tests=TESTS).policy.name is PolicyName.SMALL_MULTI


@pytest.mark.parametrize("model", ["small", "large"])
def test_policies_that_take_their_only_program_need_no_tests(model: str) -> None:
    assert parse(model=model).problem.tests == ()


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({}, "cope.tests"),
        ({"tests": []}, "cope.tests"),
        ({"tests": [""]}, "cope.tests[0]"),
        ({"tests": ["assert 1"] * 201}, "cope.tests"),
        ({"tests": "assert 1"}, "cope.tests"),
        ({"tests": TESTS, "setup": 7}, "cope.setup"),
        ({"tests": TESTS, "entry_point": "a.b"}, "cope.entry_point"),
        ({"tests": TESTS, "entry_point": "import"}, "cope.entry_point"),
        ({"tests": TESTS, "choose": "best"}, "cope.choose"),
        ({"tests": TESTS, "choose": "behaviour"}, "cope.choose"),
        ({"model": "small", "choose": "behaviour", "entry_point": "f"}, "cope.choose"),
        ({"model": "large", "stop": "first_pass"}, "cope.stop"),
        ({"tests": TESTS, "choices": ["a", "b"]}, "cope.choices"),
        ({"tests": TESTS, "answer_pattern": "x"}, "cope.answer_pattern"),
        ({"tests": TESTS, "small": "tiny"}, "cope.prompt_set"),
        ({"kind": "math", "tests": TESTS}, "cope.tests"),
        ({"kind": "math", "entry_point": "f"}, "cope.entry_point"),
        ({"kind": "math", "choose": "random"}, "cope.choose"),
        ({"kind": "math", "stop": "first_pass"}, "cope.stop"),
        ({"kind": "math", "model": "small-multi"}, "cope.policy"),
        ({"model": "l", "tests": TESTS}, "cope.tests"),
    ],
)
def test_what_contradicts_is_refused_by_name(request_: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse(**request_)  # type: ignore[arg-type]
    assert refusal.value.param == param


def test_a_batch_of_kind_code_may_leave_the_tests_to_its_lines() -> None:
    block = parse_cope_defaults({"kind": "code", "n": 4}, catalog=CATALOG, kind=Kind.MATH)
    assert block.line_defaults == {"kind": "code", "n": 4}


def test_the_executor_is_told_what_to_define_and_what_must_pass() -> None:
    problem = parse(tests=TESTS, entry_point="add").problem
    said = render_executor(INSTRUCT, problem, goal=GoalPlan("Give {tests} back."))[-1].content
    assert said.startswith("Add.\n\nWrite a Python program for this that defines `add`,")
    assert said.endswith("It must pass these tests:\nassert add(1, 2) == 3\n\nGoal: Give {tests} back.")


def test_without_tests_and_entry_point_the_words_close_up() -> None:
    said = render_executor(INSTRUCT, parse(model="large").problem)[-1].content
    assert "{" not in said
    assert said.endswith("without tests or examples in it.")


def test_planners_write_no_code() -> None:
    said = render_guideline_planner(INSTRUCT, parse(tests=TESTS).problem)[-1].content
    assert "Do not write any code." in said


def test_further_inputs_are_made_from_the_calls_in_the_tests() -> None:
    probes = probes_of(("assert f([1, 2], 'ab') == 3", "assert not f(x, 5)"), "f")
    assert probes == (
        "f([], 'ab')", "f([2, 1], 'ab')", "f([1, 2, 1, 2], 'ab')", "f([1], 'ab')", "f([1, 2], '')",
        "f([1, 2], 'ba')", "f([1, 2], 'abab')", "f([1, 2], 'a')", "f(x, 6)", "f(x, 4)", "f(x, 0)", "f(x, -5)",
    )  # fmt: skip
    assert probes_of(("assert f(1) == 2",), None) == ()
    assert probes_of(("not python (",), "f") == ()
    assert len(probes_of(tuple(f"assert f({i}, {i}) == 0" for i in range(50)), "f")) <= MAX_PROBES


@pytest.mark.parametrize(
    "model", ["cascade-vote", "small-guided", "abc", "small-majority", "plan-execute", "large-plan"]
)
def test_the_other_policies_serve_programs(model: str) -> None:
    own = {"tiers": [["s"], ["l"]]} if model == "abc" else {"plan": "goal"} if model == "plan-execute" else {}

    request = parse(model=model, tests=TESTS, **own)

    assert request.problem.tests == tuple(TESTS)
    assert request.policy.baseline.prompt_sets == (("cot1", "cot2") if model == "cascade-vote" else ())


def test_a_policy_that_compares_two_votes_refuses_programs() -> None:
    with pytest.raises(BadRequest) as refusal:
        parse(model="cascade-verify", tests=TESTS)

    assert refusal.value.param == "cope.policy"
    assert "cascade-vote" in refusal.value.message


def test_where_nothing_runs_programs_only_what_draws_one_is_served() -> None:
    def ask(model: str) -> ParsedRequest:
        body = {"model": model, "messages": [{"role": "user", "content": "Add."}]}
        body["cope"] = {"kind": "code", "tests": TESTS}
        return parse_request(body, defaults=RequestDefaults(Kind.MATH), catalog=replace(CATALOG, runs_programs=False))

    assert ask("small").policy.name is PolicyName.SMALL
    with pytest.raises(BadRequest, match="COPE_SANDBOX_PROCESSES is 0") as refusal:
        ask("cope")
    assert (refusal.value.code, refusal.value.param) == ("program_runner_not_configured", "cope.kind")
