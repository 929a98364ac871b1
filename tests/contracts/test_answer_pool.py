"""The answer pool on both stores: what is found in it, in what order, and what never is."""

from dataclasses import replace
from datetime import timedelta

from cope.core.ids import FileId, TaskId
from cope.core.keeping import Keeping
from cope.core.records import Project
from cope.ports.answer_pool import MOST_FOUND, PoolQuestion
from cope.ports.store import NewBatch, NewLine, NewLiveTask, NewTask, StepCommit, ToDone
from tests.contracts.world import LEASE_S, World, pages
from tests.support import finished_step, make_batch, make_new_task, sample

KEY, OTHER = b"k" * 16, b"o" * 16


async def answer(world: World, project: Project, key: bytes | None, *, cached: bool = False) -> TaskId:
    """A line that ends with an answer, under this key."""
    await add(world, project, make_new_task()._replace(pool=key))
    return await end(world, cached=cached)


async def end(world: World, *, cached: bool = False) -> TaskId:
    """The task that is due ends with an answer."""
    task = await world.claim_one()
    done = ToDone('{"cope": {"cost_nanousd": 0}}', 1, accepted=True, cached=cached)
    step = None if cached else finished_step("stage1", *(sample(i) for i in range(4)))
    await world.commit(StepCommit(task.task_id, task.fence, step, done))
    return task.task_id


async def add(world: World, project: Project, row: NewTask) -> None:
    await world.submit(project)
    job = await world.worker.claim_validation(lease_s=LEASE_S)
    assert job is not None
    assert await world.worker.ingest(job, pages([row]), model=lambda: "cope", expires_in=timedelta(days=1)) == 1


async def found(world: World, project: Project, key: bytes = KEY) -> list[TaskId]:
    (tasks,) = await world.worker.pooled([PoolQuestion(project.id, key)])
    return [task.task_id for task in tasks]


async def test_an_answered_task_is_found_by_its_key_with_what_is_kept_of_its_steps(world: World) -> None:
    project = await world.project()
    task_id = await answer(world, project, KEY)

    (nothing, (pooled,)) = await world.worker.pooled([PoolQuestion(project.id, OTHER), PoolQuestion(project.id, KEY)])

    assert nothing == ()
    assert pooled.task_id == task_id
    (step,) = pooled.steps
    assert (step.name, [s.answer for s in step.samples]) == ("stage1", ["5"] * 4)
    assert [s.solution is not None for s in step.samples] == [True, False, False, False]  # `store: answers`


async def test_no_question_is_answered_by_nothing(world: World) -> None:
    assert await world.worker.pooled([]) == []


async def test_another_projects_pool_is_never_read(world: World) -> None:
    mine, theirs = await world.project(name="mine"), await world.project(name="theirs")
    await answer(world, theirs, KEY)

    assert await found(world, mine) == []
    assert len(await found(world, theirs)) == 1


async def test_the_latest_come_first_and_only_a_few_of_them(world: World) -> None:
    project = await world.project()
    tasks = [await answer(world, project, KEY) for _ in range(MOST_FOUND + 1)]

    assert await found(world, project) == tasks[:0:-1]


async def test_a_task_without_a_key_or_without_its_answer_is_in_no_pool(world: World) -> None:
    project = await world.project()
    await answer(world, project, None)
    await add(world, project, make_new_task()._replace(pool=KEY))

    assert await found(world, project) == []


async def test_a_task_answered_from_the_pool_is_no_result_of_its_own(world: World) -> None:
    project = await world.project()
    source = await answer(world, project, KEY)
    await answer(world, project, KEY, cached=True)

    assert await found(world, project) == [source]


async def test_a_live_calls_answer_is_found_until_its_caller_has_it_erased(world: World) -> None:
    project = await world.project()
    live = NewLiveTask(make_new_task(0)._replace(pool=KEY), project.id, None, b"body", is_retry=False)
    task_id = await world.api.create_live_task(live)
    assert await end(world) == task_id
    before = await found(world, project)

    assert await world.api.erase_live_task(project.id, task_id)

    assert (before, await found(world, project)) == ([task_id], [])


async def test_lines_appended_to_an_open_batch_are_found_like_any_others(world: World) -> None:
    project = await world.project()
    batch = replace(make_batch(project.id, FileId(""), created_at=world.now()), open=True)
    hour = timedelta(hours=1)
    batch = await world.api.create_batch(NewBatch(batch, batch.id.encode(), None, retry=0, open_for=hour))
    line = NewLine(make_new_task()._replace(pool=KEY), b"d" * 32)
    await world.api.append_lines(project.id, batch.id, [line], window=hour, most=10)

    assert await end(world) == line.task.task_id
    assert await found(world, project) == [line.task.task_id]


async def test_what_retention_takes_is_in_the_pool_no_more(world: World) -> None:
    project = await world.project()
    await answer(world, project, KEY)
    (batch,) = (await world.api.list_batches(project.id, after=None, limit=1)).items
    await world.finish(batch)
    before = len(await found(world, project))

    await world.advance(timedelta(days=11).total_seconds())
    await world.worker.prune(Keeping(tasks=timedelta(days=10)), limit=1000)

    assert (before, await found(world, project)) == (1, [])
