"""The pass line, read from the database, the event log, the result files and the provider's books."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg
from openai import OpenAI
from openai.types import Batch
from ops.bench.faults.injure import Injuries
from ops.bench.faults.place import Place
from ops.bench.faults.plan import LEASE_S, SWEEP_S

RECOVERY_S = LEASE_S + 2 * SWEEP_S
# The sweeps take some of the machine's time, and the runner looks only so often. A busy machine takes more.
ALLOWANCE_S = 0.5
TERMINAL = ("task.done", "task.failed", "task.cancelled", "task.expired")

_DIFFERENCE = """
WITH rebuilt AS (
  SELECT l.project_id, l.month,
    coalesce(sum(CASE WHEN l.kind IN ('settled', 'late', 'external') THEN l.amount
                      WHEN l.kind = 'refunded' THEN -l.amount END), 0) AS spent,
    coalesce(sum(CASE l.kind WHEN 'reserved' THEN l.amount WHEN 'settled' THEN -l.freed WHEN 'released' THEN -l.freed
                             WHEN 'unconfirmed' THEN -l.freed END), 0) AS reserved,
    coalesce(sum(CASE l.kind WHEN 'unconfirmed' THEN l.amount WHEN 'late' THEN -l.freed END), 0) AS unconfirmed
  FROM ledger l WHERE project_id = %(project)s GROUP BY 1, 2
)
SELECT coalesce(sum(abs(b.spent - coalesce(r.spent, 0)) + abs(b.reserved - coalesce(r.reserved, 0))
                    + abs(b.unconfirmed - coalesce(r.unconfirmed, 0))), 0)::bigint
FROM budgets b LEFT JOIN rebuilt r USING (project_id, month)
WHERE b.scope = 'project' AND b.project_id = %(project)s
"""


@dataclass
class Verdict:
    """What a run came to. Money in nano-dollars, times in seconds."""

    lost: int = 0
    duplicate_commits: int = 0
    ledger_difference: int = 0
    done: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    paid_steps: int = 0
    paid_calls: int = 0
    extra_calls: int = 0
    recovery_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    seconds_95: float = 0.0
    violations: list[str] = field(default_factory=list)

    def must(self, so: bool, text: str) -> None:
        """Note a violation unless it is so."""
        if not so:
            self.violations.append(text)


def judge(
    place: Place,
    client: OpenAI,
    injuries: Injuries,
    batch: Batch,
    tasks: int,
    *,
    poisoned: int,
    calls_before: int,
    allowance_s: float = ALLOWANCE_S,
) -> Verdict:
    """After the run is at rest and reconciled."""
    verdict = Verdict()
    with place.connect() as conn:
        _tasks(conn, verdict, batch.id, tasks, poisoned)
        _events(conn, verdict, batch.id)
        _money(conn, place, verdict, injuries.project)
        _extra(conn, place, verdict, batch.id, calls_before)
        _times(conn, verdict, batch.id)
    _recovery(verdict, injuries, allowance_s)
    _files(client, verdict, batch, tasks)
    return verdict


def _tasks(conn: "psycopg.Connection[Any]", verdict: Verdict, batch: str, tasks: int, poisoned: int) -> None:
    rows = conn.execute(
        "SELECT state, error::json ->> 'code', payload LIKE '%%COPE_POISON%%', count(*) FROM tasks"
        " WHERE batch_id = %s GROUP BY 1, 2, 3",
        [batch],
    ).fetchall()
    states: Counter[str] = Counter()
    crashed_alone = innocents = 0
    for state, code, poison, count in rows:
        states[state] += count
        if state == "failed":
            verdict.failed[code] = verdict.failed.get(code, 0) + count
        if code == "crashed_repeatedly" and poison:
            crashed_alone += count
        elif state != "done":
            innocents += count
    verdict.done = states["done"]
    ended = states["done"] + states["failed"]
    verdict.lost = tasks - ended
    verdict.must(verdict.lost == 0, f"{tasks} tasks were accepted, these ended: {dict(states)}")
    verdict.must(crashed_alone == poisoned, f"{poisoned} poisoned tasks, {crashed_alone} ended as crashed_repeatedly")
    verdict.must(innocents == 0, f"{innocents} sound tasks failed: {verdict.failed}")


# What is numbered already and what waits for its number, in one snapshot.
_LOG = """(SELECT id, batch_id, task_id, type, data FROM event_log
  UNION ALL SELECT id, batch_id, task_id, type, data FROM events) e"""


def _events(conn: "psycopg.Connection[Any]", verdict: Verdict, batch: str) -> None:
    twice = conn.execute(
        f"SELECT count(*) FROM (SELECT task_id, data::json ->> 'step' FROM {_LOG}"
        " WHERE batch_id = %s AND type = 'task.step_finished' GROUP BY 1, 2 HAVING count(*) > 1) x",
        [batch],
    ).fetchone()
    apart = conn.execute(
        f"SELECT count(*) FROM (SELECT task_id, data::json ->> 'step' AS step FROM {_LOG}"
        " WHERE batch_id = %(batch)s AND type = 'task.step_finished') l"
        " FULL JOIN (SELECT s.task_id, s.name AS step FROM steps s JOIN tasks t ON t.id = s.task_id"
        " WHERE t.batch_id = %(batch)s) s USING (task_id, step) WHERE l.step IS NULL OR s.step IS NULL"
        " OR l.task_id IS NULL OR s.task_id IS NULL",
        {"batch": batch},
    ).fetchone()
    endings = conn.execute(
        f"SELECT count(*) FROM (SELECT t.id, count(e.id) FROM tasks t LEFT JOIN {_LOG} ON e.task_id = t.id"
        " AND e.type = ANY (%s) WHERE t.batch_id = %s GROUP BY 1 HAVING count(e.id) <> 1) x",
        [list(TERMINAL), batch],
    ).fetchone()
    ends = conn.execute(
        f"SELECT count(*) FROM {_LOG} WHERE batch_id = %s AND type = 'batch.completed'", [batch]
    ).fetchone()
    assert twice is not None
    assert apart is not None
    assert endings is not None
    assert ends is not None
    verdict.duplicate_commits = twice[0] + apart[0]
    verdict.must(twice[0] == 0, f"{twice[0]} steps have more than one event")
    verdict.must(apart[0] == 0, f"{apart[0]} steps are only in the table or only in the event log")
    verdict.must(endings[0] == 0, f"{endings[0]} tasks have not exactly one terminal event")
    verdict.must(ends[0] == 1, f"the batch has {ends[0]} events of its end")


def _money(conn: "psycopg.Connection[Any]", place: Place, verdict: Verdict, project: str) -> None:
    sums = conn.execute(
        "SELECT coalesce(sum(spent + overrun), 0)::bigint, coalesce(sum(reserved), 0)::bigint,"
        " coalesce(sum(unconfirmed), 0)::bigint FROM budgets WHERE scope = 'project'"
    ).fetchone()
    open_ = conn.execute("SELECT count(*) FROM attempts WHERE state IN ('reserved', 'sent')").fetchone()
    apart = conn.execute(_DIFFERENCE, {"project": project}).fetchone()
    assert sums is not None
    assert open_ is not None
    assert apart is not None
    booked, reserved, unconfirmed = sums
    billed = place.provider.books.total_nano()
    verdict.ledger_difference = abs(billed - booked) + apart[0]
    verdict.must(reserved == 0 and open_[0] == 0, f"reserved {reserved}, {open_[0]} attempts open at the end")
    verdict.must(unconfirmed == 0, f"unconfirmed {unconfirmed} after reconciliation")
    verdict.must(billed == booked, f"the provider billed {billed}, we booked {booked}")
    verdict.must(apart[0] == 0, f"budgets differ from the ledger by {apart[0]}")


def _extra(conn: "psycopg.Connection[Any]", place: Place, verdict: Verdict, batch: str, calls_before: int) -> None:
    """Calls beyond one a step that the provider itself did not spoil: what our deaths cost."""
    steps = {
        name: f"{task}/{step}"
        for name, task, step in conn.execute(
            "SELECT request_id, task_id, step FROM attempts WHERE batch_id = %s", [batch]
        ).fetchall()
    }
    sound: Counter[str] = Counter()
    for row in place.provider.books.rows():
        step = steps.get((row.client_request_id or "").rpartition("-")[0])
        if row.number > calls_before and step is not None and row.billed:
            verdict.paid_calls += 1
            sound[step] += row.fault is None
    verdict.paid_steps = len(sound)
    verdict.extra_calls = sum(max(0, count - 1) for count in sound.values())
    twice = place.provider.books.duplicates("client_request_id")
    verdict.must(not twice, f"billed twice under one request id: {len(twice)}")


def _recovery(verdict: Verdict, injuries: Injuries, allowance_s: float) -> None:
    """From each death to the moment at which the last lease it held was free again, by the database's clock."""
    for death in injuries.deaths:
        covered = any(begin < death.at + RECOVERY_S and end > death.at for begin, end in injuries.outages)
        if death.recovered_s is None:
            verdict.must(not death.leases, f"{death.fault}: its leases were never free again")
        elif not covered:  # without a database nobody recovers
            verdict.recovery_s.append(round(death.recovered_s, 2))
            verdict.must(
                death.recovered_s <= RECOVERY_S + allowance_s, f"{death.fault}: recovered in {death.recovered_s:.2f} s"
            )


def _times(conn: "psycopg.Connection[Any]", verdict: Verdict, batch: str) -> None:
    row = conn.execute(
        "SELECT extract(epoch FROM max(t.finished_at) - b.in_progress_at)::float8,"
        " extract(epoch FROM percentile_disc(0.95) WITHIN GROUP (ORDER BY t.finished_at) - b.in_progress_at)::float8"
        " FROM batches b JOIN tasks t ON t.batch_id = b.id WHERE b.id = %s GROUP BY b.in_progress_at",
        [batch],
    ).fetchone()
    if row is not None and row[0] is not None:
        verdict.seconds, verdict.seconds_95 = round(row[0], 2), round(row[1], 2)


def _files(client: OpenAI, verdict: Verdict, batch: Batch, tasks: int) -> None:
    names: Counter[str] = Counter()
    for file_id in (batch.output_file_id, batch.error_file_id):
        if file_id is not None:
            names.update(json.loads(line)["custom_id"] for line in client.files.content(file_id).text.splitlines())
    wanted = {f"l{number}" for number in range(tasks)}
    verdict.must(set(names) == wanted, f"{len(wanted - set(names))} lines are in neither file")
    verdict.must(all(count == 1 for count in names.values()), "a line is in the files more than once")
