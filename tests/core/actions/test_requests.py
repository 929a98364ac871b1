"""What a request of kind `action` may say, how it is refused, what models are sent, and how it is stored."""

from dataclasses import replace

import pytest

from cope.core.answer_pool import pool_key
from cope.core.codec import decode_task, encode_payload, encode_policy
from cope.core.errors import BadRequest
from cope.core.ids import TaskId
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.plans import GoalPlan, GuidelinePlan
from cope.core.policies.spec import PolicyName
from cope.core.problem import Kind, Message, Problem
from cope.core.prompts import (
    BUILT_IN,
    INSTRUCT,
    PromptSet,
    RolePrompts,
    Shot,
    render_executor,
    render_goal_planner,
    render_guideline_planner,
)
from cope.core.request import ParsedRequest, RequestDefaults, RequestParser, parse_cope_defaults, parse_request
from cope.core.stages import Tier
from cope.core.task import NO_OPTIONS, StoreLevel
from tests.support import make_policy

OWN = PromptSet("own", "1", "", "", "", "\n", {Kind.ACTION: INSTRUCT.kinds[Kind.ACTION]})
CATALOG = ModelCatalog(
    {
        "s": ModelEntry("s", "s", "http://localhost/v1", Tier.SMALL, "instruct", 4096),
        "l": ModelEntry("l", "l", "http://localhost/v1", Tier.LARGE, "instruct", 4096),
        "tiny": ModelEntry("tiny", "tiny", "http://localhost/v1", Tier.SMALL, "reference", 4096),
    },
    "s",
    "l",
    {**BUILT_IN, "own": OWN},
)
ACTIONS = ["go to desk 1", "look"]


def parse(kind: str | None = "action", model: str = "cope", **cope: object) -> ParsedRequest:
    cope = cope if kind is None else {"kind": kind, **cope}
    body = {"model": model, "messages": [{"role": "user", "content": "You see a desk."}], "cope": cope}
    return parse_request(body, defaults=RequestDefaults(Kind.MATH), catalog=CATALOG)


def test_a_request_of_kind_action_brings_its_admissible_actions_as_it_spells_them() -> None:
    problem = parse(actions=["Go to desk 1", "look"]).problem
    assert (problem.kind, problem.actions) == (Kind.ACTION, ("Go to desk 1", "look"))
    assert parse(actions=["look"]).problem.actions == ("look",)


@pytest.mark.parametrize(
    ("model", "cope"),
    [
        ("cope", {"waves": [6, 2]}),
        ("cope-s2", {}),
        ("small", {}),
        ("small-majority", {}),
        ("large", {}),
        ("abc", {"tiers": [["s"], ["l"]]}),
        ("plan-execute", {}),
        ("large-plan", {}),
        ("small-guided", {}),
        ("cascade-vote", {"prompt_sets": ["own"]}),
    ],
)
def test_every_policy_whose_prompts_know_actions_serves_them(model: str, cope: dict[str, object]) -> None:
    assert parse(model=model, actions=ACTIONS, **cope).policy.name is PolicyName(model)


@pytest.mark.parametrize(
    ("request_", "param", "says"),
    [
        ({}, "cope.actions", "needs `cope.actions`"),
        ({"actions": None}, "cope.actions", "needs `cope.actions`"),
        ({"actions": []}, "cope.actions", "1 to 512"),
        ({"actions": "look"}, "cope.actions", "list"),
        ({"actions": ["look"] * 513}, "cope.actions", "1 to 512"),
        ({"actions": ["look", ""]}, "cope.actions[1]", "non-empty"),
        ({"actions": ["look", "  "]}, "cope.actions[1]", "not blank"),
        ({"actions": ["go\nnorth"]}, "cope.actions[0]", "one line"),
        ({"actions": ["x" * 1001]}, "cope.actions[0]", "1000"),
        ({"actions": ["look", 7]}, "cope.actions[1]", "string"),
        ({"actions": ["look", "go", "1. Look."]}, "cope.actions[2]", "`cope.actions[0]` again"),
        ({"actions": ACTIONS, "choices": ["a", "b"]}, "cope.choices", "kind `choice`"),
        ({"actions": ACTIONS, "answer_pattern": "x"}, "cope.answer_pattern", "kind `exact`"),
        ({"actions": ACTIONS, "answer_pointer": "/a"}, "cope.answer_pointer", "kind `exact`"),
        ({"actions": ACTIONS, "small": "tiny"}, "cope.prompt_set", "'reference' of model 'tiny'"),
        ({"actions": ACTIONS, "prompt_set": "reference"}, "cope.prompt_set", "no prompt for kind 'action'"),
        ({"actions": ACTIONS, "model": "cascade-vote"}, "cope.prompt_sets", "no prompt for kind 'action'"),
        ({"actions": ACTIONS, "model": "cascade-verify"}, "cope.prompt_sets", "no prompt for kind 'action'"),
        ({"kind": None, "actions": ACTIONS}, "cope.actions", "this line's is `math`"),
        ({"kind": "choice", "choices": ["a", "b"], "actions": ACTIONS}, "cope.actions", "is `choice`"),
        ({"kind": None, "model": "l", "actions": ACTIONS}, "cope.actions", "set `cope.policy` too"),
        ({"action": ACTIONS, "actions": ACTIONS}, "cope.action", "Unknown key"),
    ],
)
def test_what_lacks_or_contradicts_is_refused_by_name(request_: dict[str, object], param: str, says: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse(**request_)  # type: ignore[arg-type]
    assert refusal.value.param == param
    assert says in refusal.value.message


def test_a_batch_of_kind_action_leaves_the_actions_to_its_lines_or_gives_them_to_all() -> None:
    block = parse_cope_defaults({"kind": "action", "n": 4}, catalog=CATALOG, kind=Kind.MATH)
    assert block.line_defaults == {"kind": "action", "n": 4}
    shared = parse_cope_defaults({"kind": "action", "actions": ACTIONS}, catalog=CATALOG, kind=Kind.MATH)
    parser = RequestParser(RequestDefaults(Kind.MATH, shared.line_defaults), CATALOG)
    line = {"model": "cope", "messages": [{"role": "user", "content": "?"}]}
    assert [parser.parse(line).problem.actions for _ in range(2)] == [tuple(ACTIONS)] * 2


def test_a_project_of_kind_action_needs_actions_on_every_line() -> None:
    parser = RequestParser(RequestDefaults(Kind.ACTION), CATALOG)
    with pytest.raises(BadRequest, match=r"needs `cope\.actions`"):
        parser.parse({"model": "cope", "messages": [{"role": "user", "content": "?"}]})
    assert parse_cope_defaults(None, catalog=CATALOG, kind=Kind.ACTION).line_defaults == {}


def test_the_actions_stand_before_every_role_and_plans_are_no_template() -> None:
    problem = parse(actions=["go to {actions}", "look"]).problem
    shared = "You see a desk.\n\nThe actions possible now, one a line:\n- go to {actions}\n- look\n\n"
    goal, guideline = render_goal_planner(INSTRUCT, problem), render_guideline_planner(INSTRUCT, problem)
    solved = render_executor(
        INSTRUCT, problem, goal=GoalPlan("Find {actions}."), guideline=GuidelinePlan("Look first.")
    )
    assert all(messages[-1].content.startswith(shared) for messages in (goal, guideline, solved))
    assert "next step alone" in goal[-1].content
    assert "next step alone" in guideline[-1].content
    assert solved[-1].content.endswith("word for word.\n\nGoal: Find {actions}.\n\nGuideline: Look first.")


def test_examples_of_a_set_bring_actions_of_their_own() -> None:
    shot = Shot("A red door.", "Action: open door", ("open door", "wait"))
    words = RolePrompts("", "", "Out of:\n{actions}\nChoose.")
    prompts = PromptSet("own", "1", "", "", "", "\n", {Kind.ACTION: words}, {Kind.ACTION: (shot,)})
    sent = render_executor(prompts, parse(actions=ACTIONS).problem)
    assert [message.content for message in sent] == [
        "A red door.\nOut of:\n- open door\n- wait\nChoose.",
        "Action: open door",
        "You see a desk.\nOut of:\n- go to desk 1\n- look\nChoose.",
    ]


def test_history_and_observation_keep_their_turns() -> None:
    history = (Message("user", "Task: find the mug."), Message("assistant", "Action: look"), Message("user", "A desk."))
    sent = render_executor(INSTRUCT, Problem(Kind.ACTION, history, actions=("look",)))
    assert [message.role for message in sent] == ["system", "user", "assistant", "user"]
    assert sent[2].content == "Action: look"


def test_actions_are_stored_with_their_task_and_tasks_stored_before_there_were_any_are_read() -> None:
    request, policy = parse(actions=ACTIONS), make_policy()
    stored = encode_payload(request.problem, NO_OPTIONS, requested_model="cope", store=StoreLevel.ANSWERS)
    before = '{"k":"choice","m":[["user","?"]],"r":"cope","c":["a","b"]}'
    told = {"policy": policy, "seed": 1, "on_budget": "hold"}

    assert decode_task(TaskId("task_1"), payload=stored, **told).problem == request.problem  # type: ignore[arg-type]
    assert decode_task(TaskId("task_1"), payload=before, **told).problem.actions == ()  # type: ignore[arg-type]


def test_other_actions_are_another_question_to_the_answer_pool() -> None:
    policy, problem = encode_policy(make_policy()), parse(actions=ACTIONS).problem
    keys = {
        pool_key(one, NO_OPTIONS, policy=policy, seed=None)
        for one in (
            problem,
            replace(problem, actions=("go to desk 1",)),
            replace(problem, actions=("look", "go to desk 1")),
            replace(problem, kind=Kind.CHOICE, choices=problem.actions, actions=()),
        )
    }
    assert len(keys) == 4
