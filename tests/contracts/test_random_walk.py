"""Anything may happen in any order: workers die, answer late, give back; caps move; the books stay exact."""

from random import Random

import pytest

from cope.core.ids import TaskId
from cope.core.lifecycle import TERMINAL_TASK_STATES, AttemptState
from cope.core.money import NanoUSD
from cope.core.records import Batch, Project
from cope.ports.store import Adopted, ClaimedTask, GiveBack, Granted, Refused
from tests.contracts.world import World, bill, done, fails, goes_on, large_step

TASKS = 24
STEPS = 150


class Walk:
    """One random life of a project. Every grant is checked against the cap under which it was given."""

    def __init__(self, world: World, project: Project, batch: Batch, random: Random) -> None:
        self.world = world
        self.project = project
        self.batch = batch
        self.random = random
        self.cap: int | None = 5_000
        self.leased: dict[TaskId, ClaimedTask] = {}
        self.granted: dict[TaskId, Granted] = {}
        self.sent: dict[TaskId, Granted] = {}
        self.steps = 0

    async def step(self) -> None:
        acts = [
            self.claim,
            self.claim,
            self.reserve,
            self.reserve,
            self.send,
            self.send,
            self.commit,
            self.commit,
            self.give_back,
            self.die,
            self.answer_late,
            self.sweep,
            self.pass_time,
            self.move_cap,
            self.hold_or_resume,
        ]
        await self.random.choice(acts)()
        await self.check()

    async def claim(self) -> None:
        for task in await self.world.claim("large", limit=self.random.randint(1, 4)):
            assert task.task_id not in self.leased or self.leased[task.task_id].fence < task.fence
            self.leased[task.task_id] = task
            self.granted.pop(task.task_id, None)
            self.sent.pop(task.task_id, None)

    def any_leased(self) -> ClaimedTask | None:
        return self.random.choice(list(self.leased.values())) if self.leased else None

    def step_name(self, task: ClaimedTask) -> str:
        return f"step{len(task.history)}"

    async def reserve(self) -> None:
        task = self.any_leased()
        if task is None or task.task_id in self.granted or task.task_id in self.sent:
            return
        before = await self.world.budget(self.project)
        amount = self.random.randint(1, 2_000)
        result = await self.world.reserve(task, amount, step=self.step_name(task))
        after = await self.world.budget(self.project)
        if isinstance(result, Granted):
            self.granted[task.task_id] = result
            assert after.reserved == before.reserved + amount
            assert self.cap is None or after.spent + after.reserved + after.unconfirmed <= self.cap
        else:
            assert after == before
        if isinstance(result, Adopted):
            await self.world.commit(goes_on(task, "large", step=large_step(name=self.step_name(task))))
            self.leased.pop(task.task_id)
        if isinstance(result, Refused):
            assert self.cap is not None
            assert amount > max(0, self.cap - before.spent - before.reserved - before.unconfirmed)
            await self.world.hold(task, amount)
            self.leased.pop(task.task_id)

    async def send(self) -> None:
        if not self.granted:
            return
        task_id = self.random.choice(list(self.granted))
        granted = self.granted.pop(task_id)
        if await self.world.worker.mark_sent([granted.attempt_id]):
            self.sent[task_id] = granted

    async def commit(self) -> None:
        task = self.any_leased()
        if task is None or task.task_id in self.granted:
            return
        granted = self.sent.pop(task.task_id, None)
        bills = () if granted is None else (bill(granted, self.random.randint(0, 1)),)
        step = large_step(name=self.step_name(task))
        self.steps += 1
        end = self.random.random()
        if end < 0.5:
            commit = goes_on(task, "large", step=step, bills=bills)
        elif end < 0.8 or granted is not None:
            commit = done(task, step=step, bills=bills)
        else:
            commit = fails(task)
        await self.world.commit(commit)
        self.leased.pop(task.task_id)

    async def give_back(self) -> None:
        task = self.any_leased()
        if task is None:
            return
        granted = self.granted.pop(task.task_id, None)
        released = () if granted is None else (granted.attempt_id,)
        self.sent.pop(task.task_id, None)
        await self.world.worker.give_back([GiveBack(task.task_id, task.fence, released=released)])
        self.leased.pop(task.task_id)

    async def die(self) -> None:
        task = self.any_leased()
        if task is not None:
            self.leased.pop(task.task_id)
            self.granted.pop(task.task_id, None)

    async def answer_late(self) -> None:
        late = [task_id for task_id in self.sent if task_id not in self.leased]
        if late:
            granted = self.sent.pop(self.random.choice(late))
            await self.world.worker.store_late_answer(bill(granted, 1), "late")

    async def sweep(self) -> None:
        await self.world.sweep()

    async def pass_time(self) -> None:
        await self.world.advance(self.random.choice([1, 10, 40]))

    async def move_cap(self) -> None:
        self.cap = self.random.choice([None, 0, 1_000, 5_000, 8_000])
        await self.world.api.set_cap(self.project.id, None if self.cap is None else NanoUSD(self.cap))

    async def hold_or_resume(self) -> None:
        act = self.random.choice([self.world.api.hold_batch, self.world.api.resume_batch, self.world.api.resume_batch])
        await act(self.project.id, self.batch.id)

    async def check(self) -> None:
        """The budget is the sum of the attempts, to the nano-dollar."""
        page = await self.world.api.list_tasks(self.project.id, self.batch.id, state=None, after=None, limit=TASKS)
        attempts = [attempt for task in page.items for attempt in task.attempts]
        budget, batch = await self.world.budget(self.project), await self.world.see(self.batch)
        by_state = {
            state: sum(attempt.reserved for attempt in attempts if attempt.state is state) for state in AttemptState
        }
        assert budget.reserved == batch.reserved == by_state[AttemptState.RESERVED] + by_state[AttemptState.SENT]
        assert budget.unconfirmed == batch.unconfirmed == by_state[AttemptState.UNCONFIRMED]
        assert budget.spent == batch.spent == sum(attempt.cost or 0 for attempt in attempts)
        ended = [task for task in page.items if task.state in TERMINAL_TASK_STATES]
        assert batch.done + batch.failed == len(ended)
        for task in page.items:
            names = [step.name for step in task.history]
            assert len(names) == len(set(names))

    async def drain(self) -> None:
        """Whatever happened, every task can be brought to its end."""
        await self.world.api.set_cap(self.project.id, None)
        await self.world.api.resume_batch(self.project.id, self.batch.id)
        for _ in range(4 * TASKS):
            await self.world.advance(40)
            await self.world.sweep()
            claimed = await self.world.claim("large")
            await self.world.commit(*[done(task, step=large_step(name=self.step_name(task))) for task in claimed])
            if not claimed and len(await self.unfinished()) == 0:
                return

    async def unfinished(self) -> list[str]:
        return [state for state in await self.world.states(self.batch) if state not in TERMINAL_TASK_STATES]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_random_life_keeps_the_books_exact_and_loses_no_line(world: World, seed: int) -> None:
    project = await world.project(cap=NanoUSD(5_000))
    batch = await world.batch(project, TASKS, queue="large", expires_in_s=10**7)
    walk = Walk(world, project, batch, Random(seed))

    for _ in range(STEPS):
        await walk.step()
    await walk.drain()

    assert await walk.unfinished() == []
    output, error = await world.lines(batch, failed=False), await world.lines(batch, failed=True)
    assert sorted(line.line for line in (*output, *error)) == list(range(1, TASKS + 1))
    events = await world.events(project)
    ends = [event.task_id for event in events if event.type in {"task.done", "task.failed"}]
    assert len(ends) == len(set(ends)) == TASKS
    await walk.check()
