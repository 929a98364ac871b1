"""A quote's bound on a step covers what will be reserved for it, whatever plans come before it and however short the
model's context is."""

from dataclasses import dataclass, replace

import pytest

from cope.adapters.memory import SequentialIds
from cope.core.history import FinishedStep, Sample, SampleStatus
from cope.core.models import Endpoint, ModelCatalog, ModelEntry
from cope.core.money import NanoUSD, Price
from cope.core.policies.registry import next_decision
from cope.core.policies.spec import PolicyName
from cope.core.prices import PriceTable
from cope.core.problem import Kind
from cope.core.prompts import BUILT_IN
from cope.core.request import RequestDefaults, RequestParser
from cope.core.stages import Stage, Step, Tier
from cope.core.survey import Reach
from cope.core.task import CallerOptions, TaskSpec
from cope.usecases.dry_run import Surveyor
from cope.usecases.ingest import new_task
from cope.usecases.run_step import step_worst_case
from cope.usecases.worst_path import step_size, worst_path
from tests.support import NOON, make_policy, make_price, make_problem, make_spec

PRICE = make_price("2.50", "10.00")
PROMPTS = BUILT_IN["instruct"]
SMALL = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 4096)
CODED = {"policy": "a policy", "queue": "small"}


@dataclass(frozen=True)
class Parts:
    catalog: ModelCatalog
    prices: PriceTable


def entry(context: int) -> ModelEntry:
    return ModelEntry("large", "large", "http://localhost/v1", Tier.LARGE, "instruct", context, price_id="p")


def unread(step: Step, plan: str | None) -> FinishedStep:
    samples = tuple(Sample(i, SampleStatus.FINISHED, plan=plan, solution="?") for i in range(step.n))
    return FinishedStep(step.name, step.stage, step.tier, step.model, step.n, samples, "", "", NOON, NOON)


def real_steps(spec: TaskSpec, *, goal: str, guideline: str) -> list[Step]:
    """The steps of a line whose answers are never readable, with these plans."""
    steps: list[Step] = []
    history: tuple[FinishedStep, ...] = ()
    while isinstance(step := next_decision(spec, history), Step):
        steps.append(step)
        plan = None if step.planner is None else goal if step.stage is Stage.SMALL_PLANS_AND_EXECUTES else guideline
        history = (*history, unread(step, plan))
    return steps


@pytest.mark.parametrize("context", [256, 700, 1024, 1600, 3000, 4096, 128_000])
@pytest.mark.parametrize("length", [0, 1, 300, 900, 2048])
@pytest.mark.parametrize("max_tokens", [None, 10, 700])
def test_no_plan_of_any_length_makes_a_reserve_larger_than_was_quoted(
    context: int, length: int, max_tokens: int | None
):
    spec = make_spec(make_problem("Why? " * 60), options=CallerOptions(max_tokens=max_tokens))
    model = entry(context)
    rungs = worst_path(spec)
    steps = real_steps(spec, goal="g" * min(length, 768), guideline="g" * length)

    assert [step.name for step in steps] == [rung.longest.name for rung in rungs]
    for step, rung in zip(steps, rungs, strict=True):
        reserved = step_worst_case(spec, step, model, PROMPTS, PRICE)
        assert reserved <= step_size(spec, rung, model, PROMPTS, PRICE).worst


def test_in_a_long_context_the_bound_is_the_reserve_with_the_longest_guideline():
    spec, model = make_spec(), entry(128_000)
    (*_, last), (*_, rung) = real_steps(spec, goal="", guideline="g" * 2048), worst_path(spec)

    reserved = step_worst_case(spec, last, model, PROMPTS, PRICE)
    assert step_size(spec, rung, model, PROMPTS, PRICE).worst == reserved


@pytest.mark.parametrize(
    ("name", "reaches"),
    [
        (PolicyName.COPE, [Reach.ALWAYS, Reach.ESCALATED, Reach.ESCALATED, Reach.UNRESOLVED]),
        (PolicyName.SMALL, [Reach.ALWAYS]),
        (PolicyName.SMALL_MAJORITY, [Reach.ALWAYS]),
        (PolicyName.LARGE, [Reach.ALWAYS]),
        (PolicyName.PASSTHROUGH, [Reach.ALWAYS]),
    ],
)
def test_which_lines_come_to_which_step(name: PolicyName, reaches: list[Reach]):
    assert [rung.reach for rung in worst_path(make_spec(policy=make_policy(name)))] == reaches


def test_a_cascade_cut_off_after_a_stage_has_no_step_beyond_it():
    two, one = (make_spec(policy=replace(make_policy(), max_stage=stage)) for stage in (2, 1))

    assert [rung.longest.name for rung in worst_path(two)] == ["stage1", "stage2-plan", "stage2-execute"]
    assert [rung.longest.name for rung in worst_path(one)] == ["stage1"]


def test_a_file_comes_to_the_sum_of_its_lines_also_where_some_are_of_equal_length():
    catalog = ModelCatalog({"small": SMALL, "large": entry(4096)}, "small", "large", BUILT_IN)
    surveyor = Surveyor(Parts(catalog, PriceTable([PRICE])), seed=1, pilot_lines=2, now=NOON, window_s=86_400)
    parser = RequestParser(RequestDefaults(Kind.MATH), catalog)
    bodies: list[dict[str, object]] = [
        {"messages": [{"role": "user", "content": "é" * 10}]},
        {"messages": [{"role": "user", "content": "e" * 20}]},
        {"messages": [{"role": "system", "content": "e" * 10}, {"role": "user", "content": "e" * 10}]},
        {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "e" * 20}]},
        {"messages": [{"role": "user", "content": "e" * 20}], "cope": {"kind": "choice", "choices": ["a", "b" * 90]}},
        {"messages": [{"role": "user", "content": "e" * 20}], "cope": {"kind": "choice", "choices": ["a", "b"]}},
        {"messages": [{"role": "user", "content": "e" * 20}], "max_tokens": 5},
    ]
    total = 0
    for number, body in enumerate(bodies, 1):
        request = parser.parse({"model": "cope", **body})
        surveyor.add(new_task(SequentialIds(), request, custom_id=str(number), line=number, **CODED), request)
        spec = make_spec(request.problem, policy=request.policy, options=request.options)
        paid = [rung for rung in worst_path(spec) if rung.longest.tier is Tier.LARGE]
        total += sum(step_size(spec, rung, entry(4096), PROMPTS, PRICE).worst for rung in paid)
    survey, pilot = surveyor.finish()

    assert (survey.worst, survey.lines, len(pilot)) == (total, 7, 2)


def test_a_quotes_maximum_is_reckoned_at_the_dearest_of_a_models_endpoints():
    dear = replace(PRICE, price_id="dear", output_per_mtok=NanoUSD(3 * PRICE.output_per_mtok))
    places = (Endpoint("cheap", "http://one/v1"), Endpoint("dear", "http://two/v1", price_id="dear"))
    line = {"model": "large", "messages": [{"role": "user", "content": "2 + 3?"}]}

    def worst(endpoints: tuple[Endpoint, ...], prices: list[Price]) -> int:
        large = replace(entry(4096), endpoints=endpoints)
        catalog = ModelCatalog({"small": SMALL, "large": large}, "small", "large", BUILT_IN)
        surveyor = Surveyor(Parts(catalog, PriceTable(prices)), seed=1, pilot_lines=0, now=NOON, window_s=86_400)
        request = RequestParser(RequestDefaults(Kind.MATH), catalog).parse(line)
        surveyor.add(new_task(SequentialIds(), request, custom_id="a", line=1, **CODED), request)
        return surveyor.finish()[0].worst

    only_dear = worst((), [replace(dear, price_id=PRICE.price_id)])
    assert worst(places, [PRICE, dear]) == only_dear > worst((), [PRICE])
