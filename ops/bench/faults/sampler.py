"""Looking at both books, and at who makes no progress, all through a run."""

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from ops.bench.faults.place import Place

EVERY_S = 0.1
STUCK_S = 60.0

_BUDGETS = """
SELECT coalesce(sum(spent), 0)::bigint, coalesce(sum(reserved), 0)::bigint, coalesce(sum(unconfirmed), 0)::bigint,
  coalesce(sum(overrun), 0)::bigint
FROM budgets WHERE scope = 'project' AND project_id = %s
"""
_TASKS = """
SELECT count(*) FILTER (WHERE state IN ('done', 'failed', 'cancelled', 'expired')), count(*),
  (SELECT coalesce(array_agg(id || ':' || fence), '{}') FROM tasks WHERE state = 'leased' AND batch_id = %(batch)s)
FROM tasks WHERE batch_id = %(batch)s
"""


@dataclass
class Sampler:
    """A thread of its own; `ended` and `total` are the batch's tasks at the last look."""

    place: Place
    project: str
    cap: int  # the highest in force in the run, nano-dollars
    look_too: Callable[["psycopg.Connection[Any]"], None]  # what else is to be seen at each look
    billed_before: int = 0
    batch: str = ""
    ended: int = 0
    total: int = 0
    samples: int = 0
    most_counted: int = 0
    most_billed: int = 0
    longest_lease_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    _leases: dict[str, float] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        conn: psycopg.Connection[Any] | None = None
        while not self._over.wait(EVERY_S):
            try:
                conn = conn or self.place.connect()
                self._look(conn)
            except (psycopg.Error, sqlite3.Error):
                if conn is not None:
                    conn.close()
                conn = None
        if conn is not None:
            conn.close()

    def _look(self, conn: "psycopg.Connection[Any]") -> None:
        self.look_too(conn)
        billed = self.place.provider.books.total_nano() - self.billed_before
        row = conn.execute(_BUDGETS, [self.project]).fetchone()
        assert row is not None
        spent, reserved, unconfirmed, overrun = row
        self.samples += 1
        self.most_counted = max(self.most_counted, spent + reserved + unconfirmed)
        self.most_billed = max(self.most_billed, billed)
        if spent + reserved + unconfirmed > self.cap:
            self._problem(f"counted {spent}+{reserved}+{unconfirmed}, cap {self.cap}")
        if billed > self.cap:
            self._problem(f"billed {billed}, cap {self.cap}")
        if overrun:
            self._problem(f"overrun {overrun}")
        if self.batch:
            found = conn.execute(_TASKS, {"batch": self.batch}).fetchone()
            assert found is not None
            self.ended, self.total, leased = found
            now = time.monotonic()
            self._leases = {name: self._leases.get(name, now) for name in leased}
            self.longest_lease_s = max(self.longest_lease_s, *(now - at for at in self._leases.values()), 0.0)
            if self.longest_lease_s > STUCK_S:
                self._problem(f"a worker sat on one lease for over {STUCK_S:.0f} s")

    def _problem(self, text: str) -> None:
        if len(self.problems) < 5 and text not in self.problems:
            self.problems.append(text)
