"""Every policy in one batch, and what a quote says of the baselines."""

from dataclasses import dataclass, replace
from fractions import Fraction

import pytest

from cope.adapters.answer_helper import in_process_judge
from cope.adapters.memory import SequentialIds
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.policies.registry import next_decision
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.prices import PriceTable
from cope.core.problem import Kind
from cope.core.prompts import BUILT_IN
from cope.core.request import RequestDefaults, RequestParser
from cope.core.scorer import Scorer, TierScorer
from cope.core.stages import Step, Tier
from cope.core.survey import Reach, Survey
from cope.core.task import CallerOptions
from cope.ports.model import ChatAnswer, ChatRequest
from cope.usecases.dry_run import Surveyor
from cope.usecases.finalise import finalise_next
from cope.usecases.ingest import new_task
from cope.usecases.run_step import step_worst_case
from cope.usecases.worst_path import step_size, worst_path
from tests.support import NOON, make_price, make_problem, make_spec
from tests.usecases.test_pipeline import PRICE, SMALL, USAGE, current, line, make_parts, results, settle, submit

LARGE = ModelEntry("large", "large", "http://localhost/v1", Tier.LARGE, "instruct", 4096, price_id="p")
SECOND = replace(SMALL, name="second")
SCORER = Scorer("sure", "1", (TierScorer("small", 3.0, (), Fraction(1, 2)),), "large")
CATALOG = ModelCatalog(
    {"small": replace(SMALL, prompt_set="instruct", context_length=4096), "second": SECOND, "large": LARGE},
    "small",
    "large",
    BUILT_IN,
    {"sure": SCORER},
    runs_programs=True,
)

POLICIES: dict[str, dict[str, object]] = {
    "cope": {},
    "cope-s2": {},
    "small": {},
    "small-majority": {},
    "large": {},
    "cascade-vote": {"prompt_sets": ["cot1", "cot2"]},
    "cascade-verify": {},
    "abc": {"tiers": [["small", "second"], ["large"]]},
    "frugalgpt": {"scorer": "sure"},
    "plan-execute": {"plan": "guideline"},
    "large-plan": {},
    "small-guided": {"n": 4},
}


class SaysFive:
    """A `ProgramValues` whose only program is worth 5."""

    async def value_of(self, program: str, variable: str) -> str | None:
        return "5" if program == "ans = 5" else None


def agreed(request: ChatRequest) -> ChatAnswer:
    text = "ans = 5" if "program" in request.messages[-1].content else "\\boxed{5}"
    return ChatAnswer(text, "stop", USAGE, "id")


async def test_one_batch_may_mix_every_policy():
    parts = replace(make_parts(agreed), catalog=CATALOG, judge=in_process_judge(programs=SaysFive()))
    batch = await submit(parts, *[line(name, model=name, **cope) for name, cope in POLICIES.items()])
    await settle(parts)
    assert await finalise_next(parts, lease_s=30.0)
    done = await current(parts, batch)

    output = await results(parts, done.output_file_id)
    told = {str(one["custom_id"]): one["response"]["body"]["cope"] for one in output}  # type: ignore[index]
    assert {name: block["policy"] for name, block in told.items()} == {name: name for name in POLICIES}
    assert {block["answer"] for block in told.values()} == {"5"}
    assert {name: [(s["name"], s["model"], s["n"]) for s in block["steps"]] for name, block in told.items()} == {
        "cope": [("stage1", "small", 8)],
        "cope-s2": [("stage1", "small", 8)],
        "small": [("solve", "small", 1)],
        "small-majority": [("solve", "small", 8)],
        "large": [("solve", "large", 1)],
        "cascade-vote": [("set1", "small", 4), ("set2", "small", 4)],
        "cascade-verify": [("set1", "small", 4), ("set2", "small", 4)],
        "abc": [("tier1", "small", 1), ("tier1-2", "second", 1)],
        "frugalgpt": [("tier1", "small", 1)],
        "plan-execute": [("plan", "large", 1), ("solve", "small", 1)],
        "large-plan": [("plan", "large", 1), ("solve", "large", 1)],
        "small-guided": [("plan", "large", 1), ("execute", "small", 4)],
    }
    assert done.spent == 5 * PRICE.cost(USAGE)  # one call each, and two of large-plan


# ---- quotes ---------------------------------------------------------------------------------------------------------


def policy(name: str, **cope: object) -> PolicySpec:
    body = {"model": name, "messages": [{"role": "user", "content": "?"}], "cope": {**POLICIES[name], **cope}}
    return RequestParser(RequestDefaults(Kind.MATH), CATALOG).parse(body).policy


@pytest.mark.parametrize(
    ("name", "cope", "reaches"),
    [
        ("cascade-vote", {}, [Reach.ALWAYS, Reach.ALWAYS, Reach.ESCALATED]),
        ("cascade-verify", {}, [Reach.ALWAYS, Reach.ALWAYS, Reach.ESCALATED]),
        ("abc", {}, [Reach.ALWAYS, Reach.ALWAYS, Reach.ESCALATED]),
        ("abc", {"tiers": [["small"], ["second"], ["large"]]}, [Reach.ALWAYS, Reach.ESCALATED, Reach.UNRESOLVED]),
        ("frugalgpt", {}, [Reach.ALWAYS, Reach.ESCALATED]),
        ("plan-execute", {}, [Reach.ALWAYS, Reach.ALWAYS]),
        ("large-plan", {}, [Reach.ALWAYS, Reach.ALWAYS]),
        ("small-guided", {}, [Reach.ALWAYS, Reach.ALWAYS]),
    ],
)
def test_which_lines_come_to_which_step(name: str, cope: dict[str, object], reaches: list[Reach]):
    assert [rung.reach for rung in worst_path(make_spec(policy=policy(name, **cope)))] == reaches


@pytest.mark.parametrize("name", ["cascade-vote", "abc", "frugalgpt", "plan-execute", "large-plan", "small-guided"])
@pytest.mark.parametrize("max_tokens", [None, 10])
def test_what_is_reserved_for_a_step_is_never_more_than_was_quoted(name: str, max_tokens: int | None):
    spec = make_spec(make_problem("Why? " * 60), policy=policy(name), options=CallerOptions(max_tokens=max_tokens))
    price = make_price("2.50", "10.00")
    for rung in worst_path(spec):
        prompts = CATALOG.prompts(rung.longest.model, rung.longest.prompt_set)
        quoted = step_size(spec, rung, LARGE, prompts, price).worst
        for step in (rung.longest, rung.shortest):
            assert 0 < step_worst_case(spec, step, LARGE, prompts, price) <= quoted


def test_the_examples_are_billed_on_the_large_model_too():
    price = make_price("2.50", "10.00")

    def worst(chosen: PolicySpec) -> int:
        spec = make_spec(policy=chosen)
        last = worst_path(spec)[-1].longest
        return step_worst_case(spec, last, LARGE, CATALOG.prompts(last.model, last.prompt_set), price)

    assert worst(policy("cascade-vote")) > worst(policy("large"))
    assert worst(policy("cascade-vote")) == worst(policy("large", prompt_set="cot1"))


@dataclass(frozen=True)
class Parts:
    catalog: ModelCatalog
    prices: PriceTable


def surveyed(name: str, catalog: ModelCatalog = CATALOG, **cope: object) -> tuple[Survey, list[PolicySpec]]:
    """A file of one line: what a dry run learns of it, and the pilot's policies."""
    surveyor = Surveyor(
        Parts(catalog, PriceTable([make_price("2.50", "10.00")])), seed=1, pilot_lines=1, now=NOON, window_s=3600
    )
    body = {"model": name, "messages": [{"role": "user", "content": "?"}], "cope": {**POLICIES[name], **cope}}
    request = RequestParser(RequestDefaults(Kind.MATH), catalog).parse(body)
    row = new_task(SequentialIds(), request, custom_id="a", line=1, policy="a policy", queue="small")
    surveyor.add(row, request)
    survey, pilot = surveyor.finish()
    return survey, [replace(request.policy, max_stage=1) for _ in pilot]


@pytest.mark.parametrize("name", ["cope", "cascade-vote", "cascade-verify", "abc", "frugalgpt"])
def test_a_pilot_tries_the_free_first_stage_of_what_may_escalate(name: str):
    survey, piloted = surveyed(name)

    assert survey.groups[0].pilots
    assert len(piloted) == 1
    decision = next_decision(make_spec(policy=piloted[0]), ())
    assert isinstance(decision, Step)
    assert decision.tier is Tier.SMALL


@pytest.mark.parametrize("name", ["plan-execute", "large-plan", "small-guided", "large"])
def test_where_every_line_is_paid_for_there_is_nothing_to_try(name: str):
    survey, piloted = surveyed(name)

    assert (survey.groups[0].pilots, piloted) == (False, [])


def test_no_pilot_runs_where_the_first_tier_has_a_price():
    survey, piloted = surveyed("abc", tiers=[["small", "large"], ["large"]])

    assert (survey.groups[0].pilots, piloted) == (False, [])
    assert [step.reach for step in survey.groups[0].steps] == [Reach.ALWAYS, Reach.ESCALATED]


def test_only_policies_with_a_stage_2_of_the_small_model_draw_again():
    assert surveyed("cope")[0].groups[0].votes == 8
    assert surveyed("cascade-vote")[0].groups[0].votes == 0


def test_the_policies_named_here_are_all_there_are():
    # `small-multi` is of kind code: see test_code_pipeline.
    assert set(POLICIES) == {name.value for name in PolicyName} - {"passthrough", "audit", "small-multi"}
