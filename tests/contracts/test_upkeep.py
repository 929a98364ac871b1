"""From an uploaded file to tasks, and from ended tasks to output and error lines."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

from cope.core.errors import Conflict
from cope.core.lifecycle import BatchStatus
from cope.core.money import NanoUSD, Price
from cope.core.records import LineError
from cope.ports.store import NewTask
from tests.contracts.world import LEASE_S, World, done, fails, pages
from tests.support import NOON, make_file, make_new_task

DAY = timedelta(hours=24)


def several_models() -> None:
    """What ingest says of a file whose lines name more than one model."""


async def test_a_batch_being_validated_is_given_to_one_worker_at_a_time(world: World) -> None:
    batch = await world.submit(await world.project())

    job = await world.worker.claim_validation(lease_s=LEASE_S)

    assert job is not None
    assert job.batch.id == batch.id
    assert await world.worker.claim_validation(lease_s=LEASE_S) is None


async def test_a_validation_whose_worker_died_is_done_again_and_the_first_one_can_write_nothing(world: World) -> None:
    batch = await world.submit(await world.project())
    slow = await world.worker.claim_validation(lease_s=30)
    assert slow is not None
    await world.advance(31)
    quick = await world.worker.claim_validation(lease_s=30)
    assert quick is not None

    assert not await world.worker.renew_batch_job(slow, lease_s=30)
    assert await world.worker.ingest(slow, pages([make_new_task()]), model=several_models, expires_in=DAY) is None
    await world.worker.fail_validation(slow, [LineError("x", "lost", None, 1)])
    assert (await world.see(batch)).status is BatchStatus.VALIDATING

    assert await world.worker.ingest(quick, pages([make_new_task()]), model=several_models, expires_in=DAY) == 1


async def test_a_renewed_validation_is_not_given_to_others(world: World) -> None:
    await world.submit(await world.project())
    job = await world.worker.claim_validation(lease_s=30)
    assert job is not None
    await world.advance(20)
    assert await world.worker.renew_batch_job(job, lease_s=30)
    await world.advance(20)

    assert await world.worker.claim_validation(lease_s=30) is None


async def test_ingest_makes_all_tasks_and_sets_the_batch_in_progress_together(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 1_001)

    assert batch.status is BatchStatus.IN_PROGRESS
    assert (batch.total, batch.done, batch.failed, batch.model) == (1_001, 0, 0, "cope")
    assert batch.in_progress_at is not None
    assert batch.expires_at is not None
    assert abs(batch.expires_at - world.now() - DAY) < timedelta(minutes=1)
    assert len(await world.claim(limit=2_000)) == 1_001


async def test_an_error_midway_through_ingest_leaves_nothing_behind(world: World) -> None:
    project = await world.project()
    batch = await world.submit(project)
    job = await world.worker.claim_validation(lease_s=LEASE_S)
    assert job is not None

    async def torn() -> AsyncIterator[Sequence[NewTask]]:
        yield [make_new_task(1), make_new_task(2)]
        raise ValueError("the file broke off")

    with pytest.raises(ValueError, match="broke off"):
        await world.worker.ingest(job, torn(), model=several_models, expires_in=DAY)

    seen = await world.see(batch)
    assert (seen.status, seen.total) == (BatchStatus.VALIDATING, 0)
    assert await world.claim() == []
    assert await world.worker.ingest(job, pages([make_new_task(1)]), model=several_models, expires_in=DAY) == 1


async def test_a_batch_cancelled_while_it_is_ingested_gets_no_tasks(world: World) -> None:
    project = await world.project()
    batch = await world.submit(project)
    job = await world.worker.claim_validation(lease_s=LEASE_S)
    assert job is not None
    await world.api.cancel_batch(project.id, batch.id)

    assert await world.worker.ingest(job, pages([make_new_task()]), model=several_models, expires_in=DAY) is None

    assert await world.claim() == []


async def test_a_batch_that_does_not_validate_fails_with_the_errors_of_its_lines(world: World) -> None:
    project = await world.project()
    batch = await world.submit(project)
    job = await world.worker.claim_validation(lease_s=LEASE_S)
    assert job is not None
    errors = [
        LineError("invalid_json", "Line 3 is not JSON.", None, 3),
        LineError("missing", "There is no custom_id.", "custom_id", 7),
    ]

    await world.worker.fail_validation(job, errors)

    seen = await world.see(batch)
    assert seen.status is BatchStatus.FAILED
    assert seen.failed_at is not None
    assert seen.errors == tuple(errors)
    assert await world.worker.claim_validation(lease_s=LEASE_S) is None
    assert await world.worker.claim_finalisation(lease_s=LEASE_S) is None


async def test_output_and_error_lines_together_are_all_lines(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 9)
    tasks = await world.claim(limit=9)
    await world.commit(*[done(t) if i % 3 else fails(t) for i, t in enumerate(tasks)])

    output, error = await world.lines(batch, failed=False), await world.lines(batch, failed=True)

    assert (len(output), len(error)) == (6, 3)
    assert len(output) + len(error) == batch.total
    assert {line.custom_id for line in (*output, *error)} == {f"line-{n}" for n in range(1, 10)}


async def test_an_output_line_carries_its_body_and_an_error_line_its_error(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 2)
    first, second = await world.claim(limit=2)
    await world.commit(done(first, body='{"choices": [1]}'), fails(second, code="model_rejected", status=400))

    (output,), (error,) = await world.lines(batch, failed=False), await world.lines(batch, failed=True)

    assert (output.task_id, output.custom_id, output.line) == (first.task_id, "line-1", 1)
    assert (output.status, output.body, output.error) == (200, '{"choices": [1]}', None)
    assert (error.task_id, error.status) == (second.task_id, 400)
    assert error.body is not None
    assert "model_rejected" in error.body


async def test_results_come_in_the_order_of_completion_or_of_the_input(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 4)
    tasks = await world.claim(limit=4)
    for index in (2, 0, 3, 1):
        await world.commit(done(tasks[index]))

    by_completion = await world.lines(batch, failed=False, by_input=False)
    by_input = await world.lines(batch, failed=False, by_input=True)

    assert [line.custom_id for line in by_completion] == ["line-3", "line-1", "line-4", "line-2"]
    assert [line.custom_id for line in by_input] == ["line-1", "line-2", "line-3", "line-4"]


@pytest.mark.parametrize("by_input", [True, False])
async def test_results_of_many_pages_have_every_line_once(world: World, by_input: bool) -> None:
    project = await world.project()
    batch = await world.batch(project, 2_300)
    while tasks := await world.claim(limit=500):
        await world.commit(*[done(task, body="{}") for task in tasks])

    sizes, seen = [], []
    async for page in world.worker.results(batch.id, by_input=by_input):
        sizes.append(len(page))
        seen += [line.line for line in page]

    assert len(sizes) > 1
    assert sorted(seen) == list(range(1, 2_301))
    if by_input:
        assert seen == sorted(seen)


async def test_finishing_a_batch_records_its_files_and_completes_it(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 2)
    first, second = await world.claim(limit=2)
    await world.commit(done(first), fails(second))
    job = await world.finalisation()
    output = make_file(project.id, purpose="batch_output", filename="output.jsonl", size=111)
    error = make_file(project.id, purpose="batch_output", filename="error.jsonl", size=22)

    status = await world.worker.finish_batch(job, output=output, error=error)

    assert status is BatchStatus.COMPLETED
    seen = await world.see(batch)
    assert (seen.status, seen.output_file_id, seen.error_file_id) == (BatchStatus.COMPLETED, output.id, error.id)
    assert seen.completed_at is not None
    file = await world.api.get_file(project.id, output.id)
    assert file is not None
    assert (file.bytes, file.filename, file.purpose) == (111, "output.jsonl", "batch_output")
    assert await world.worker.file(error.id) is not None


async def test_a_batch_is_finished_once(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project)
    await world.commit(done(await world.claim_one()))
    slow = await world.worker.claim_finalisation(lease_s=30)
    assert slow is not None
    await world.advance(31)
    quick = await world.worker.claim_finalisation(lease_s=30)
    assert quick is not None

    lost = await world.worker.finish_batch(slow, output=make_file(project.id), error=None)
    kept = await world.worker.finish_batch(quick, output=make_file(project.id), error=None)

    assert (lost, kept) == (None, BatchStatus.COMPLETED)
    assert await world.worker.finish_batch(quick, output=make_file(project.id), error=None) is None
    assert await world.worker.claim_finalisation(lease_s=30) is None
    assert (await world.see(batch)).status is BatchStatus.COMPLETED


async def test_upkeep_reads_files_and_projects_of_everyone(world: World) -> None:
    project = await world.project(name="one of many")
    file = await world.api.create_file(make_file(project.id))

    assert await world.worker.file(file.id) == file
    seen = await world.worker.project(project.id)
    assert seen is not None
    assert seen.name == "one of many"


async def test_an_equal_price_is_passed_over_and_a_different_one_under_its_name_refused(world: World) -> None:
    price = Price("gpt-large", "2026-11-01", NanoUSD(2_000), NanoUSD(500), NanoUSD(8_000), NOON)
    other = Price("gpt-large", "2026-11-01", NanoUSD(1_999), NanoUSD(500), NanoUSD(8_000), NOON)
    later = Price("gpt-large", "2026-12-01", NanoUSD(1_999), NanoUSD(500), NanoUSD(8_000), NOON)
    await world.worker.put_prices([price])

    await world.worker.put_prices([price, later])

    with pytest.raises(Conflict):
        await world.worker.put_prices([other])
