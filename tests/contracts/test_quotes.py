"""What every store does with dry runs: marked, surveyed, closed without files, with their quote."""

from dataclasses import replace
from datetime import timedelta

from cope.core.ids import BatchId
from cope.core.lifecycle import BatchStatus
from cope.core.money import TokenUsage
from cope.core.parse_watch import WATCHED_LINES
from cope.core.records import Batch, Project
from cope.ports.store import BatchJob, NewBatch, ToDone
from tests.contracts.world import LEASE_S, World, bill, done, goes_on, large_step, pages
from tests.support import make_batch, make_file, make_new_task


async def ask(world: World, project: Project, *, pilot_lines: int = 20) -> Batch:
    """A dry run that is still `validating`."""
    file = await world.api.create_file(make_file(project.id))
    batch = replace(make_batch(project.id, file.id, created_at=world.now()), dry_run=pilot_lines)
    return await world.api.create_batch(NewBatch(batch, batch.id.encode(), None, retry=0))


async def validation(world: World) -> BatchJob:
    job = await world.worker.claim_validation(lease_s=LEASE_S)
    assert job is not None
    return job


async def begin(world: World, job: BatchJob, *, lines: int) -> None:
    rows = [make_new_task(line) for line in range(1, lines + 1)]
    await world.worker.ingest(job, pages(rows), model=lambda: "cope", expires_in=timedelta(hours=24))


async def test_a_dry_run_is_marked_where_it_is_seen_and_listed_and_a_real_batch_is_not(world: World):
    project = await world.project()
    dry, real = await ask(world, project, pilot_lines=7), await world.submit(project)

    assert (dry.dry_run, dry.quote, real.dry_run) == (7, None, None)
    listed = (await world.api.list_batches(project.id, after=None, limit=9)).items
    assert {batch.id: batch.dry_run for batch in listed} == {dry.id: 7, real.id: None}


async def test_the_survey_and_the_pilots_tasks_come_back_in_the_order_of_their_lines(world: World):
    project = await world.project()
    dry = await ask(world, project)
    job = await validation(world)
    assert job.batch.dry_run == 20
    assert (await world.worker.pilot(dry.id)).survey is None
    await world.worker.put_survey(job, '{"seed": 1}')
    await begin(world, job, lines=3)
    first, second, _ = await world.claim(limit=3)
    await world.commit(done(second), done(first))

    run = await world.worker.pilot(dry.id)
    assert run.survey == '{"seed": 1}'
    assert [task.state.value for task in run.tasks] == ["done", "done", "leased"]
    assert run.tasks[0].id == first.task_id
    assert [[step.name for step in task.history] for task in run.tasks] == [["stage1"], ["stage1"], []]
    assert (run.tasks[0].result, run.tasks[2].result) == ('{"answer": "5"}', None)


async def test_a_pilot_that_nobody_can_read_is_not_said_to_pause(world: World):
    project = await world.project()
    await ask(world, project, pilot_lines=WATCHED_LINES)
    await begin(world, await validation(world), lines=WATCHED_LINES)
    commits = [replace(done(task), parses=False) for task in await world.claim(limit=WATCHED_LINES)]
    for start in range(0, len(commits), 50):
        await world.commit(*commits[start : start + 50])

    assert "batch.paused" not in [event.type for event in await world.events(project)]


async def test_a_lost_job_writes_no_survey(world: World):
    project = await world.project()
    dry = await ask(world, project)
    lost = await validation(world)
    await world.advance(LEASE_S + 1)
    held = await validation(world)
    await world.worker.put_survey(held, "the holder's")
    await world.worker.put_survey(lost, "too late")

    assert (await world.worker.pilot(dry.id)).survey == "the holder's"


async def test_a_dry_run_ends_without_files_and_its_quote_is_there_with_its_status(world: World):
    project = await world.project()
    dry = await ask(world, project)
    await begin(world, await validation(world), lines=1)
    await world.commit(done(await world.claim_one()))
    job = await world.finalisation()
    status = await world.worker.finish_batch(job, output=None, error=None, quote='{"max_usd": "1.00"}')

    seen = await world.see(dry)
    assert status is seen.status is BatchStatus.COMPLETED
    assert (seen.quote, seen.output_file_id, seen.error_file_id) == ('{"max_usd": "1.00"}', None, None)
    assert "batch.completed" in [event.type for event in await world.events(project)]


async def test_a_pilot_without_lines_goes_straight_to_its_end(world: World):
    project = await world.project()
    dry = await ask(world, project, pilot_lines=0)
    await begin(world, await validation(world), lines=0)
    job = await world.finalisation()

    assert (job.batch.id, job.batch.total, job.batch.dry_run) == (dry.id, 0, 0)


async def test_the_past_is_this_projects_and_of_the_models_and_policies_asked_for(world: World):
    mine, other = await world.project(), await world.project(name="other")
    policy = make_new_task().policy
    for project in (mine, other):
        batch = await world.batch(project, 3)
        tasks = await world.claim(limit=3)
        await world.commit(*[goes_on(task) for task in tasks])
        for number, task in enumerate(await world.claim("large", limit=3)):
            granted = await world.send(task, 1000, step="stage3")
            usage = TokenUsage(prompt=20, completion=10 + number, calls=1)
            settled = replace(bill(granted, 500), usage=usage)
            await world.commit(done(task, step=large_step(500), stage=3 if number else 2, bills=(settled,)))
        assert batch.project_id == project.id

    past = await world.worker.past(mine.id, models=["large"], policies=[policy, "another"])
    assert {key: sorted(tokens) for key, tokens in past.outputs.items()} == {("large", "stage3"): [10, 11, 12]}
    assert past.stage2 == {policy: (1, 2), "another": (0, 0)}
    nothing = await world.worker.past(mine.id, models=["other"], policies=[])
    assert (nothing.outputs, nothing.stage2) == ({}, {})


async def test_a_stage_2_that_only_the_want_of_money_ended_is_no_example_of_one_that_settles(world: World):
    project = await world.project()
    policy = make_new_task().policy
    await world.batch(project, 3, queue="large")
    for number, task in enumerate(await world.claim("large", limit=3)):
        end = done(task, step=large_step(), stage=2)
        accepted = ToDone('{"answer": "5"}', 2, accepted=number == 0)
        await world.commit(replace(end, next=accepted))

    past = await world.worker.past(project.id, models=["large"], policies=[policy])
    assert past.stage2 == {policy: (1, 2)}


async def test_another_projects_dry_run_is_not_seen(world: World):
    mine, other = await world.project(), await world.project(name="other")
    dry = await ask(world, mine)

    assert await world.api.get_batch(other.id, BatchId(dry.id)) is None
    assert (await world.api.list_batches(other.id, after=None, limit=9)).items == ()
