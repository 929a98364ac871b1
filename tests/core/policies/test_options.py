"""The baselines in a request: selectable by name and by option, and whatever contradicts itself is refused by name."""

from dataclasses import replace
from fractions import Fraction

import pytest

from cope.core.codec import decode_policy, encode_policy
from cope.core.errors import BadRequest
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.policies.options import PlanKind, Seat
from cope.core.policies.spec import PolicySpec
from cope.core.priced import models_of
from cope.core.problem import Kind
from cope.core.prompts import BUILT_IN
from cope.core.request import RequestDefaults, parse_cope_defaults, parse_request
from cope.core.scorer import Scorer, TierScorer
from cope.core.stages import Tier

SCORER = Scorer("numbers", "3", (TierScorer("s", -1.5, (("hedges", -0.25),), Fraction(1, 4)),), "l")
MODELS = {
    name: ModelEntry(name, name, "http://localhost/v1", tier, "instruct", 4096)
    for name, tier in (("s", Tier.SMALL), ("s2", Tier.SMALL), ("l", Tier.LARGE), ("m", Tier.LARGE))
}
BARE = ModelCatalog(MODELS, "s", "l", BUILT_IN)
CATALOG = replace(BARE, scorers={"numbers": SCORER}, runs_programs=True)
ASK = {"model": "cope", "messages": [{"role": "user", "content": "2 + 2?"}]}


def policy(model: str, *, catalog: ModelCatalog = CATALOG, kind: str = "math", **cope: object) -> PolicySpec:
    body = {**ASK, "model": model, "cope": {"kind": kind, **cope}}
    if kind == "choice":
        body["cope"]["choices"] = ["yes", "no"]  # type: ignore[index]
    return parse_request(body, defaults=RequestDefaults(Kind.MATH), catalog=catalog).policy


def refused(model: str, *, catalog: ModelCatalog = CATALOG, kind: str = "math", **cope: object) -> BadRequest:
    with pytest.raises(BadRequest) as refusal:
        policy(model, catalog=catalog, kind=kind, **cope)
    return refusal.value


def test_a_cascade_has_one_cot_and_one_pot_set_unless_told_otherwise():
    assert policy("cascade-vote").baseline.prompt_sets == ("cot1", "pot1")
    assert policy("cascade-verify", prompt_sets=["cot1", "cot2"]).baseline.prompt_sets == ("cot1", "cot2")


def test_thresholds_stand_in_the_name_of_the_policies_that_have_one():
    assert policy("cascade-vote@0.6").tau1 == Fraction(3, 5)
    assert policy("abc@0.6").baseline.agreement == Fraction(3, 5)
    assert policy("abc@0.6", agreement="0.7").baseline.agreement == Fraction(7, 10)


def test_abc_takes_any_configured_models_in_tiers():
    found = policy("abc", tiers=[["s", "s2"], ["m"], ["l"]], agreement="1/2")

    small = (Seat("s", Tier.SMALL), Seat("s2", Tier.SMALL))
    assert found.baseline.tiers == (small, (Seat("m", Tier.LARGE),), (Seat("l", Tier.LARGE),))
    assert found.baseline.samples_per_model == 8  # the second tier is one model, which must have something to agree on
    assert models_of(found) == ("s", "s2", "m", "l")


def test_abc_needs_no_options_with_one_small_and_one_large_model():
    found = policy("abc").baseline

    assert (found.tiers, found.samples_per_model) == (((Seat("s", Tier.SMALL),), (Seat("l", Tier.LARGE),)), 8)
    assert policy("abc", tiers=[["s", "s2"], ["l"]]).baseline.samples_per_model == 1


def test_frugalgpt_has_the_scorers_own_models_and_keeps_the_scorer_with_the_policy():
    found = policy("frugalgpt", scorer="numbers")

    assert [seat.model for (seat,) in found.baseline.tiers] == ["s", "l"]
    assert found.baseline.scorer == SCORER


def test_plan_execute_lets_the_large_model_plan_for_the_small_one_unless_told_otherwise():
    usual, other = policy("plan-execute"), policy("plan-execute", planner="s2", executor="m", plan="guideline")

    assert (usual.baseline.planner, usual.baseline.executor) == (Seat("l", Tier.LARGE), Seat("s", Tier.SMALL))
    assert usual.baseline.plan is PlanKind.GOAL
    assert models_of(other) == ("s2", "m")
    assert models_of(policy("plan-execute", plan="none", executor="m")) == ("m",)


def test_a_model_beside_the_policy_takes_its_tiers_place():
    assert policy("m", policy="large-plan").large == "m"
    assert policy("s2", policy="small-guided").small == "s2"


EVERY: list[tuple[str, dict[str, object]]] = [
    ("cascade-vote", {"prompt_sets": ["cot1"], "tau1": "0.6"}),
    ("cascade-verify", {"prompt_sets": ["pot1", "pot2"], "n": 6}),
    ("abc", {"tiers": [["s", "s2"], ["l"]], "samples_per_model": 2, "agreement": "0.6"}),
    ("frugalgpt", {"scorer": "numbers"}),
    ("plan-execute", {"planner": "s", "executor": "l", "plan": "guideline"}),
    ("plan-execute", {"plan": "none"}),
    ("large-plan", {"large": "m"}),
    ("small-guided", {"n": 4}),
]


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_every_policy_is_read_back_as_it_was_stored(name: str, options: dict[str, object]):
    found = policy(name, **options)

    assert found.name.value == name
    assert decode_policy(encode_policy(found)) == found


def test_a_policy_stored_before_there_were_baselines_is_still_read_and_cope_is_stored_as_it_was():
    stored = (
        '{"large":"l","max_stage":3,"n":8,"name":"cope","p1_star":"full","passthrough_tier":"large",'
        '"prompt_set":null,"small":"s","stop":"lossless","tau1":"3/4","tau2":"1/2","temperatures":{"executor1":0.4,'
        '"executor2":0.8,"executor3":0.0,"planner1":0.8,"planner2":0.8},"threshold_rule":"at_least"}'
    )

    assert decode_policy(stored) == policy("cope")
    assert encode_policy(policy("cope")) == stored


@pytest.mark.parametrize(
    ("name", "options", "param"),
    [
        ("cope", {"tiers": [["s"], ["l"]]}, "cope.tiers"),
        ("cope", {"prompt_sets": ["cot1"]}, "cope.prompt_sets"),
        ("small", {"n": 4}, "cope.n"),
        ("small", {"large": "l"}, "cope.large"),
        ("large", {"tau1": "0.5"}, "cope.tau1"),
        ("small-majority", {"tau1": "0.5"}, "cope.tau1"),
        ("cascade-vote", {"tau2": "0.5"}, "cope.tau2"),
        ("cascade-vote", {"prompt_set": "cot1"}, "cope.prompt_set"),
        ("cascade-vote", {"prompt_sets": ["cot1", "cot1"]}, "cope.prompt_sets"),
        ("cascade-vote", {"prompt_sets": []}, "cope.prompt_sets"),
        ("cascade-vote", {"prompt_sets": ["cot1", "nope"]}, "cope.prompt_sets[1]"),
        ("cascade-vote", {"n": 7}, "cope.n"),
        ("cascade-verify", {"prompt_sets": ["cot1"]}, "cope.prompt_sets"),
        ("cascade-verify", {"tau1": "0.5"}, "cope.tau1"),
        ("cascade-vote@0.5,0.5", {}, "model"),
        ("cascade-verify@0.5", {}, "model"),
        ("small@0.5,0.5", {}, "model"),
        ("abc", {"tiers": [["s"]]}, "cope.tiers"),
        ("abc", {"tiers": "s"}, "cope.tiers"),
        ("abc", {"tiers": [["s", "s"], ["l"]]}, "cope.tiers[0]"),
        ("abc", {"tiers": [["s", "nobody"], ["l"]]}, "cope.tiers[0]"),
        ("abc", {"tiers": [["s", "s2"], ["l", "m"]]}, "cope.tiers[1]"),
        ("abc", {"tiers": [["s"], ["l"]], "samples_per_model": 1}, "cope.samples_per_model"),
        ("abc", {"tiers": [["s", "s2"], ["l"]], "samples_per_model": 33}, "cope.samples_per_model"),
        ("abc", {"agreement": "1.5"}, "cope.agreement"),
        ("abc", {"n": 8}, "cope.n"),
        ("abc", {"small": "s2"}, "cope.small"),
        ("frugalgpt", {}, "cope.scorer"),
        ("frugalgpt", {"scorer": "nope"}, "cope.scorer"),
        ("frugalgpt", {"scorer": "numbers", "tiers": [["s2"], ["l"]]}, "cope.tiers"),
        ("frugalgpt", {"scorer": "numbers", "tiers": [["s", "s2"], ["l"]]}, "cope.tiers"),
        ("frugalgpt", {"scorer": "numbers", "agreement": "1"}, "cope.agreement"),
        ("plan-execute", {"planner": "nobody"}, "cope.planner"),
        ("plan-execute", {"plan": "none", "planner": "l"}, "cope.planner"),
        ("plan-execute", {"plan": "both"}, "cope.plan"),
        ("plan-execute", {"n": 4}, "cope.n"),
        ("large-plan", {"n": 4}, "cope.n"),
        ("large-plan", {"small": "s"}, "cope.small"),
        ("small-guided", {"tau2": "0.5"}, "cope.tau2"),
        ("s", {"policy": "abc"}, "model"),
        ("l", {"policy": "plan-execute"}, "model"),
    ],
)
def test_an_option_that_a_policy_has_no_use_for_or_cannot_honour_is_refused_by_name(
    name: str, options: dict[str, object], param: str
):
    refusal = refused(name, **options)

    assert refusal.param == param
    assert refusal.message


def test_a_refusal_says_which_policies_have_the_option():
    assert refused("cope", agreement="1").message == (
        "`cope.agreement` says nothing to policy 'cope': remove it, or name a policy that has it (abc) in "
        "`cope.policy`."
    )


def test_programs_are_refused_at_submission_where_nothing_runs_them():
    refusal = refused("cascade-vote", catalog=BARE, prompt_sets=["cot1", "pot2"])
    assert (refusal.code, refusal.param) == ("program_runner_not_configured", "cope.prompt_sets")
    assert '["cot1", "cot2"]' in refusal.message
    assert refused("small-majority", catalog=BARE, prompt_set="pot1").param == "cope.prompt_set"


def test_where_nothing_runs_programs_a_cascade_has_two_cot_sets_unless_told_otherwise():
    for name in ("cascade-vote", "cascade-verify"):
        assert policy(name, catalog=BARE).baseline.prompt_sets == ("cot1", "cot2")


def test_a_prompt_set_without_words_for_the_kind_is_refused():
    refusal = refused("cascade-vote", kind="choice", prompt_sets=["cot1", "pot1"])

    assert refusal.param == "cope.prompt_sets"
    assert "'pot1' has no prompt for kind 'choice'" in refusal.message
    assert policy("cascade-vote", kind="choice").baseline.prompt_sets == ("cot1", "cot2")


def test_policies_that_end_with_one_sample_return_one_choice():
    for name, options in EVERY:
        body = {**ASK, "model": name, "cope": options, "n": 2}
        if name == "small-guided":
            assert parse_request(body, defaults=RequestDefaults(Kind.MATH), catalog=CATALOG).options.choices_n == 2
            continue
        with pytest.raises(BadRequest) as refusal:
            parse_request(body, defaults=RequestDefaults(Kind.MATH), catalog=CATALOG)
        assert refusal.value.param == "n"


def test_a_batchs_defaults_reach_the_lines_they_fit_and_no_others():
    block = parse_cope_defaults(
        {"policy": "cascade-vote", "prompt_sets": ["cot1", "cot2"], "n": 4, "tau1": "0.5"},
        catalog=CATALOG,
        kind=Kind.MATH,
    )
    defaults = RequestDefaults(Kind.MATH, cope=block.line_defaults)

    def of(model: str) -> PolicySpec:
        return parse_request({**ASK, "model": model}, defaults=defaults, catalog=CATALOG).policy

    assert (of("cascade-vote").baseline.prompt_sets, of("cascade-vote").n) == (("cot1", "cot2"), 4)
    assert (of("cope").n, of("cope").tau1, of("cope").baseline.prompt_sets) == (4, Fraction(1, 2), ())
    assert (of("small").n, of("plan-execute").baseline.planner) == (8, Seat("l", Tier.LARGE))


def test_a_batchs_defaults_that_contradict_its_own_policy_are_refused():
    with pytest.raises(BadRequest) as refusal:
        parse_cope_defaults({"policy": "cascade-vote", "tau2": "0.5"}, catalog=CATALOG, kind=Kind.MATH)

    assert refusal.value.param == "cope.tau2"
