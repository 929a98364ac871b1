"""Whatever happens in whatever order, Postgres agrees with a plain model of the money.

The model is a list of attempts and three caps. Rules: reserve, send, settle (also beyond the reserve), give back,
crash, a zombie's late answer, the end of a month, changes of caps and of the price. After each, every budget in the
database must equal what the model's attempts add up to, and the ledger what the budgets say.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import psycopg
import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cope.adapters.postgres import PostgresApiStore, PostgresWorkerStore
from cope.adapters.postgres.budgets import KnownBudgets
from cope.adapters.postgres.money import ledger_difference
from cope.core.ids import AttemptId
from cope.core.money import NanoUSD
from cope.core.records import ApiKey, Batch, Project
from cope.ports.store import ClaimedTask, GiveBack, Granted, Paused, Refused
from tests.contracts.world import PostgresWorld, ask, bill, done, goes_on, large_step
from tests.postgres.conftest import Place

pytestmark = pytest.mark.integration

T = TypeVar("T")
TASKS = 6
LEASE_S = 3_600.0
"""So long that none runs out by itself on a busy machine: only `crash` ends leases."""
AMOUNTS = st.integers(0, 1_500)
CAPS = st.one_of(st.none(), st.integers(0, 4_000))


@dataclass
class Call:
    """One attempt in the model. `month` counts back from the present one, 0."""

    attempt_id: AttemptId
    task: ClaimedTask
    reserved: int
    month: int = 0
    state: str = "reserved"
    cost: int = 0
    overrun: int = 0
    price: str = ""


class MoneyMachine(RuleBasedStateMachine):
    """One project with one key and one batch on a real Postgres."""

    place: ClassVar[Place]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.calls: list[Call] = []
        self.leased: dict[str, ClaimedTask] = {}
        self.caps: dict[str, int | None] = {}
        self.price = "2026-11-01"
        self.steps = 0
        self.paused = False

    def run_now(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize(project=CAPS, key=CAPS, batch=CAPS)
    def open(self, project: int | None, key: int | None, batch: int | None) -> None:
        self.run_now(self._open({"project": project, "key": key, "batch": batch}))

    async def _open(self, caps: dict[str, int | None]) -> None:
        secret = Fernet.generate_key().decode()
        api, worker = (
            PostgresApiStore(self.place.api, secret_key=secret),
            PostgresWorkerStore(self.place.worker, secret_key=secret, max_size=4),
        )
        await api.open()
        await worker.open()
        self.world = PostgresWorld(api, worker, self.place.superuser)
        money = {name: None if cap is None else NanoUSD(cap) for name, cap in caps.items()}
        self.project: Project = await self.world.project(cap=money["project"])
        self.key: ApiKey = await self.world.key(self.project, cap=money["key"], secret=f"sk-{self.project.id}")
        self.batch: Batch = await self.world.batch(
            self.project, TASKS, queue="large", key_id=self.key.id, cap=money["batch"], expires_in_s=10**8
        )
        self.caps = caps
        self.look = psycopg.connect(self.place.superuser, autocommit=True)
        self.ledger = await psycopg.AsyncConnection.connect(self.place.superuser, autocommit=True)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.run_now(self._close())
        self.runner.close()

    async def _close(self) -> None:
        await self.world.api.aclose()
        await self.world.worker.aclose()
        await self.ledger.close()
        self.look.close()
        with psycopg.connect(self.place.superuser, autocommit=True) as conn:
            conn.execute("TRUNCATE tasks, steps, attempts, ledger, events, budgets, batches, batch_errors")

    # ---- what may happen -------------------------------------------------------------------------------------------

    @rule()
    def claim(self) -> None:
        for task in self.run_now(self.world.claim("large", limit=2, lease_s=LEASE_S)):
            self.leased[task.task_id] = task

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), amount=AMOUNTS, own=st.one_of(st.none(), st.integers(0, 3_000)))
    def reserve(self, data: st.DataObject, amount: int, own: int | None) -> None:
        task = data.draw(st.sampled_from(sorted(self.leased.values(), key=lambda t: t.task_id)))
        request = replace(ask(task, amount, step=f"step-{len(self.calls)}", task_cap=own), price_version=self.price)
        (result,) = self.run_now(self.world.worker.reserve([request]))
        if self.paused:
            assert isinstance(result, Paused)
            return
        left = {scope: self.left(scope) for scope in ("batch", "key", "project")}
        if own is not None:
            left = {"task": own - sum(taken(c) for c in self.calls if c.task.task_id == task.task_id), **left}
        refusing = next((scope for scope, room in left.items() if room is not None and amount > room), None)
        if refusing is None:
            assert isinstance(result, Granted)
            self.calls.append(Call(result.attempt_id, task, amount, price=self.price))
        else:
            assert isinstance(result, Refused)
            assert (result.scope.value, result.headroom) == (refusing, max(0, left[refusing] or 0))

    @precondition(lambda self: self.in_state("reserved"))
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.in_state("reserved")))
        marked = self.run_now(self.world.worker.mark_sent([call.attempt_id]))
        held = self.leased.get(call.task.task_id)
        if held is not None and held.fence == call.task.fence:
            assert marked == {call.attempt_id}
            call.state = "sent"
        else:
            assert marked == set()

    @precondition(lambda self: self.in_state("sent", held=True))
    @rule(data=st.data(), cost=AMOUNTS, ends=st.booleans())
    def settle(self, data: st.DataObject, cost: int, ends: bool) -> None:
        call = data.draw(st.sampled_from(self.in_state("sent", held=True)))
        settlement = bill(call.attempt_id, min(cost, call.reserved), overrun=max(0, cost - call.reserved))
        self.steps += 1
        step = large_step(cost, name=f"step-{self.steps}")
        commit = done if ends else goes_on
        self.run_now(self.world.commit(commit(call.task, step=step, bills=(settlement,))))
        self.book(call, cost)
        self.end_lease(call.task)

    @precondition(lambda self: self.in_state("sent", held=True))
    @rule(data=st.data(), cost=st.integers(0, 3))
    def settle_in_a_give_back(self, data: st.DataObject, cost: int) -> None:
        call = data.draw(st.sampled_from(self.in_state("sent", held=True)))
        settlement = bill(call.attempt_id, min(cost, call.reserved), overrun=max(0, cost - call.reserved))
        back = GiveBack(call.task.task_id, call.task.fence, settlements=(settlement,))
        self.run_now(self.world.worker.give_back([back]))
        self.book(call, cost)
        self.end_lease(call.task)

    @precondition(lambda self: self.in_state("reserved", held=True))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.in_state("reserved", held=True)))
        back = GiveBack(call.task.task_id, call.task.fence, released=(call.attempt_id,))
        self.run_now(self.world.worker.give_back([back]))
        call.state = "released"
        self.end_lease(call.task)

    @rule()
    def sweep(self) -> None:
        self.run_now(self.world.sweep())
        self.end_orphans()

    @precondition(lambda self: self.leased)
    @rule()
    def crash(self) -> None:
        """Every lease runs out, and the sweep finds it."""
        self.run_now(self.world.advance(LEASE_S + 1))
        self.run_now(self.world.sweep())
        self.leased.clear()
        self.end_orphans()

    @precondition(lambda self: self.in_state("unconfirmed", "sent", "settled"))
    @rule(data=st.data(), cost=AMOUNTS)
    def a_zombie_answers(self, data: st.DataObject, cost: int) -> None:
        call = data.draw(st.sampled_from(self.in_state("unconfirmed", "sent", "settled")))
        settlement = bill(call.attempt_id, min(cost, call.reserved), overrun=max(0, cost - call.reserved))
        self.run_now(self.world.worker.store_late_answer(settlement, "a late answer"))
        if call.state != "settled":
            self.book(call, cost)

    @rule(scope=st.sampled_from(["project", "key", "batch"]), cap=CAPS)
    def change_a_cap(self, scope: str, cap: int | None) -> None:
        self.run_now(
            self.world.api.set_cap(self.project.id, None if cap is None else NanoUSD(cap), scope=self.id_of(scope))
        )
        self.caps[scope] = cap

    @rule(version=st.sampled_from(["2026-11-01", "2026-12-01", "2027-01-01"]))
    def change_the_price(self, version: str) -> None:
        self.price = version

    @rule()
    def the_month_ends(self) -> None:
        """The database's clock can't be moved, so its months are moved back."""
        for table in ("ledger", "attempts", "budgets"):
            self.look.execute(
                f"UPDATE {table} SET month = to_char((month || '-01')::date - interval '1 month', 'YYYY-MM')"
                " WHERE month <> '' AND project_id = %s",
                [self.project.id],
            )
        # At a real month's end the new month's rows are ones that the store has not met yet.
        self.world.worker._budgets = KnownBudgets()  # type: ignore[attr-defined]
        for call in self.calls:
            call.month -= 1

    @precondition(lambda self: self.paused)
    @rule()
    def the_operator_goes_on_after_an_overrun(self) -> None:
        self.run_now(self.world.api.update_project(self.project.id, paused=False))
        self.paused = False

    # ---- the model -------------------------------------------------------------------------------------------------

    def id_of(self, scope: str) -> str:
        return {"project": "project", "key": self.key.id, "batch": self.batch.id}[scope]

    def in_state(self, *states: str, held: bool = False) -> list[Call]:
        return [
            call
            for call in self.calls
            if call.state in states
            and (not held or getattr(self.leased.get(call.task.task_id), "fence", None) == call.task.fence)
        ]

    def left(self, scope: str) -> int | None:
        cap = self.caps[scope]
        mine = [call for call in self.calls if scope == "batch" or call.month == 0]
        return None if cap is None else cap - sum(taken(call, overruns=False) for call in mine)

    def book(self, call: Call, cost: int) -> None:
        call.state, call.cost = "settled", min(cost, call.reserved)
        call.overrun = cost - call.cost
        self.paused = self.paused or call.overrun > 0

    def end_lease(self, task: ClaimedTask) -> None:
        self.leased.pop(task.task_id, None)

    def end_orphans(self) -> None:
        for call in self.in_state("reserved", "sent"):
            held = self.leased.get(call.task.task_id)
            if held is None or held.fence != call.task.fence:
                call.state = "released" if call.state == "reserved" else "unconfirmed"

    # ---- what must always hold -------------------------------------------------------------------------------------

    @invariant()
    def every_budget_is_what_the_attempts_add_up_to(self) -> None:
        if not hasattr(self, "world"):
            return
        rows = self.look.execute(
            "SELECT scope, spent, reserved, unconfirmed, overrun, cap FROM budgets"
            " WHERE project_id = %s AND month IN ('', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM'))",
            [self.project.id],
        ).fetchall()
        found = {scope: tuple(sums) for scope, *sums in rows}
        for scope in ("project", "key", "batch"):
            mine = [call for call in self.calls if scope == "batch" or call.month == 0]
            assert found.get(self.id_of(scope), (0, 0, 0, 0, self.caps[scope])) == (
                sum(call.cost for call in mine),
                sum(call.reserved for call in mine if call.state in {"reserved", "sent"}),
                sum(call.reserved for call in mine if call.state == "unconfirmed"),
                sum(call.overrun for call in mine),
                self.caps[scope],
            ), scope

    @invariant()
    def the_ledger_says_the_same_and_names_the_price_of_each_reservation(self) -> None:
        if hasattr(self, "world"):
            assert self.run_now(ledger_difference(self.ledger)) == []
            rows = self.look.execute("SELECT DISTINCT attempt_id, price_version FROM ledger").fetchall()
            assert dict(rows) == {call.attempt_id: call.price for call in self.calls}


def taken(call: Call, *, overruns: bool = True) -> int:
    """What an attempt takes of a cap."""
    if call.state == "released":
        return 0
    return call.cost + (call.overrun if overruns else 0) if call.state == "settled" else call.reserved


@pytest.fixture
def machine(place: Place) -> type[MoneyMachine]:
    MoneyMachine.place = place
    with psycopg.connect(place.superuser, autocommit=True) as conn:
        conn.execute("TRUNCATE tasks, steps, attempts, ledger, events, budgets, batches, batch_errors")
    return MoneyMachine


@pytest.mark.timeout(600)
def test_a_random_life_of_a_projects_money_agrees_with_a_plain_model(machine: type[MoneyMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
