"""Requests: every option honoured or refused by name."""

import re
from dataclasses import replace
from fractions import Fraction

import pytest

from cope.core.codec import (
    decode_policy,
    decode_step,
    decode_task,
    encode_payload,
    encode_policy,
    encode_step,
    prune_step,
)
from cope.core.errors import BadRequest, NotAvailableYet
from cope.core.ids import TASK, TaskId, make_id
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.policies.spec import PolicyName
from cope.core.problem import Kind
from cope.core.prompts import BUILT_IN
from cope.core.request import RequestDefaults, RequestParser, parse_cope_defaults, parse_request
from cope.core.stages import StragglerRule, Tier
from cope.core.task import OnBudget, StoreLevel
from tests.support import finished_step, sample


def entry(name: str, tier: Tier) -> ModelEntry:
    return ModelEntry(name, name, "http://localhost/v1", tier, "instruct", 4096)


CATALOG = ModelCatalog(
    {"s": entry("s", Tier.SMALL), "l": entry("l", Tier.LARGE), "l2": entry("l2", Tier.LARGE)}, "s", "l", BUILT_IN
)
ASK = {"model": "cope", "messages": [{"role": "user", "content": "2 + 2?"}]}


def parse(body: dict[str, object], **defaults: object):
    return parse_request(body, defaults=RequestDefaults(Kind.MATH, **defaults), catalog=CATALOG)  # type: ignore[arg-type]


def test_the_shortest_request_is_cope_with_the_papers_parameters():
    parsed = parse(ASK)

    assert (parsed.policy.name, parsed.policy.n) == (PolicyName.COPE, 8)
    assert (parsed.policy.tau1, parsed.policy.tau2) == (Fraction(3, 4), Fraction(1, 2))
    assert (parsed.policy.small, parsed.policy.large) == ("s", "l")
    assert parsed.problem.kind is Kind.MATH
    assert parsed.on_budget is OnBudget.HOLD


def test_thresholds_stand_in_the_models_name():
    policy = parse({**ASK, "model": "cope@0.56,2/3"}).policy

    assert (policy.tau1, policy.tau2) == (Fraction(14, 25), Fraction(2, 3))


def test_the_lines_own_block_comes_before_the_batchs():
    parsed = parse({**ASK, "cope": {"n": 4}}, cope={"n": 16, "tau1": "0.9", "seed": 5})

    assert (parsed.policy.n, parsed.policy.tau1, parsed.seed) == (4, Fraction(9, 10), 5)


def test_a_model_that_names_a_configured_model_is_passed_through():
    parsed = parse({**ASK, "model": "l2"})

    assert (parsed.policy.name, parsed.policy.large) == (PolicyName.PASSTHROUGH, "l2")


def test_with_a_policy_named_apart_the_model_takes_its_tiers_place():
    policy = parse({**ASK, "model": "l2"}, cope={"policy": "cope"}).policy

    assert (policy.name, policy.small, policy.large) == (PolicyName.COPE, "s", "l2")


def test_text_parts_become_text():
    parts = [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}]
    parsed = parse({**ASK, "messages": [{"role": "user", "content": parts}]})

    assert parsed.problem.conversation[0].content == "2 + 2?"


def test_neutral_values_of_options_that_cannot_be_honoured_are_fine():
    parse({**ASK, "tools": [], "logprobs": False, "presence_penalty": 0, "response_format": {"type": "text"}})


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"model": "nobody"}, "model"),
        ({"model": "cope@0.5"}, "model"),
        ({"model": "cope@x,y"}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a\x00b"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": True}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"stream": True}, "stream"),
        ({"frobnicate": 1}, "frobnicate"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"n": 9}, "n"),
        ({"n": 2, "model": "large"}, "n"),
        ({"seed": "x"}, "seed"),
        ({"cope": []}, "cope"),
        ({"cope": {"frobnicate": 1}}, "cope.frobnicate"),
        ({"cope": {"n": 0}}, "cope.n"),
        ({"cope": {"n": 65}}, "cope.n"),
        ({"cope": {"tau1": "1.5"}}, "cope.tau1"),
        ({"cope": {"tau1": None}}, "cope.tau1"),
        ({"cope": {"policy": "nope"}}, "cope.policy"),
        ({"cope": {"small": "l"}}, "cope.small"),
        ({"cope": {"large": "nobody"}}, "cope.large"),
        ({"cope": {"max_stage": 1}}, "cope.max_stage"),
        ({"model": "cope-s2", "cope": {"max_stage": 3}}, "cope.max_stage"),
        ({"cope": {"temperatures": {"planner9": 1}}}, "cope.temperatures.planner9"),
        ({"cope": {"temperatures": {"planner1": 9}}}, "cope.temperatures.planner1"),
        ({"cope": {"prompt_set": "nope"}}, "cope.prompt_set"),
        ({"cope": {"kind": "nope"}}, "cope.kind"),
        ({"cope": {"kind": "choice"}}, "cope.choices"),
        ({"cope": {"kind": "choice", "choices": ["a", "A "]}}, "cope.choices"),
        ({"cope": {"choices": ["a", "b"]}}, "cope.choices"),
        ({"cope": {"answer_pattern": "x"}}, "cope.answer_pattern"),
        ({"cope": {"kind": "exact", "answer_pattern": "x", "answer_pointer": "/a"}}, "cope.answer_pointer"),
        ({"cope": {"kind": "exact", "answer_pointer": "a"}}, "cope.answer_pointer"),
        ({"cope": {"store": "some"}}, "cope.store"),
        ({"cope": {"priority": -1}}, "cope.priority"),
        ({"cope": {"webhook_url": "https://a"}}, "cope.webhook_url"),
        ({"cope": {"dry_run": True}}, "cope.dry_run"),
        ({"model": "l", "cope": {"n": 3}}, "cope.n"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_by_name(change: dict[str, object], param: str):
    with pytest.raises(BadRequest) as refusal:
        parse({**ASK, **change})

    assert refusal.value.param == param
    assert refusal.value.message


def test_waves_are_counts_of_samples_that_make_n_in_all():
    assert parse({**ASK, "cope": {"waves": [6, 2]}}).policy.waves == (6, 2)
    assert parse({**ASK, "cope": {"n": 3, "waves": [1, 1, 1]}}).policy.waves == (1, 1, 1)


@pytest.mark.parametrize(
    ("cope", "param", "says"),
    [
        ({"waves": [6, 3]}, "cope.waves", "launches 9 samples in all, but `cope.n` is 8"),
        ({"n": 4, "waves": [6, 2]}, "cope.waves", "but `cope.n` is 4"),
        ({"waves": [8, 0]}, "cope.waves[1]", "from 1 to 64"),
        ({"waves": [7.0, 1]}, "cope.waves[0]", "whole number"),
        ({"waves": []}, "cope.waves", "list of sample counts"),
        ({"waves": 8}, "cope.waves", "list of sample counts"),
        ({"waves": [6, 2], "stop": "off"}, "cope.waves", "never stops early"),
        ({"waves": [6, 2], "policy": "large"}, "cope.waves", "takes no vote"),
    ],
)
def test_waves_that_contradict_the_policy_are_refused_by_name(cope: dict[str, object], param: str, says: str):
    with pytest.raises(BadRequest, match=re.escape(says)) as refusal:
        parse({**ASK, "cope": cope})

    assert refusal.value.param == param


def test_a_batchs_waves_are_for_its_lines_that_vote():
    defaults = RequestDefaults(Kind.MATH, {"waves": [6, 2]})

    assert parse_request({**ASK, "model": "cope"}, defaults=defaults, catalog=CATALOG).policy.waves == (6, 2)
    assert parse_request({**ASK, "model": "large"}, defaults=defaults, catalog=CATALOG).policy.waves == ()


def test_policies_stored_before_there_were_waves_are_read_and_keep_their_text():
    policy = parse({**ASK}).policy
    text = encode_policy(policy)

    assert "waves" not in text
    assert decode_policy(text) == policy
    waved = replace(policy, waves=(6, 2))
    assert decode_policy(encode_policy(waved)) == waved


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"cope": {"on_expiry": "best_vote"}}, "cope.on_expiry"),
    ],
)
def test_what_is_documented_but_not_built_says_so(change: dict[str, object], param: str):
    with pytest.raises(NotAvailableYet) as refusal:
        parse({**ASK, **change})

    assert (refusal.value.code, refusal.value.param) == ("not_available_yet", param)


def test_a_batchs_block_is_checked_before_any_line_is_read():
    block = parse_cope_defaults(
        {"policy": "cope", "webhook_url": "https://a.example/x", "order": "input", "n": 4},
        catalog=CATALOG,
        kind=Kind.MATH,
    )

    assert (block.webhook_url, block.by_input) == ("https://a.example/x", True)
    assert block.line_defaults == {"policy": "cope", "n": 4}
    with pytest.raises(BadRequest) as refusal:
        parse_cope_defaults({"n": "many"}, catalog=CATALOG, kind=Kind.MATH)
    assert refusal.value.param == "cope.n"


@pytest.mark.parametrize(
    ("asked", "lines"),
    [(None, None), (False, None), (True, 100), ({}, 100), ({"pilot_lines": 250}, 250), ({"pilot_lines": 0}, 0)],
)
def test_a_dry_run_says_how_many_lines_its_pilot_may_try_and_is_no_default_of_its_lines(
    asked: object, lines: int | None
):
    block = parse_cope_defaults({"dry_run": asked, "n": 4}, catalog=CATALOG, kind=Kind.MATH)

    assert (block.dry_run, block.line_defaults) == (lines, {"n": 4})


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ("yes", "cope.dry_run"),
        (1, "cope.dry_run"),
        ({"lines": 5}, "cope.dry_run.lines"),
        ({"pilot_lines": -1}, "cope.dry_run.pilot_lines"),
        ({"pilot_lines": 2001}, "cope.dry_run.pilot_lines"),
        ({"pilot_lines": "5"}, "cope.dry_run.pilot_lines"),
    ],
)
def test_a_dry_run_that_is_not_clear_is_refused_by_name(asked: object, param: str):
    with pytest.raises(BadRequest) as refusal:
        parse_cope_defaults({"dry_run": asked}, catalog=CATALOG, kind=Kind.MATH)

    assert refusal.value.param == param


def test_a_task_written_down_reads_back_as_it_was():
    body = {
        **ASK,
        "model": "cope@0.7,0.4",
        "max_tokens": 50,
        "temperature": 0.2,
        "top_p": 0.9,
        "stop": ["#"],
        "n": 2,
        "cope": {"kind": "choice", "choices": ["a", "b"], "store": "full", "p1_star": "arrived", "on_budget": "fail"},
    }
    parsed = parse(body)
    task = decode_task(
        TaskId("task_1"),
        payload=encode_payload(
            parsed.problem, parsed.options, requested_model=parsed.requested_model, store=parsed.store
        ),
        policy=encode_policy(parsed.policy),
        seed=3,
        on_budget="fail",
    )

    assert (task.problem, task.policy, task.options) == (parsed.problem, parsed.policy, parsed.options)
    assert (task.store, task.on_budget, task.requested_model) == (StoreLevel.FULL, OnBudget.FAIL, "cope@0.7,0.4")
    assert task.policy.p1_star is StragglerRule.ARRIVED


def test_equal_policies_have_equal_text():
    assert encode_policy(parse(ASK).policy) == encode_policy(decode_policy(encode_policy(parse(ASK).policy)))


def test_a_step_written_down_reads_back_as_it_was():
    step = finished_step("stage1", sample(0), sample(1, None))

    assert decode_step(encode_step(step)) == step


def test_pruning_keeps_what_the_store_level_promises():
    step = finished_step("stage1", sample(0, "5"), sample(1, "6"))

    assert prune_step(step, StoreLevel.FULL, frozenset()) == step
    kept = prune_step(step, StoreLevel.ANSWERS, frozenset({1}))
    assert [(s.solution is None, s.answer) for s in kept.samples] == [(True, "5"), (False, "6")]
    bare = prune_step(step, StoreLevel.NONE, frozenset({1}))
    assert all(s.solution is None and s.answer is None and s.plan is None for s in bare.samples)


def test_ids_sort_by_the_time_they_were_made():
    first = make_id(TASK, now_ms=1, random_part="z" * 16)
    later = make_id(TASK, now_ms=2, random_part="0" * 16)

    assert first < later
    assert len(first) == len(TASK) + 26
    with pytest.raises(ValueError, match="2\\*\\*48"):
        make_id(TASK, now_ms=2**48, random_part="0" * 16)


@pytest.mark.parametrize("defaults", [{}, {"n": 4, "seed": 5}, {"kind": "choice", "choices": ["a", "b"]}])
@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "another"}]},
        {"messages": [{"role": "assistant", "content": "another"}]},
        {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "another"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "in parts"}]}]},
        {"messages": [{"role": "user", "content": "NUL \x00"}]},
        {"messages": [{"role": "user", "content": "named", "name": "Ann"}]},
        {"messages": []},
        {"messages": "text"},
        {"model": "small-majority"},
        {"model": "l"},
        {"model": "no such model"},
        {"model": 5},
        {"max_tokens": 9},
        {"tools": []},
        {"cope": {"seed": 9}},
    ],
)
def test_what_a_parser_remembers_of_earlier_lines_changes_no_later_one(change, defaults):
    known = RequestDefaults(Kind.MATH, defaults)
    parser = RequestParser(known, CATALOG)
    for model in ("cope", "small-majority"):
        parser.parse({**ASK, "model": model})

    assert outcome(parser, {**ASK, **change}) == outcome(RequestParser(known, CATALOG), {**ASK, **change})


def outcome(parser: RequestParser, body: dict[str, object]) -> object:
    try:
        return parser.parse(body)
    except BadRequest as refused:
        return refused.message, refused.param


@pytest.mark.parametrize("way", ["hold", "best_vote", "fail"])
def test_each_way_of_running_out_of_money_can_be_asked_for(way: str):
    assert parse({**ASK, "cope": {"on_budget": way}}).on_budget is OnBudget(way)


@pytest.mark.parametrize(
    ("told", "nano"), [("0.002", 2_000_000), ("3", 3 * 10**9), (3, 3 * 10**9), ("0", 0), (None, None)]
)
def test_a_lines_own_cap_is_read_to_the_nano_dollar(told: object, nano: int | None):
    assert parse({**ASK, "cope": {"max_cost_usd": told}}).max_cost == nano


@pytest.mark.parametrize("wrong", [0.002, "-1", "1e99", "a dollar", True, [], "0.0000000001"])
def test_a_cap_that_is_no_exact_amount_is_refused_by_name(wrong: object):
    with pytest.raises(BadRequest) as refusal:
        parse({**ASK, "cope": {"max_cost_usd": wrong}})

    assert refusal.value.param == "cope.max_cost_usd"


def test_a_batchs_cap_bounds_the_batch_and_is_no_default_of_its_lines():
    block = parse_cope_defaults({"max_cost_usd": "12.5", "on_budget": "best_vote"}, catalog=CATALOG, kind=Kind.MATH)

    assert block.max_cost == 12_500_000_000
    assert block.line_defaults == {"on_budget": "best_vote"}


def test_the_audits_share_is_the_batchs_and_never_a_lines():
    def batch(share: object) -> int | None:
        return parse_cope_defaults({"audit_share": share}, catalog=CATALOG, kind=Kind.MATH).audit_share

    assert (batch("0.02"), batch("0"), batch(None)) == (20_000, 0, None)
    assert "audit_share" not in parse_cope_defaults({"audit_share": "1"}, catalog=CATALOG, kind=Kind.MATH).line_defaults
    with pytest.raises(BadRequest, match="belongs to the batch"):
        parse({**ASK, "cope": {"audit_share": "0.02"}})
    with pytest.raises(BadRequest, match=r"`cope\.audit_share` must be a share from 0 to 1"):
        batch("2")


def test_on_expiry_may_say_what_happens_anyway_and_nothing_unheard_of():
    assert parse({**ASK, "cope": {"on_expiry": "fail"}}) == parse(ASK)
    with pytest.raises(BadRequest, match="on_expiry"):
        parse({**ASK, "cope": {"on_expiry": "later"}})
