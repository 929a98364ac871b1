"""Output and error files: in one walk, in either order, at every kind of end, and never with a line missing."""

import hashlib
import json
from dataclasses import replace

import pytest

from cope.core.lifecycle import BatchStatus
from cope.core.records import Batch
from cope.ports.store import NewBatch
from cope.usecases.finalise import LinesMissing, finalise_next
from cope.usecases.ingest import ingest_next
from tests.contracts.world import done, fails
from tests.support import make_batch, make_file, make_key, make_project
from tests.usecases.test_pipeline import LEASE_S, Parts, agreeing, current, line, make_parts, results, submit


async def claimed(parts: Parts, count: int) -> list[object]:
    return list(await parts.store.claim("small", worker="w", limit=count, lease_s=LEASE_S))


async def names(parts: Parts, batch: Batch) -> tuple[list[object], list[object]]:
    seen = await current(parts, batch)
    output, error = await results(parts, seen.output_file_id), await results(parts, seen.error_file_id)
    return [one["custom_id"] for one in output], [one["custom_id"] for one in error]


async def end_in_disorder(parts: Parts) -> None:
    tasks = await claimed(parts, 4)
    for index in (3, 0, 2, 1):
        task = tasks[index]
        await parts.store.commit([done(task, body="{}") if index % 2 else fails(task)])  # type: ignore[arg-type]


async def test_files_are_in_the_order_in_which_lines_ended():
    parts = make_parts(agreeing)
    batch = await submit(parts, *(line(name) for name in "abcd"))
    await end_in_disorder(parts)
    assert await finalise_next(parts, lease_s=LEASE_S)
    assert await names(parts, batch) == (["d", "b"], ["a", "c"])


async def test_files_are_in_the_order_of_the_input_where_the_batch_asked_for_it():
    parts = make_parts(agreeing)
    batch = await submit(parts, *(line(name) for name in "abcd"))
    owner = parts.store._db.batches[batch.id]
    owner.batch = replace(owner.batch, defaults='{"order":"input"}')
    await end_in_disorder(parts)
    assert await finalise_next(parts, lease_s=LEASE_S)
    assert await names(parts, batch) == (["b", "d"], ["a", "c"])


async def test_a_file_s_row_says_what_its_bytes_are():
    parts = make_parts(agreeing)
    batch = await submit(parts, line("a"), line("b"))
    await parts.store.commit([done(task, body='{"x": 1}') for task in await claimed(parts, 2)])  # type: ignore[arg-type]
    assert await finalise_next(parts, lease_s=LEASE_S)

    seen = await current(parts, batch)
    assert seen.output_file_id is not None
    row = await parts.store.file(seen.output_file_id)
    data = parts.files.contents[seen.output_file_id]
    assert row is not None
    assert (row.lines, row.bytes, row.sha256) == (2, len(data), hashlib.sha256(data).hexdigest())
    assert seen.error_file_id is None


async def test_where_nothing_succeeded_the_output_file_is_there_and_empty():
    parts = make_parts(agreeing)
    batch = await submit(parts, line("a"))
    await parts.store.cancel_batch(batch.project_id, batch.id)
    assert await finalise_next(parts, lease_s=LEASE_S)

    seen = await current(parts, batch)
    assert seen.status is BatchStatus.CANCELLED
    assert seen.output_file_id is not None
    assert parts.files.contents[seen.output_file_id] == b""
    (cancelled,) = await results(parts, seen.error_file_id)
    assert (cancelled["response"], cancelled["error"]["code"]) == (None, "batch_cancelled")  # type: ignore[index]


async def test_a_batch_cancelled_before_it_was_read_has_an_empty_output_file():
    parts = make_parts(agreeing)
    project = make_project()
    await parts.store.create_project(project, "whsec_dGVzdHMtc2lnbi10aGVpci13ZWJob29rcw==")
    await parts.store.create_key(make_key(project.id))
    file = await parts.store.create_file(make_file(project.id))
    batch = await parts.store.create_batch(NewBatch(make_batch(project.id, file.id), b"hash", None, retry=0))
    await parts.store.cancel_batch(project.id, batch.id)
    assert await finalise_next(parts, lease_s=LEASE_S)
    seen = await current(parts, batch)
    assert (seen.status, seen.total, seen.error_file_id) == (BatchStatus.CANCELLED, 0, None)
    assert seen.output_file_id is not None


async def test_a_refused_input_leaves_an_empty_output_file_and_whoever_waits_is_told():
    parts = make_parts(agreeing)
    batch = await submit(parts, "not json")
    seen = await current(parts, batch)
    assert (seen.status, seen.error_file_id) == (BatchStatus.FAILED, None)
    assert seen.output_file_id is not None
    assert parts.files.contents[seen.output_file_id] == b""
    assert parts.wake.announced == [batch.id]


async def test_a_batch_is_not_closed_with_a_line_missing():
    parts = make_parts(agreeing)
    batch = await submit(parts, line("a"), line("b"))
    await parts.store.commit([done(task) for task in await claimed(parts, 2)])  # type: ignore[arg-type]
    owner = parts.store._db.batches[batch.id]
    owner.batch = replace(owner.batch, total=3)
    before = set(parts.files.contents)
    with pytest.raises(LinesMissing, match="2 lines have ended of 3"):
        await finalise_next(parts, lease_s=LEASE_S)
    assert (await current(parts, batch)).status is BatchStatus.FINALIZING
    assert set(parts.files.contents) == before

    owner.batch = replace(owner.batch, total=2)
    parts.clock.advance(LEASE_S + 1)
    assert await finalise_next(parts, lease_s=LEASE_S)
    assert parts.wake.announced == [batch.id]
    assert not await ingest_next(parts, lease_s=LEASE_S)


async def test_a_line_in_the_file_is_what_openai_s_are():
    parts = make_parts(agreeing)
    batch = await submit(parts, line("a"), line("b"))
    first, second = await claimed(parts, 2)
    await parts.store.commit([done(first, body='{"id":"x"}'), fails(second, status=413)])  # type: ignore[arg-type]
    assert await finalise_next(parts, lease_s=LEASE_S)
    seen = await current(parts, batch)
    (output,) = await results(parts, seen.output_file_id)
    (error,) = await results(parts, seen.error_file_id)
    assert set(output) == set(error) == {"id", "custom_id", "response", "error"}
    assert str(output["id"]).startswith("batch_req_")
    assert output["response"] == {"status_code": 200, "request_id": output["id"], "body": {"id": "x"}}
    assert json.dumps(error["response"]).count("413") == 1
    assert error["error"] is None
