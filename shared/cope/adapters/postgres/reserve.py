"""Reserve and mark as sent: money is set aside in every budget that a call counts in, or in none."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cope.adapters.postgres.budgets import BudgetKey, KnownBudgets, add_reserves, budget_keys, check_taken, lock_budgets
from cope.adapters.postgres.database import Connection, Row, fetch
from cope.adapters.postgres.identity import new_id
from cope.adapters.postgres.money import HeldAttempt, write_ledger
from cope.core import ids
from cope.core.budget import Scope, scope_kind
from cope.core.errors import StoreUnavailable
from cope.core.ids import AttemptId
from cope.core.lifecycle import AttemptState, HoldReason
from cope.core.money import NanoUSD
from cope.ports.store import Adopted, Fenced, Granted, Paused, Refused, ReserveRequest, ReserveResult


@dataclass(frozen=True, slots=True)
class _Grant:
    request: ReserveRequest
    attempt: HeldAttempt


async def reserve(conn: Connection, known: KnownBudgets, requests: Sequence[ReserveRequest]) -> list[ReserveResult]:
    """One result per request, in order. Every budget that a request counts in is locked, those that fit are picked in
    the order given, each in full, and one UPDATE takes them: a smaller one may still fit where a larger one did not."""
    tasks = await _lock_tasks(conn, requests)
    answers = await _late_answers(conn, requests)
    results: dict[int, ReserveResult] = {}
    asking: dict[int, tuple[BudgetKey, ...]] = {}
    for place, request in enumerate(requests):
        task = tasks.get(request.task_id)
        answer = answers.get((request.task_id, request.step))
        if task is None or task["fence"] != request.fence or task["state"] != "leased" or task["ending"] is not None:
            results[place] = Fenced()
        elif answer is not None:
            results[place] = answer
        elif task["stopped"]:
            results[place] = Paused(HoldReason.PAUSED)
        elif task["batch_waits"] is not None:
            results[place] = Paused(HoldReason(task["batch_waits"]))
        else:
            asking[place] = budget_keys(task["project_id"], task["batch_id"], task["key_id"], task["month"])
    if asking:
        await _decide(conn, known, requests, tasks, asking, results)
    return [results[place] for place in range(len(requests))]


async def _decide(
    conn: Connection,
    known: KnownBudgets,
    requests: Sequence[ReserveRequest],
    tasks: Mapping[str, Row],
    asking: Mapping[int, tuple[BudgetKey, ...]],
    results: dict[int, ReserveResult],
) -> None:
    own = await _left_of_tasks(conn, [requests[place] for place in asking])
    wanted = sorted({key for keys in asking.values() for key in keys})
    await known.ensure(conn, wanted)
    left = await lock_budgets(conn, wanted)
    if len(left) < len(wanted):
        known.forget(wanted)
        raise StoreUnavailable("a budget that was there is gone; it is begun again")
    taken: dict[BudgetKey, int] = defaultdict(int)
    grants: list[_Grant] = []
    for place, keys in asking.items():
        request = requests[place]
        task = tasks[request.task_id]
        refused = _refusal(request, keys, left, own.get(request.task_id))
        if refused is not None:
            results[place] = refused
            continue
        for key in keys:
            taken[key] += request.amount
            room = left[key]
            left[key] = None if room is None else room - request.amount
        if request.task_id in own:
            own[request.task_id] -= request.amount
        grant = _Grant(request, _new_attempt(request, task))
        grants.append(grant)
        results[place] = Granted(AttemptId(grant.attempt.id), task["month"])
    if grants:
        # Pipelined: the budgets' locks are held for one round trip less per statement.
        async with conn.pipeline():
            cursor = await add_reserves(conn, taken)
            await _write_grants(conn, grants)
        check_taken(cursor, taken)


def _refusal(
    request: ReserveRequest,
    keys: tuple[BudgetKey, ...],
    left: Mapping[BudgetKey, int | None],
    own: int | None,
) -> Refused | None:
    """Why this amount can't be granted now, naming the narrowest cap that does not cover it; None where all do."""
    month = keys[-1].month
    if own is not None and request.amount > own:
        return Refused(request.amount, NanoUSD(max(0, own)), month, Scope.TASK)
    for key in keys:
        room = left[key]
        if room is not None and request.amount > room:
            return Refused(request.amount, NanoUSD(max(0, room)), month, scope_kind(key.scope))
    return None


async def _left_of_tasks(conn: Connection, requests: Sequence[ReserveRequest]) -> dict[str, int]:
    """What the caps of these tasks leave them, of those that have one. Exact: the tasks are locked."""
    caps = {request.task_id: request.task_cap for request in requests if request.task_cap is not None}
    if not caps:
        return {}
    rows = await fetch(
        conn,
        """
        SELECT task_id, sum(CASE WHEN state = 'settled' THEN cost + overrun WHEN state = 'released' THEN 0
                                 ELSE reserved END)::bigint AS used
        FROM attempts WHERE task_id = ANY (%s) GROUP BY task_id
        """,
        [sorted(caps)],
    )
    used = {row["task_id"]: row["used"] for row in rows}
    return {task_id: cap - used.get(task_id, 0) for task_id, cap in caps.items()}


async def mark_sent(conn: Connection, attempts: Sequence[AttemptId]) -> set[AttemptId]:
    """Those whose reservation and lease still stand."""
    rows = await fetch(
        conn,
        """
        UPDATE attempts a SET state = 'sent', sent_at = now() FROM tasks t
        WHERE a.id = ANY (%s) AND a.state = 'reserved' AND t.id = a.task_id
          AND t.state = 'leased' AND t.fence = a.fence AND t.ending IS NULL
        RETURNING a.id
        """,
        [sorted(attempts)],
    )
    return {AttemptId(row["id"]) for row in rows}


async def _lock_tasks(conn: Connection, requests: Sequence[ReserveRequest]) -> dict[str, Row]:
    rows = await fetch(
        conn,
        """
        SELECT t.id, t.fence, t.state, t.ending, t.project_id, t.batch_id, t.key_id,
          p.paused OR p.archived_at IS NOT NULL AS stopped, to_char(now() AT TIME ZONE p.time_zone, 'YYYY-MM') AS month,
          (SELECT CASE WHEN b.paused THEN 'paused' WHEN b.parse_watch = 'paused' THEN 'unparsable' END
           FROM batches b WHERE b.id = t.batch_id) AS batch_waits
        FROM tasks t JOIN projects p ON p.id = t.project_id
        WHERE t.id = ANY (%s) ORDER BY t.id FOR NO KEY UPDATE OF t
        """,
        [sorted({request.task_id for request in requests})],
    )
    return {row["id"]: row for row in rows}


async def _late_answers(conn: Connection, requests: Sequence[ReserveRequest]) -> dict[tuple[str, str], Adopted]:
    rows = await fetch(
        conn,
        """
        SELECT id, task_id, step, answer FROM attempts WHERE task_id = ANY (%s) AND answer IS NOT NULL
        ORDER BY id DESC
        """,
        [sorted({request.task_id for request in requests})],
    )
    return {(row["task_id"], row["step"]): Adopted(AttemptId(row["id"]), row["answer"]) for row in rows}


def _new_attempt(request: ReserveRequest, task: Row) -> HeldAttempt:
    return HeldAttempt(
        id=new_id(ids.ATTEMPT),
        task_id=request.task_id,
        project_id=task["project_id"],
        batch_id=task["batch_id"],
        key_id=task["key_id"],
        month=task["month"],
        state=AttemptState.RESERVED,
        reserved=request.amount,
        price_version=request.price_version,
    )


async def _write_grants(conn: Connection, grants: Sequence[_Grant]) -> None:
    await conn.execute(
        """
        INSERT INTO attempts (id, task_id, project_id, batch_id, key_id, month, reserved, price_version, step, model,
                              request_id, fence, price_id, price_tier, state)
        SELECT *, 'reserved' FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                                         %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[],
                                         %s::text[], %s::text[])
        """,
        [
            [grant.attempt.id for grant in grants],
            [grant.attempt.task_id for grant in grants],
            [grant.attempt.project_id for grant in grants],
            [grant.attempt.batch_id for grant in grants],
            [grant.attempt.key_id for grant in grants],
            [grant.attempt.month for grant in grants],
            [grant.attempt.reserved for grant in grants],
            [grant.attempt.price_version for grant in grants],
            [grant.request.step for grant in grants],
            [grant.request.model for grant in grants],
            [grant.request.request_id for grant in grants],
            [grant.request.fence for grant in grants],
            [grant.request.price_id for grant in grants],
            [grant.request.price_tier for grant in grants],
        ],
    )
    await write_ledger(conn, [(grant.attempt, "reserved", grant.attempt.reserved, 0) for grant in grants])
    await conn.execute(
        "UPDATE tasks SET needed = NULL WHERE id = ANY (%s) AND needed IS NOT NULL",
        [[grant.attempt.task_id for grant in grants]],
    )
