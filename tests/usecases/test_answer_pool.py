"""Reading stored results, through the use cases: what is asked of the models, charged, and said in the answer."""

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from cope.core.ids import ProjectId
from cope.core.money import ZERO
from cope.core.problem import Kind
from cope.core.request import RequestDefaults, RequestParser, parse_request
from cope.core.responses.request import parse_response
from cope.core.task import Cache
from cope.ports.store import NewBatch
from cope.usecases.finalise import finalise_next
from cope.usecases.ingest import ingest_next, new_live_task
from tests.support import make_batch, make_file
from tests.usecases.stepping import work_off
from tests.usecases.test_pipeline import (
    LEASE_S,
    Parts,
    current,
    divided,
    line,
    make_parts,
    results,
    submit,
)


async def again(parts: Parts, project_id: ProjectId, *lines: str) -> list[dict[str, Any]]:
    """A further batch of that project; the `cope` blocks of its results."""
    file = make_file(project_id)
    file = replace(file, sha256=sha256(file.id.encode()).hexdigest())  # else it would share the first one's bytes
    await parts.store.create_file(file)
    writer = await parts.files.create(file.id)
    await writer.write("\n".join(lines).encode())
    await writer.commit()
    batch = await parts.store.create_batch(NewBatch(make_batch(project_id, file.id), file.id.encode(), None, retry=0))
    assert await ingest_next(parts, lease_s=LEASE_S)
    return await blocks(parts, batch)


async def blocks(parts: Parts, batch: Any) -> list[dict[str, Any]]:
    await work_off(parts)
    assert await finalise_next(parts, lease_s=LEASE_S)
    done = await current(parts, batch)
    return [row["response"]["body"]["cope"] for row in await results(parts, done.output_file_id)]  # type: ignore[index]


async def first(parts: Parts, **cope: object) -> tuple[ProjectId, dict[str, Any]]:
    """One line, worked out, and its project. Nothing has been asked since."""
    batch = await submit(parts, line("first", **cope))
    (block,) = await blocks(parts, batch)
    parts.model.requests.clear()
    return batch.project_id, block


async def test_an_identical_line_is_answered_without_a_call_or_a_charge_and_is_marked() -> None:
    parts = make_parts(divided)
    project_id, original = await first(parts)
    spent = (await parts.store.get_budget(project_id)).spent

    (cached,) = await again(parts, project_id, line("second", cache="read"))

    assert parts.model.requests == []
    assert original["cost_nanousd"] > 0
    assert "cached" not in original
    assert (cached["cached"], cached["cached_from"]) == (True, original["task_id"])
    assert (cached["answer"], cached["stage"]) == ("9", 3)
    assert (cached["cost_nanousd"], cached["usage"]["large"]["calls"]) == (0, 0)
    assert {step["reused_from"] for step in cached["steps"]} == {original["task_id"]}
    budget = await parts.store.get_budget(project_id)
    assert (budget.spent, budget.reserved, budget.unconfirmed) == (spent, ZERO, ZERO)


async def test_a_line_that_does_not_ask_for_it_is_worked_out_again() -> None:
    parts = make_parts(divided)
    project_id, _ = await first(parts)

    (block,) = await again(parts, project_id, line("second"))

    assert parts.model.requests
    assert "cached" not in block


async def test_the_answer_is_always_the_task_that_worked_it_out_never_a_copy() -> None:
    parts = make_parts(divided)
    project_id, original = await first(parts)

    (second,) = await again(parts, project_id, line("second", cache="read"))
    (third,) = await again(parts, project_id, line("third", cache="read"))

    assert second["cached_from"] == third["cached_from"] == original["task_id"]


@pytest.mark.parametrize("change", [{"n": 5}, {"seed": 3}, {"kind": "exact"}, {"tau1": "0.5"}, {"policy": "large"}])
async def test_a_line_that_differs_in_what_may_change_its_answer_is_worked_out(change: dict[str, object]) -> None:
    parts = make_parts(divided)
    project_id, _ = await first(parts)

    (block,) = await again(parts, project_id, line("second", cache="read", **change))

    assert parts.model.requests
    assert "cached" not in block


async def test_a_seed_is_answered_by_the_same_seed() -> None:
    parts = make_parts(divided)
    project_id, original = await first(parts, seed=3)

    (cached,) = await again(parts, project_id, line("second", cache="read", seed=3))

    assert cached["cached_from"] == original["task_id"]


async def test_nothing_is_read_of_a_line_that_keeps_no_texts() -> None:
    parts = make_parts(divided)
    project_id, _ = await first(parts, store="none")

    (block,) = await again(parts, project_id, line("second", cache="read"))

    assert "cached" not in block


async def test_another_project_works_it_out_for_itself() -> None:
    parts = make_parts(divided)
    await first(parts)

    batch = await submit(parts, line("second", cache="read"))
    (block,) = await blocks(parts, batch)

    assert parts.model.requests
    assert "cached" not in block


async def test_prompts_that_have_changed_since_are_asked_anew() -> None:
    parts = make_parts(divided)
    project_id, _ = await first(parts)
    small = replace(parts.catalog.entries["small"], prompt_set="instruct")
    parts = replace(parts, catalog=replace(parts.catalog, entries={**parts.catalog.entries, "small": small}))

    (block,) = await again(parts, project_id, line("second", cache="read"))

    assert "cached" not in block


async def test_a_file_is_answered_from_what_is_there_and_the_rest_worked_out() -> None:
    parts = make_parts(divided)
    project_id, _ = await first(parts)
    other = json.loads(line("new", cache="read"))
    other["body"]["messages"][0]["content"] = "4 + 4?"

    found = await again(parts, project_id, line("second", cache="read"), json.dumps(other))

    assert sorted("cached" in block for block in found) == [False, True]


@pytest.mark.parametrize(
    ("request_of", "kept"),
    [
        ({}, True),
        ({"cope": {"store": "full"}}, True),
        ({"cope": {"store": "none"}}, False),
        ({"cope": {"store": "none", "cache": "read"}}, False),
    ],
)
def test_a_live_call_is_in_the_pool_unless_it_keeps_no_texts(request_of: dict[str, object], kept: bool) -> None:
    parts = make_parts(divided)
    body = {"model": "cope", "messages": [{"role": "user", "content": "2 + 3?"}], **request_of}
    parsed = parse_request(body, defaults=RequestDefaults(Kind.MATH), catalog=parts.catalog)

    assert (new_live_task(parts.ids, parsed).pool is not None) is kept


@pytest.mark.parametrize("store", [True, False])
def test_a_response_that_is_not_to_be_read_back_is_in_no_pool(store: bool) -> None:
    parts = make_parts(divided)
    parser = RequestParser(RequestDefaults(Kind.MATH), parts.catalog)
    parsed = parse_response(parser, {"model": "cope", "input": "2 + 3?", "store": store})

    assert (new_live_task(parts.ids, parsed).pool is not None) is store


async def test_a_dry_run_asks_its_pilot_anew() -> None:
    parts = make_parts(divided)
    project_id, _ = await first(parts)
    file = replace(make_file(project_id), sha256="1" * 64)
    await parts.store.create_file(file)
    writer = await parts.files.create(file.id)
    await writer.write(line("second", cache="read").encode())
    await writer.commit()
    dry = replace(make_batch(project_id, file.id), dry_run=1)
    await parts.store.create_batch(NewBatch(dry, b"dry", None, retry=0))
    assert await ingest_next(parts, lease_s=LEASE_S)

    (task,) = await parts.store.claim("small", worker="w", limit=1, lease_s=LEASE_S)

    assert task.spec.cache is Cache.OFF
