"""Reserve and mark as sent: money is set aside by one conditional UPDATE, never by reading and then writing."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cope.adapters.postgres.database import Connection, Row, fetch, fetch_one
from cope.adapters.postgres.identity import new_id
from cope.adapters.postgres.money import HeldAttempt, write_ledger
from cope.core import ids
from cope.core.ids import AttemptId
from cope.core.lifecycle import AttemptState
from cope.core.money import NanoUSD
from cope.ports.store import Adopted, Fenced, Granted, Paused, Refused, ReserveRequest, ReserveResult


@dataclass(frozen=True, slots=True)
class _Grant:
    place: int
    request: ReserveRequest
    attempt: HeldAttempt


async def reserve(conn: Connection, requests: Sequence[ReserveRequest]) -> list[ReserveResult]:
    """One result per request, in order. A month's requests that do not fit together are tried in the order given,
    each in full: a smaller one may still fit where a larger one did not."""
    tasks = await _lock_tasks(conn, requests)
    answers = await _late_answers(conn, requests)
    results: dict[int, ReserveResult] = {}
    asked: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, request in enumerate(requests):
        task = tasks.get(request.task_id)
        answer = answers.get((request.task_id, request.step))
        if task is None or task["fence"] != request.fence or task["state"] != "leased" or task["ending"] is not None:
            results[place] = Fenced()
        elif answer is not None:
            results[place] = answer
        elif task["unparsable"]:
            results[place] = Paused()
        else:
            asked[task["project_id"], task["month"]].append(place)
    grants: list[_Grant] = []
    for (project_id, month), places in sorted(asked.items()):
        stopped = any(tasks[requests[place].task_id]["stopped"] for place in places)
        fitting = [] if stopped else await _take(conn, project_id, month, [(p, requests[p].amount) for p in places])
        headroom = NanoUSD(0)
        if len(fitting) < len(places):
            headroom = NanoUSD(await _headroom(conn, project_id, month) or 0)
        for place in places:
            request = requests[place]
            if place in fitting:
                grant = _Grant(place, request, _new_attempt(request, tasks[request.task_id], month))
                grants.append(grant)
                results[place] = Granted(AttemptId(grant.attempt.id), month)
            else:
                results[place] = Refused(request.amount, headroom, month)
    await _write_grants(conn, grants)
    return [results[place] for place in range(len(requests))]


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
        SELECT t.id, t.fence, t.state, t.ending, t.project_id, t.batch_id,
          p.paused OR p.archived_at IS NOT NULL AS stopped, to_char(now() AT TIME ZONE p.time_zone, 'YYYY-MM') AS month,
          (SELECT b.parse_watch = 'paused' FROM batches b WHERE b.id = t.batch_id) AS unparsable
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


async def _take(conn: Connection, project_id: str, month: str, asked: list[tuple[int, NanoUSD]]) -> set[int]:
    """Set aside as much of what is asked as the cap covers; the places that were granted.

    The whole group at once where it fits, which is nearly always. Else the row is locked, those that fit are picked
    in order, and the same conditional UPDATE takes them.
    """
    places, total = {place for place, _ in asked}, sum(amount for _, amount in asked)
    if await _add(conn, project_id, month, total):
        return places
    await ensure_budget(conn, project_id, month)
    await conn.execute(
        "SELECT FROM budgets WHERE project_id = %s AND month = %s FOR NO KEY UPDATE", [project_id, month]
    )
    left = await _headroom(conn, project_id, month)
    fitting, needed = (places, int(total)) if left is None else _pick(asked, left)
    if fitting and not await _add(conn, project_id, month, needed):
        return set()
    return fitting


def _pick(asked: list[tuple[int, NanoUSD]], left: int) -> tuple[set[int], int]:
    fitting, total = set(), 0
    for place, amount in asked:
        if total + amount <= left:
            fitting.add(place)
            total += amount
    return fitting, total


async def _add(conn: Connection, project_id: str, month: str, amount: int) -> bool:
    # A grant lies under the present cap, so do all sums with it: the ceiling comes back down to the cap.
    cursor = await conn.execute(
        """
        UPDATE budgets SET reserved = reserved + %(amount)s, ceiling = cap
        WHERE project_id = %(project)s AND month = %(month)s
          AND (cap IS NULL OR spent + reserved + unconfirmed + %(amount)s <= cap)
        """,
        {"project": project_id, "month": month, "amount": amount},
    )
    return cursor.rowcount == 1


async def ensure_budget(conn: Connection, project_id: str, month: str) -> None:
    """Begin the month's row under the project's cap. FOR SHARE: a cap that is being changed is waited for."""
    await conn.execute(
        """
        INSERT INTO budgets (project_id, month, cap, ceiling)
        SELECT id, %s, cap, cap FROM projects WHERE id = %s FOR SHARE
        ON CONFLICT (project_id, month) DO NOTHING
        """,
        [month, project_id],
    )


async def _headroom(conn: Connection, project_id: str, month: str) -> int | None:
    """What the cap leaves, ≥ 0; None without a cap. A month without a row has spent nothing."""
    row = await fetch_one(
        conn,
        """
        SELECT CASE WHEN b.month IS NULL THEN p.cap ELSE b.cap - b.spent - b.reserved - b.unconfirmed END AS headroom
        FROM projects p LEFT JOIN budgets b ON b.project_id = p.id AND b.month = %s WHERE p.id = %s
        """,
        [month, project_id],
    )
    return None if row is None or row["headroom"] is None else max(0, row["headroom"])


def _new_attempt(request: ReserveRequest, task: Row, month: str) -> HeldAttempt:
    return HeldAttempt(
        id=new_id(ids.ATTEMPT),
        task_id=request.task_id,
        project_id=task["project_id"],
        batch_id=task["batch_id"],
        month=month,
        state=AttemptState.RESERVED,
        reserved=request.amount,
        price_version=request.price_version,
    )


async def _write_grants(conn: Connection, grants: Sequence[_Grant]) -> None:
    if not grants:
        return
    await conn.execute(
        """
        INSERT INTO attempts (id, task_id, project_id, batch_id, month, reserved, price_version, step, model,
                              request_id, fence, price_id, price_tier, state)
        SELECT *, 'reserved' FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[],
                                         %s::text[], %s::text[], %s::text[], %s::text[], %s::int[], %s::text[],
                                         %s::text[])
        """,
        [
            [grant.attempt.id for grant in grants],
            [grant.attempt.task_id for grant in grants],
            [grant.attempt.project_id for grant in grants],
            [grant.attempt.batch_id for grant in grants],
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
