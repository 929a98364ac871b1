"""Kind `action` through the jobs: in a batch beside other kinds, under every policy that serves it, and in a quote."""

from dataclasses import replace

import pytest

from cope.adapters.answer_helper import in_process_judge
from cope.adapters.memory import SequentialIds
from cope.core.problem import Kind
from cope.core.request import RequestDefaults, RequestParser
from cope.ports.model import ChatAnswer, ChatRequest
from cope.usecases.dry_run import Surveyor
from cope.usecases.finalise import finalise_next
from cope.usecases.ingest import new_task
from cope.usecases.run_step import step_worst_case
from cope.usecases.worst_path import step_size, worst_path
from tests.support import NOON, make_price, make_spec
from tests.usecases.test_every_policy import CATALOG, LARGE, POLICIES, Parts, PriceTable
from tests.usecases.test_pipeline import USAGE, current, line, make_parts, results, settle, submit

SERVING = sorted(POLICIES.keys() - {"cascade-vote", "cascade-verify"})
OPTIONS = {name: {**POLICIES[name], "prompt_set": "instruct"} for name in SERVING}  # one model's own knows no actions
ACTIONS = ["Go to desk 1", "look"]


def playing(request: ChatRequest) -> ChatAnswer:
    text = "Action: go to desk 1" if "possible now" in request.messages[-1].content else "\\boxed{5}"
    return ChatAnswer(text, "stop", USAGE, "id")


async def test_one_batch_mixes_actions_with_other_kinds_under_every_policy_that_serves_them() -> None:
    parts = replace(make_parts(playing), catalog=CATALOG, judge=in_process_judge())
    lines = [line(name, model=name, kind="action", actions=ACTIONS, **OPTIONS[name]) for name in SERVING]
    batch = await submit(parts, *lines, line("math", model="cope"))
    await settle(parts)
    assert await finalise_next(parts, lease_s=30.0)
    done = await current(parts, batch)

    output = await results(parts, done.output_file_id)
    told = {str(one["custom_id"]): one["response"]["body"]["cope"] for one in output}  # type: ignore[index]
    assert {name: told[name]["answer"] for name in told} == {**dict.fromkeys(SERVING, "Go to desk 1"), "math": "5"}
    assert {name: block["kind"] for name, block in told.items()} == {**dict.fromkeys(SERVING, "action"), "math": "math"}
    assert told["cope"]["votes"][0]["answer_key"] == "go to desk 1"


async def test_a_batch_with_lines_that_cannot_be_carried_out_is_refused_by_line_and_key() -> None:
    parts = replace(make_parts(playing), catalog=CATALOG, judge=in_process_judge())
    batch = await submit(
        parts,
        line("refused", model="cascade-vote", kind="action", actions=ACTIONS),
        line("none", model="cope", kind="action"),
        line("twice", model="cope", kind="action", actions=["look", "Look."]),
    )
    errors = (await current(parts, batch)).errors
    assert [(error.line, error.param) for error in errors] == [
        (1, "body.cope.prompt_sets"),
        (2, "body.cope.actions"),
        (3, "body.cope.actions[1]"),
    ]


def survey_of(*actions: list[str]) -> list[int]:
    """The quoted worst cases of the large model's steps, one line of cope for each list."""
    worst: list[int] = []
    for given in actions:
        parts = Parts(CATALOG, PriceTable([make_price("2.50", "10.00")]))
        surveyor = Surveyor(parts, seed=1, pilot_lines=0, now=NOON, window_s=3600)
        cope = {"kind": "action", "actions": given}
        body = {"model": "large", "messages": [{"role": "user", "content": "?"}], "cope": cope}
        request = RequestParser(RequestDefaults(Kind.MATH), CATALOG).parse(body)
        row = new_task(SequentialIds(), request, custom_id="a", line=1, policy="a policy", queue="large")
        surveyor.add(row, request)
        surveyor.add(row, request)
        (group,) = surveyor.finish()[0].groups
        worst.append(int(group.steps[0].worst))
    return worst


def test_a_quote_counts_the_actions_that_are_sent_along() -> None:
    few, many = survey_of(["look"], ["look", *(f"go to desk {i}" for i in range(20))])
    assert many > few


@pytest.mark.parametrize("name", SERVING)
def test_what_is_reserved_for_a_decision_is_never_more_than_was_quoted(name: str) -> None:
    cope = {"kind": "action", "actions": ACTIONS, **OPTIONS[name]}
    body = {"model": name, "messages": [{"role": "user", "content": "A desk."}], "cope": cope}
    request = RequestParser(RequestDefaults(Kind.MATH), CATALOG).parse(body)
    spec, price = make_spec(request.problem, policy=request.policy), make_price("2.50", "10.00")
    for rung in worst_path(spec):
        prompts = CATALOG.prompts(rung.longest.model, rung.longest.prompt_set)
        quoted = step_size(spec, rung, LARGE, prompts, price).worst
        for step in (rung.longest, rung.shortest):
            assert 0 < step_worst_case(spec, step, LARGE, prompts, price) <= quoted
