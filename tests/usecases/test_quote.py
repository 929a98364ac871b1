"""Dry runs on the in-memory adapters: what they quote, what they never do, and that real batches keep to it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from cope.core.ids import BatchId
from cope.core.lifecycle import BatchStatus
from cope.core.money import parse_usd
from cope.core.prices import PriceTable
from cope.core.records import Batch
from cope.ports.model import ChatAnswer, ChatRequest
from cope.ports.store import NewBatch
from cope.usecases.finalise import finalise_next
from cope.usecases.ingest import ingest_next
from tests.support import make_batch, make_file, make_key, make_project
from tests.usecases.test_pipeline import (
    LEASE_S,
    PRICE,
    SMALL,
    USAGE,
    Parts,
    agreeing,
    current,
    divided,
    line,
    make_parts,
    says,
    settle,
)


def by_problem(request: ChatRequest) -> ChatAnswer:
    """Of "n + 0?", the small model is sure where n is even; the large one is always right."""
    number = int(request.messages[-1].content.split(" +")[0])
    if request.model.name == "large" or number % 2 == 0:
        return says("Add." if request.messages[-1].content.endswith("?") else f"\\boxed{{{number}}}")
    return divided(request)


def asking(number: int, **cope: object) -> str:
    return line(f"line-{number}", **cope).replace("2 + 3?", f"{number} + 0?")


async def submit(parts: Parts, *lines: str, pilot_lines: int | None = 100, first: bool = True) -> Batch:
    """A batch that was read; `pilot_lines` None is a real one."""
    if first:
        await parts.store.create_project(make_project(cap=parse_usd("1000")), "whsec_dGVzdA==")
    (project,) = (await parts.store.list_projects(after=None, limit=2)).items
    if first:
        await parts.store.create_key(make_key(project.id))
    file = await parts.store.create_file(make_file(project.id))
    writer = await parts.files.create(file.id)
    await writer.write("\n".join(lines).encode())
    await writer.commit()
    batch = replace(make_batch(project.id, file.id, webhook_url="https://hooks.example.com/x"), dry_run=pilot_lines)
    made = await parts.store.create_batch(NewBatch(batch, batch.id.encode(), None, retry=0))
    assert await ingest_next(parts, lease_s=LEASE_S)
    return made


async def finish(parts: Parts, batch: Batch) -> Batch:
    await settle(parts)
    while await finalise_next(parts, lease_s=LEASE_S):
        pass
    return await current(parts, batch)


def quoted(batch: Batch) -> dict[str, Any]:
    assert batch.quote is not None
    return dict(json.loads(batch.quote))


async def test_a_dry_run_tries_its_pilot_on_the_small_model_spends_nothing_and_leaves_no_result_file():
    parts = make_parts(by_problem)
    batch = await finish(parts, await submit(parts, *[asking(number) for number in range(40)], pilot_lines=20))

    assert (batch.status, batch.total, batch.done, batch.spent) == (BatchStatus.COMPLETED, 20, 20, 0)
    assert {request.model.name for request in parts.model.requests} == {"small"}
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    budget = await parts.store.get_budget(batch.project_id)
    assert (budget.spent, budget.reserved, budget.unconfirmed) == (0, 0, 0)
    assert len(await parts.store.claim_deliveries(limit=9, lease_s=1)) == 1  # batch.completed, as ever

    quote = quoted(batch)
    assert (quote["lines"], quote["pilot"]["lines"]) == (40, 20)
    low, high = quote["pilot"]["accepted_share_stage1_interval"]
    assert low < quote["pilot"]["accepted_share_stage1"] < high
    assert 0 < parse_usd(quote["expected_usd"]) <= parse_usd(quote["p90_usd"]) < parse_usd(quote["max_usd"])
    assert quote["price_version"] == "2026-11"


async def test_the_pilots_tasks_stay_visible_and_end_after_stage_1_whatever_the_vote():
    parts = make_parts(divided)
    batch = await finish(parts, await submit(parts, asking(1)))

    (task,) = (await parts.store.list_tasks(batch.project_id, batch.id, state="done", after=None, limit=9)).items
    assert [step.name for step in task.history] == ["stage1"]
    assert json.loads(task.result or "")["cope"]["accepted"] is False
    assert quoted(batch)["pilot"]["accepted"] == 0


async def test_the_same_file_and_seed_draw_the_same_lines_and_give_the_same_quote():
    parts = make_parts(by_problem)
    lines = [asking(number) for number in range(60)]
    one = await finish(parts, await submit(parts, *lines, pilot_lines=10))
    two = await finish(parts, await submit(parts, *lines, pilot_lines=10, first=False))

    async def drawn(batch: Batch) -> list[str | None]:
        page = await parts.store.list_tasks(batch.project_id, batch.id, state=None, after=None, limit=99)
        return [task.custom_id for task in page.items]

    assert await drawn(one) == await drawn(two)
    assert len(set(await drawn(one))) == 10
    assert one.quote == two.quote


async def test_a_real_batch_under_a_cap_of_the_quotes_maximum_is_never_held():
    parts = make_parts(divided)
    lines = [asking(number) for number in range(12)]
    quote = quoted(await finish(parts, await submit(parts, *lines)))
    (project,) = (await parts.store.list_projects(after=None, limit=2)).items
    await parts.store.set_cap(project.id, parse_usd(quote["max_usd"]))
    batch = await submit(parts, *lines, pilot_lines=None, first=False)
    done = await finish(parts, batch)

    assert (done.done, dict(done.held)) == (12, {})
    assert 0 < done.spent <= parse_usd(quote["p90_usd"])
    assert not [event for event in await events_of(parts, batch.id) if event == "task.held"]


async def events_of(parts: Parts, batch_id: BatchId) -> list[str]:
    await parts.store.sweep(lease_s=LEASE_S)
    (project,) = (await parts.store.list_projects(after=None, limit=2)).items
    found = await parts.store.list_events(project.id, after=0, limit=10_000, batch_id=batch_id)
    return [event.type for event in found]


async def test_a_provider_that_uses_every_token_it_may_is_still_within_the_maximum():
    def longest(request: ChatRequest) -> ChatAnswer:
        """Answers at their output limit, plans longer than they may be handed on, a token for every byte."""
        sent = sum(len(message.content.encode()) for message in request.messages) + 16 * len(request.messages) + 64
        usage = replace(USAGE, prompt=sent, completion=request.max_tokens)
        text = "é" * 9000 if request.max_tokens in {96, 256} else f"\\boxed{{{request.request_id[-4:-1]}}}"
        return ChatAnswer(text, "length", usage, "id")

    parts = make_parts(longest)
    lines = [asking(number) for number in range(3)] + [line("l", model="large"), line("p", model="large")]
    quote = quoted(await finish(parts, await submit(parts, *lines)))
    done = await finish(parts, await submit(parts, *lines, pilot_lines=None, first=False))

    assert done.done == 5
    assert 0 < done.spent <= parse_usd(quote["max_usd"])


async def test_the_projects_own_past_takes_the_place_of_what_has_to_be_assumed():
    parts = make_parts(by_problem)
    lines = [asking(number) for number in range(80)]
    before = quoted(await finish(parts, await submit(parts, *lines)))
    spent = (await finish(parts, await submit(parts, *lines, pilot_lines=None, first=False))).spent
    after = quoted(await finish(parts, await submit(parts, *lines, first=False)))

    assert before["groups"][0]["stage2"]["basis"] == "none"
    assert [step["output_tokens"]["basis"] for step in before["groups"][0]["steps"]] == ["none", "pilot"]
    assert after["groups"][0]["stage2"]["basis"] == "history"
    assert [step["output_tokens"]["basis"] for step in after["groups"][0]["steps"]] == ["history", "history"]
    assert spent <= parse_usd(after["p90_usd"]) < parse_usd(before["p90_usd"])
    assert spent // 2 < parse_usd(after["expected_usd"]) < 2 * spent


@pytest.mark.parametrize("model", ["small", "small-majority"])
async def test_what_only_the_small_model_does_costs_nothing_and_needs_no_pilot(model: str):
    parts = make_parts(agreeing)
    batch = await finish(parts, await submit(parts, line("a", model=model), line("b", model=model)))

    assert (batch.status, batch.total) == (BatchStatus.COMPLETED, 0)
    quote = quoted(batch)
    assert (quote["lines"], quote["max_usd"], quote["p90_usd"], quote["price_version"]) == (2, "0.00", "0.00", None)


@pytest.mark.parametrize("model", ["large", "large-as-it-is"])
async def test_the_large_model_alone_is_quoted_without_a_pilot(model: str):
    parts = make_parts(agreeing)
    asked = line("a", model=model) if model == "large" else line("a").replace('"cope"', '"large"')
    batch = await finish(parts, await submit(parts, asked))

    quote = quoted(batch)
    assert (batch.total, parts.model.requests) == (0, [])
    assert 0 < parse_usd(quote["expected_usd"]) < parse_usd(quote["p90_usd"]) <= parse_usd(quote["max_usd"])
    assert quote["groups"][0]["steps"][0]["output_tokens"]["basis"] == "none"


async def test_a_file_with_bad_lines_fails_with_every_error_as_a_real_submission_does():
    bad = [asking(1), "not json", asking(2, tau1="9"), asking(1)]
    parts = make_parts(agreeing)
    dry = await submit(parts, *bad)
    real = await submit(parts, *bad, pilot_lines=None, first=False)

    failed = await current(parts, dry)
    assert (failed.status, failed.quote) == (BatchStatus.FAILED, None)
    assert failed.errors == (await current(parts, real)).errors
    assert [error.line for error in failed.errors] == [2, 3, 4]


async def test_a_paid_model_without_a_price_is_refused_by_line():
    parts = replace(make_parts(agreeing), prices=PriceTable([]))
    batch = await submit(parts, line("free", model="small"), line("a"))

    (error,) = (await current(parts, batch)).errors
    assert (error.line, error.code, error.param) == (2, "model_not_priced", "body.model")


async def test_where_the_small_model_has_a_price_nothing_is_tried_and_every_call_of_it_is_counted():
    parts = make_parts(agreeing)
    priced = replace(SMALL, price_id="p")
    parts = replace(parts, catalog=replace(parts.catalog, entries={**parts.catalog.entries, "small": priced}))
    batch = await finish(parts, await submit(parts, asking(1)))

    assert parts.model.requests == []
    (group,) = quoted(batch)["groups"]
    assert [step["name"] for step in group["steps"]] == ["stage1", "stage2-plan", "stage2-execute", "stage3"]
    assert all(parse_usd(step["max_usd"]) > 0 for step in group["steps"])
    assert "small model itself has a price" in quoted(batch)["notes"][0]


async def test_a_pilot_can_be_cancelled_and_quotes_from_what_had_ended():
    parts = make_parts(agreeing)
    batch = await submit(parts, *[asking(number) for number in range(9)])
    (task, *_) = await parts.store.claim("small", worker="w", limit=1, lease_s=LEASE_S)
    await parts.store.cancel_batch(batch.project_id, batch.id)
    done = await finish(parts, batch)

    assert (done.status, done.output_file_id) == (BatchStatus.CANCELLED, None)
    assert task.spec.policy.max_stage == 1
    assert quoted(done)["pilot"]["lines"] == 0
    assert parse_usd(quoted(done)["p90_usd"]) > 0


async def test_a_worker_that_dies_in_the_pilot_loses_nothing():
    parts = make_parts(by_problem)
    batch = await submit(parts, *[asking(number) for number in range(6)])
    assert len(await parts.store.claim("small", worker="dies", limit=3, lease_s=LEASE_S)) == 3
    parts.clock.advance(LEASE_S + 1)
    await parts.store.sweep(lease_s=LEASE_S)
    done = await finish(parts, batch)

    assert (done.status, done.done) == (BatchStatus.COMPLETED, 6)
    assert quoted(done)["pilot"]["lines"] == 6


async def test_several_policies_in_one_file_are_quoted_apart_and_added_up():
    parts = make_parts(by_problem)
    lines = [asking(n) for n in range(4)] + [line("l", model="large"), line("s", model="small")]
    quote = quoted(await finish(parts, await submit(parts, *lines)))

    assert [(g["policy"], g["lines"]) for g in quote["groups"]] == [("cope", 4), ("large", 1), ("small", 1)]
    assert sum(parse_usd(g["max_usd"]) for g in quote["groups"]) == parse_usd(quote["max_usd"])
    assert sum(parse_usd(g["expected_usd"]) for g in quote["groups"]) == parse_usd(quote["expected_usd"])


async def test_a_new_price_that_is_known_ahead_ends_the_quotes_time():
    parts = make_parts(agreeing)
    later = replace(PRICE, version="2027-01", effective_at=PRICE.effective_at.replace(year=2027))
    parts = replace(parts, prices=PriceTable([PRICE, later]))
    quote = quoted(await finish(parts, await submit(parts, line("l", model="large"))))

    assert quote["price_version"] == "2026-11"
    assert quote["valid_until"] == int(later.effective_at.timestamp())
