"""A task whose workers keep dying gets less and less company, and is alone before its last crash."""

import asyncio
from dataclasses import replace

from cope.core.ids import TaskId
from cope.ports.model import ChatAnswer, ChatRequest
from cope.ports.store import ClaimedTask
from cope.usecases.drain import Drainer
from cope.usecases.run_step import MAX_CRASHES
from cope.usecases.suspects import most_beside
from tests.usecases.test_pipeline import LEASE_S, Parts, current, line, make_parts, says, submit


def test_a_sound_task_may_have_any_company_and_a_suspect_less_with_every_crash() -> None:
    assert most_beside([]) > 10**6
    assert most_beside([0, 1]) > 10**6
    assert [most_beside([crashes]) for crashes in range(2, MAX_CRASHES)] == [8, 2, 1]
    assert most_beside([0, 4, 2]) == 1


class _SomeCrashed:
    """The store of `Parts`, which says of one task that its workers died four times."""

    def __init__(self, parts: Parts, suspect: str) -> None:
        self._store = parts.store
        self._suspect = suspect
        self.suspect_id: TaskId | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def claim(self, queue: str, **options: object) -> list[ClaimedTask]:
        tasks = await self._store.claim(queue, **options)  # type: ignore[arg-type]
        return [replace(t, crashes=4) if self._suspect in t.spec.problem.conversation[0].content else t for t in tasks]


async def test_a_task_at_its_last_crash_runs_when_nothing_else_does_and_nothing_joins_it() -> None:
    beside: list[int] = []
    running = 0

    async def model(request: ChatRequest) -> ChatAnswer:
        nonlocal running
        running += 1
        if "SUSPECT" in request.messages[-1].content:
            beside.append(running)
        await asyncio.sleep(0.01)
        if "SUSPECT" in request.messages[-1].content:
            beside.append(running)
        running -= 1
        return says("\\boxed{5}")

    parts = make_parts(model)
    lines = [line(f"l{i}", model="small").replace("2 + 3?", "SUSPECT 2 + 3?" if i == 3 else "2 + 3?") for i in range(9)]
    batch = await submit(parts, *lines)
    guarded = replace(parts, store=_SomeCrashed(parts, "SUSPECT"))  # type: ignore[arg-type]
    drainer = Drainer(guarded, queue="small", worker="w", concurrency=64, lease_s=LEASE_S)  # type: ignore[arg-type]
    left = 200

    def stopping() -> bool:
        nonlocal left
        left -= 1
        return left <= 0 or (left < 190 and drainer.in_flight == 0)

    await drainer.run(stopping)

    assert beside == [1, 1]
    assert (await current(parts, batch)).done == 9
