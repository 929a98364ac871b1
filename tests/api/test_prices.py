"""The operator's price table through the stock client and `cope prices`, over in-memory parts on a loopback server."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import SecretStr

from cope.adapters.memory import (
    FixedClock,
    MemoryFiles,
    MemoryStore,
    MemoryWakeUp,
    RecordingWebhookSender,
    SequentialIds,
)
from cope.bootstrap import ApiParts
from cope.core.ids import KeyId
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import NanoUSD, Price, TokenUsage, parse_usd
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.ports.store import Granted, NewLiveTask, ReserveRequest, Settlement, StepCommit, ToDone
from cope.settings import Settings
from tests.api.serving import serving
from tests.support import NOON, finished_step, make_new_task, make_project

KEY, ADMIN = "cope-sk-of-the-tests", "cope-admin-of-the-tests"
PATH = "/organization/prices"
GPT_X = Price(
    "gpt-x", "2026-01", parse_usd("2.50"), parse_usd("1.25"), parse_usd("10.00"), NOON.replace(month=1),
    source="https://example.com/list",
)  # fmt: skip
NEW = {"price_id": "gpt-x", "input": "3.00", "cached_input": "1.50", "output": "12.00", "source": "https://x.test/p"}


async def spend(store: MemoryStore) -> None:
    """One settled call in each of two projects: 1,000 prompt tokens, 400 of them cached, and 100 more."""
    usage = TokenUsage(prompt=1000, cached=400, completion=100, calls=1)
    for _ in range(2):
        project = await store.create_project(make_project(), "whsec_dGVzdHMtc2lnbi10aGVpci13ZWJob29rcw==")
        new = NewLiveTask(make_new_task(0, queue="large"), project.id, KeyId("key_1"), b"hash", is_retry=False)
        await store.create_live_task(new)
        (task,) = await store.claim("large", worker="w", limit=1, lease_s=30)
        request = ReserveRequest(
            task.task_id, task.fence, project.id, None, "stage3", "large", "2026-01", NanoUSD(10**9), "r", "gpt-x"
        )
        (granted,) = await store.reserve([request])
        assert isinstance(granted, Granted)
        bill = Settlement(granted.attempt_id, GPT_X.cost(usage), NanoUSD(0), usage)
        await store.commit([StepCommit(task.task_id, task.fence, finished_step(), ToDone("{}", 3, True), (bill,))])


def make_parts() -> ApiParts:
    clock, ids = FixedClock(), SequentialIds()
    small = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 4096)
    large = ModelEntry("large", "gpt-x", "http://localhost/v1", Tier.LARGE, "instruct", 4096, price_id="gpt-x")
    store = MemoryStore(clock, ids)
    asyncio.run(store.put_prices([GPT_X]))
    asyncio.run(spend(store))
    return ApiParts(
        settings=Settings(admin_key=SecretStr(ADMIN), bootstrap_api_key=SecretStr(KEY), broker_url=""),
        store=store,
        files=MemoryFiles(),
        wake=MemoryWakeUp(),
        catalog=ModelCatalog({"small": small, "large": large}, "small", "large", BUILT_IN),
        prices=PriceTable([GPT_X]),
        clock=clock,
        ids=ids,
        webhooks=RecordingWebhookSender(),
    )


@pytest.fixture
def parts() -> ApiParts:
    return make_parts()


@pytest.fixture
def url(parts: ApiParts) -> Iterator[str]:
    with serving(parts) as url:
        yield url


@pytest.fixture
def operator(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key=ADMIN, max_retries=0) as client:
        yield client


def post(client: OpenAI, **body: object) -> Any:
    return client.post(PATH, body=body, cast_to=object)


def get(client: OpenAI, **query: str) -> Any:
    return client.get(PATH, cast_to=object, options={"params": query})["data"]  # type: ignore[index]


def test_the_rows_in_force_say_where_they_come_from(operator: OpenAI):
    (row,) = get(operator)

    assert (row["object"], row["id"], row["status"]) == ("organization.price", "gpt-x:standard:2026-01", "in_force")
    assert row["per_million_tokens"] == {"input": "2.50", "cached_input": "1.25", "output": "10.00"}
    assert row["nanousd_per_million_tokens"]["output"] == 10_000_000_000
    assert (row["origin"], row["source"], row["added_at"]) == (
        "shipped",
        "https://example.com/list",
        int(NOON.timestamp()),
    )


def test_a_row_is_added_from_an_instant_on_and_the_history_shows_all(operator: OpenAI, parts: ApiParts):
    made = post(operator, **NEW, effective_at="2026-12-01T00:00:00Z", added_by="ada")
    assert made["object"] == "list"
    (row,) = made["data"]
    assert (row["version"], row["status"], row["origin"], row["added_by"]) == (
        "2026-11-02",
        "scheduled",
        "operator",
        "ada",
    )

    assert [r["version"] for r in get(operator)] == ["2026-01"]
    assert [r["version"] for r in get(operator, at="2026-12-01")] == ["2026-11-02"]
    assert [r["version"] for r in get(operator, at=str(int(NOON.timestamp())))] == ["2026-01"]
    assert [(r["version"], r["status"]) for r in get(operator, versions="all", price_id="gpt-x")] == [
        ("2026-11-02", "scheduled"),
        ("2026-01", "in_force"),
    ]
    assert get(operator, price_id="gpt-y") == get(operator, tier="batch") == []
    assert parts.prices.at("gpt-x", NOON.replace(month=12)).output_per_mtok == parse_usd("12")


def test_several_rows_are_added_together_or_not_at_all(operator: OpenAI):
    batch = {**NEW, "tier": "batch", "input": "1.25", "cached_input": "0.625", "output": "5.00"}
    made = post(operator, prices=[NEW, batch, {**NEW, "price_id": "gpt-y"}])
    assert [row["id"] for row in made["data"]] == [
        "gpt-x:standard:2026-11-02",
        "gpt-x:batch:2026-11-02",
        "gpt-y:standard:2026-11-02",
    ]
    with pytest.raises(openai.UnprocessableEntityError, match="never changes") as taken:
        post(operator, prices=[{**NEW, "price_id": "gpt-z"}, {**NEW, "version": "2026-11-02"}])
    assert taken.value.code == "price_version_exists"
    assert [row["price_id"] for row in get(operator)] == ["gpt-x", "gpt-x", "gpt-y"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"output": "40.01"}, "large_change"),
        ({"input": "0.62", "cached_input": "0.62"}, "large_change"),
        ({"output": "0"}, "zero_price"),
        ({"cached_input": "3.01"}, "cached_above_input"),
        ({"effective_at": "2026-10-01"}, "effective_in_the_past"),
        ({"effective_at": "2025-12-01"}, "effective_in_the_past"),
    ],
)
def test_what_looks_like_a_slip_is_refused_and_taken_with_a_reason(
    operator: OpenAI, changes: dict[str, str], code: str
):
    body = {**NEW, **changes}
    with pytest.raises(openai.BadRequestError, match=r"repeat with `force` and a `reason`") as refused:
        post(operator, **body)
    assert refused.value.code == code
    with pytest.raises(openai.BadRequestError) as unreasoned:
        post(operator, **body, force=True)
    assert (unreasoned.value.code, unreasoned.value.param) == ("reason_missing", "reason")
    assert len(get(operator, versions="all")) == 1

    (row,) = post(operator, **body, force=True, reason="the provider's letter of 1 November")["data"]
    assert row["reason"] == "the provider's letter of 1 November"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": 2.5}, "input"),
        ({"output": "ten"}, "output"),
        ({"output": "-1"}, "output"),
        ({"output": "9000000"}, "output"),
        ({"cached_input": None}, "cached_input"),
        ({"tier": "cheap"}, "tier"),
        ({"price_id": ""}, "price_id"),
        ({"price_id": "a\x00"}, "price_id"),
        ({"source": None}, "source"),
        ({"effective_at": "soon"}, "effective_at"),
        ({"effective_at": 10**12}, "effective_at"),
        ({"effective_at": True}, "effective_at"),
        ({"effective_until": "2026-01-01"}, "effective_until"),
        ({"dry_run": "yes"}, "dry_run"),
        ({"days": 0}, "days"),
        ({"prices": []}, "prices"),
        ({"prices": [NEW]}, "cached_input"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_wrong_row_is_refused_naming_the_place(operator: OpenAI, changes: dict[str, object], param: str):
    with pytest.raises(openai.BadRequestError) as refused:
        post(operator, **{**NEW, **changes})

    assert refused.value.param == param
    assert len(get(operator, versions="all")) == 1


def test_a_wrong_question_is_refused_naming_the_place(operator: OpenAI):
    for query in ({"at": "soon"}, {"versions": "some"}, {"tier": "cheap"}):
        with pytest.raises(openai.BadRequestError) as refused:
            get(operator, **query)
        assert refused.value.param == next(iter(query))


def test_a_projects_key_neither_sees_nor_adds_prices(url: str):
    with OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError):
            get(client)
        with pytest.raises(openai.PermissionDeniedError):
            post(client, **NEW)


def test_a_dry_run_prices_the_settled_calls_of_all_projects_and_adds_nothing(operator: OpenAI):
    (change,) = post(operator, **NEW, dry_run=True)["data"]

    spent = 2 * (600 * 2500 + 400 * 1250 + 100 * 10_000)
    repriced = 2 * (600 * 3000 + 400 * 1500 + 100 * 12_000)
    settled = change["settled"]
    assert (settled["days"], settled["attempts"], settled["calls"]) == (30, 2, 2)
    assert (settled["spent_nanousd"], settled["repriced_nanousd"]) == (spent, repriced)
    assert settled["difference_nanousd"] == repriced - spent
    assert settled["difference_usd"] == "0.0012"
    reserve = change["typical_reserve"]
    assert (reserve["prompt_tokens"], reserve["output_limit"]) == (1000, 2048)
    assert reserve["before_nanousd"] == 4112 * 2500 + 2048 * 10_000
    assert reserve["after_nanousd"] == 4112 * 3000 + 2048 * 12_000
    assert change["replaces"]["version"] == "2026-01"
    assert change["objections"] == []
    assert len(get(operator, versions="all")) == 1


def test_a_dry_run_of_a_leap_tells_the_objection_instead_of_refusing(operator: OpenAI, parts: ApiParts):
    parts.clock.advance(86_400 * 31)  # type: ignore[attr-defined]
    (change,) = post(operator, **{**NEW, "output": "100.00"}, dry_run=True)["data"]
    assert [objection["code"] for objection in change["objections"]] == ["large_change"]
    assert (change["settled"]["attempts"], change["typical_reserve"]["prompt_tokens"]) == (0, 500)

    (longer,) = post(operator, **NEW, dry_run=True, days=60)["data"]
    assert longer["settled"]["attempts"] == 2
    (unknown,) = post(operator, **{**NEW, "price_id": "gpt-y"}, dry_run=True)["data"]
    assert (unknown["replaces"], unknown["typical_reserve"]["before_nanousd"]) == (None, None)


def test_a_live_call_of_an_unpriced_model_is_refused_until_the_command_was_run(parts: ApiParts):
    later = replace(GPT_X, effective_at=NOON + timedelta(days=1))
    bare = replace(parts, prices=PriceTable([later]), store=MemoryStore(parts.clock, parts.ids))

    def ask(client: OpenAI, model: str) -> None:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "2 + 3?"}])

    with serving(bare) as url, OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=0.5) as client:
        for model in ("large", "cope"):
            with pytest.raises(openai.BadRequestError, match="begins at 2026-11-03") as refused:
                ask(client, model)
            assert (refused.value.code, refused.value.param) == ("model_not_priced", "model")
            assert "cope prices add gpt-x --input 2.50" in refused.value.message
        with pytest.raises(openai.APITimeoutError):  # accepted: nobody works here
            ask(client, "small-majority")
        assert cope(url, "prices", "add", "gpt-x", "--input", "2.5", "--output", "10", "--source", "test")[0] == 0
        with pytest.raises(openai.APITimeoutError):
            ask(client, "large")


# ---- the command line -----------------------------------------------------------------------------------------------


def cope(url: str, *arguments: str, admin: str = ADMIN) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "cope_cli.main", "--base-url", url, "--api-key", KEY, "--admin-key", admin]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


ADD = ("prices", "add", "gpt-x", "--input", "3.00", "--cached-input", "1.50", "--output", "12.00", "--source", "letter")


def test_the_command_line_lists_adds_and_shows(url: str):
    code, out, _ = cope(url, "prices")
    assert code == 0
    assert "gpt-x" in out
    assert "2.50" in out

    code, out, _ = cope(url, *ADD, "--effective", "2026-12-01")
    assert code == 0
    assert out == (
        "added gpt-x (standard) version 2026-11-02: input $3.00, cached input $1.50, output $12.00 per million tokens, "
        "from 2026-12-01T00:00:00Z\n"
    )
    code, out, _ = cope(url, "prices", "show", "gpt-x")
    assert code == 0
    assert out.index("2026-11-02") < out.index("2026-01 ") < out.index("USD per million tokens")
    listed = json.loads(cope(url, "prices", "list", "--all", "--json")[1])
    assert [row["status"] for row in listed["data"]] == ["scheduled", "in_force"]
    assert "@" in listed["data"][0]["added_by"]
    assert [row["version"] for row in json.loads(cope(url, "prices", "--at", "2026-12-02", "--json")[1])["data"]] == [
        "2026-11-02"
    ]


def test_the_command_line_tells_a_difference_without_adding(url: str):
    for arguments in (
        (*ADD, "--dry-run"),
        ("prices", "diff", "gpt-x", "--input", "3.00", "--cached-input", "1.50", "--output", "12.00"),
    ):
        code, out, _ = cope(url, *arguments)
        assert code == 0
        assert "nothing was added" in out
        assert "  output        $10.00 → $12.00 per million tokens\n" in out
        assert "  last 30 days: 2 calls in 2 attempts, $0.006 spent, $0.0072 at this price (+$0.0012)\n" in out
        assert "  a call of 1000 prompt tokens and at most 2048 more reserves $0.03076 → $0.036912\n" in out
    told = json.loads(cope(url, *ADD, "--dry-run", "--days", "7", "--json")[1])
    assert told["data"][0]["settled"]["days"] == 7
    assert len(json.loads(cope(url, "prices", "list", "--all", "--json")[1])["data"]) == 1


def test_the_command_line_is_refused_with_one_line_and_may_insist_with_a_reason(url: str):
    leap = (*ADD[:-3], "55.00", "--source", "letter")
    code, out, err = cope(url, *leap)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "more than 4 times up" in err
    assert "--force --reason" in err
    assert cope(url, *leap, "--force")[0] == 2
    assert cope(url, *leap, "--force", "--reason", "they did raise it")[0] == 0
    assert "55.00" in cope(url, "prices")[1]


def test_wrong_words_and_a_wrong_key_end_with_code_2_and_no_service_with_3(url: str):
    assert cope(url, "prices", "add", "gpt-x", "--input", "1e999", "--output", "1", "--source", "x")[0] == 2
    assert cope(url, "prices", "add", "gpt-x")[0] == 2
    assert cope(url, "prices", admin=KEY)[0] == 2
    assert cope("http://127.0.0.1:9/v1", "prices")[0] == 3
