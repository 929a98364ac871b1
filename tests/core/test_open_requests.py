"""Requests of kind `open`: what they need, and what contradicts them, refused by name."""

from dataclasses import replace
from fractions import Fraction

import pytest

from cope.core.errors import BadRequest
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.policies.spec import PolicyName
from cope.core.problem import Kind
from cope.core.prompts import BUILT_IN
from cope.core.request import ParsedRequest, RequestDefaults, RequestParser, parse_cope_defaults, parse_request
from cope.core.scorer import Scorer, TierScorer
from cope.core.stages import Tier

SMALL = ModelEntry("s", "s", "http://localhost/v1", Tier.SMALL, "instruct", 4096, logprobs="original")
LARGE = ModelEntry("l", "l", "http://localhost/v1", Tier.LARGE, "instruct", 4096)
CATALOG = ModelCatalog({"s": SMALL, "l": LARGE}, "s", "l", BUILT_IN)
ASK = {"model": "cope", "messages": [{"role": "user", "content": "Write a toast."}]}


def parse(cope: dict[str, object], *, model: str = "cope", catalog: ModelCatalog = CATALOG, **body: object):
    defaults = RequestDefaults(Kind.MATH)
    return parse_request({**ASK, "model": model, **body, "cope": cope}, defaults=defaults, catalog=catalog)


def test_theta_is_one_number_or_one_for_each_category():
    one = parse({"kind": "open", "theta": "3.2"})
    several = parse({"kind": "open", "theta": {"writing": "4.1", "default": 3}, "category": "writing"})

    assert one.policy.theta == (("default", Fraction(16, 5)),)
    assert several.policy.theta == (("default", Fraction(3)), ("writing", Fraction(41, 10)))
    assert (several.problem.kind, several.problem.category) == (Kind.OPEN, "writing")


def test_later_turns_are_read_in_order():
    parsed: ParsedRequest = parse({"kind": "open", "theta": 2, "turns": ["Shorter.", "In rhyme."]})

    assert parsed.problem.turns == ("Shorter.", "In rhyme.")


@pytest.mark.parametrize("policy", ["small", "large"])
def test_policies_that_accept_nothing_need_no_theta(policy: str):
    assert parse({"kind": "open"}, model=policy).policy.name is PolicyName(policy)


@pytest.mark.parametrize(
    ("cope", "param"),
    [
        ({"kind": "open"}, "cope.theta"),
        ({"kind": "open", "theta": {"writing": 2}}, "cope.theta"),
        ({"kind": "open", "theta": {"writing": 2}, "category": "maths"}, "cope.theta"),
        ({"kind": "open", "theta": 0.5}, "cope.theta"),
        ({"kind": "open", "theta": "x"}, "cope.theta"),
        ({"kind": "open", "theta": True}, "cope.theta"),
        ({"kind": "open", "theta": {}}, "cope.theta"),
        ({"kind": "open", "theta": {"a": "1e99"}}, "cope.theta.a"),
        ({"kind": "open", "theta": 2, "tau1": "0.5"}, "cope.tau1"),
        ({"kind": "open", "theta": 2, "threshold_rule": "exceeds"}, "cope.threshold_rule"),
        ({"kind": "open", "theta": 2, "choices": ["a", "b"]}, "cope.choices"),
        ({"kind": "open", "theta": 2, "answer_pattern": "a"}, "cope.answer_pattern"),
        ({"kind": "open", "theta": 2, "turns": []}, "cope.turns"),
        ({"kind": "open", "theta": 2, "turns": [""]}, "cope.turns[0]"),
        ({"kind": "open", "theta": 2, "category": ""}, "cope.category"),
        ({"kind": "open", "policy": "small-majority"}, "cope.policy"),
        ({"kind": "open", "theta": 2, "waves": [6, 2]}, "cope.waves"),
        ({"kind": "open", "theta": 2, "tests": ["assert 1"]}, "cope.tests"),
        ({"theta": 2}, "cope.theta"),
        ({"turns": ["More."]}, "cope.turns"),
        ({"category": "writing"}, "cope.category"),
    ],
)
def test_what_contradicts_or_lacks_is_refused_by_name(cope: dict[str, object], param: str):
    with pytest.raises(BadRequest) as refused:
        parse(cope)
    assert refused.value.param == param


def test_thresholds_of_votes_after_the_models_name_are_refused():
    with pytest.raises(BadRequest, match="theta"):
        parse({"kind": "open", "theta": 2}, model="cope@0.75,0.5")


def test_several_choices_of_several_turns_are_refused():
    with pytest.raises(BadRequest) as refused:
        parse({"kind": "open", "theta": 2, "turns": ["More."]}, n=2)
    assert refused.value.param == "n"


@pytest.mark.parametrize("served", ["none", "temperature_scaled"])
def test_a_small_model_without_original_log_probabilities_is_refused_with_the_way_to_mend_it(served: str):
    scaled = replace(SMALL, logprobs=served)  # type: ignore[arg-type]
    catalog = ModelCatalog({"s": scaled, "l": LARGE}, "s", "l", BUILT_IN)

    with pytest.raises(BadRequest, match="SGLANG_RETURN_ORIGINAL_LOGPROB"):
        parse({"kind": "open", "theta": 2}, catalog=catalog)


def test_a_mixed_batch_may_bring_a_theta_for_its_open_lines():
    defaults = parse_cope_defaults({"theta": {"default": "2"}, "tau1": "0.5"}, catalog=CATALOG, kind=Kind.MATH)
    inherited = RequestDefaults(Kind.MATH, defaults.line_defaults)

    assert parse_request(ASK, defaults=inherited, catalog=CATALOG).problem.kind is Kind.MATH
    opened = parse_request({**ASK, "cope": {"kind": "open"}}, defaults=inherited, catalog=CATALOG)
    assert opened.policy.theta == (("default", Fraction(2)),)


def test_a_batch_of_kind_open_may_leave_theta_to_its_lines():
    parse_cope_defaults({"kind": "open"}, catalog=CATALOG, kind=Kind.MATH)


def test_a_scorer_judges_one_answer_and_no_later_turns():
    scorer = Scorer("sure", "1", (TierScorer("s", 3.0, (), Fraction(1, 2)),), "l")
    catalog = replace(CATALOG, scorers={"sure": scorer})
    asked = {"kind": "open", "scorer": "sure"}

    assert parse(asked, model="frugalgpt", catalog=catalog).policy.name is PolicyName.FRUGALGPT
    with pytest.raises(BadRequest) as refusal:
        parse({**asked, "turns": ["Shorter."]}, model="frugalgpt", catalog=catalog)
    assert refusal.value.param == "cope.turns"


def test_lines_of_a_kind_that_ask_for_the_same_share_one_policy():
    parser = RequestParser(RequestDefaults(Kind.MATH, {"waves": [6, 2], "theta": 2}), CATALOG)
    ask = {**ASK, "cope": {"kind": "open"}}

    first, again = parser.parse(ask).policy, parser.parse(ask).policy

    assert first is again
    assert first.waves == ()
    assert parser.parse(ASK).policy.waves == (6, 2)
