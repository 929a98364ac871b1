"""One run: a batch, its faults, rest, reconciliation, and the verdict as one line of JSON."""

import json
import os
import threading
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
from openai import OpenAI, OpenAIError
from openai.types import Batch
from ops.bench.faults.injure import Injuries
from ops.bench.faults.place import LARGE_TIMEOUT_S, Place
from ops.bench.faults.plan import Planned, batch_lines
from ops.bench.faults.sampler import Sampler
from ops.bench.faults.verdict import ALLOWANCE_S, judge

CAP_NANO = 2_000_000_000
_LONGEST_S = 240.0
_TRUE_PRICES = {"complete_from": "0"}


class Stopped(Exception):
    """The run did not come to its end; the message says where."""


class Run:
    """Use once. `name` says in the events which run it is; a clean one has no faults."""

    def __init__(
        self,
        place: Place,
        seed: int,
        tasks: int,
        faults: Sequence[Planned],
        *,
        name: str,
        log: Path,
        allowance_s: float = ALLOWANCE_S,
    ) -> None:
        self.place, self.seed, self.tasks, self.faults = place, seed, tasks, tuple(faults)
        self.name = name
        self._allowance_s = allowance_s
        self.began = time.time()
        self._log = log.open("w")

    def tell(self, what: str, **about: Any) -> None:
        """A line of the event log."""
        line = {"t": round(time.time() - self.began, 3), "what": what, **about}
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()

    def go(self) -> dict[str, Any]:
        """The result, whatever happens short of a defect of the runner."""
        result: dict[str, Any] = {"seed": self.seed, "run": self.name, "broker": self.place.broker}
        result |= {"tasks": self.tasks, "faults": [fault.name for fault in self.faults]}
        problems: list[str] = []
        try:
            result |= self._go(problems)
        except (Stopped, OpenAIError, OSError, psycopg.Error) as stopped:
            problems.append(f"{type(stopped).__name__}: {stopped}")
        result["violations"] = [*problems, *result.get("violations", [])]
        result["took_s"] = round(time.time() - self.began, 1)
        self.tell("end", violations=result["violations"])
        self._log.close()
        return result

    def _go(self, problems: list[str]) -> dict[str, Any]:
        place = self.place
        if not place.until(place.whole, 60):
            raise Stopped("the place was not whole within 60 s")
        project, client = place.new_project(self.name)
        injuries = Injuries(place, client, project, self.seed, self.tell)
        injuries._set_cap(CAP_NANO)  # noqa: SLF001 - the first of the caps it keeps count of
        books = place.provider.books
        calls_before = max((row.number for row in books.rows()), default=0)
        sampler = Sampler(place, project, CAP_NANO, injuries.look, billed_before=books.total_nano())
        fired_before = len(place.fired())
        try:
            batch_id = self._under_fire(client, injuries, sampler)
            injuries.tidy()
            batch = self._to_its_end(client, injuries, batch_id)
            self._reconcile(injuries)
        finally:
            sampler.close()
            injuries.tidy()
        fired = place.fired()[fired_before:]
        self.tell("points", fired=[(name, pid, round(at - self.began, 2)) for name, pid, at in fired])
        poisoned = 2 if any(fault.name == "poison" for fault in self.faults) else 0
        verdict = judge(
            place,
            client,
            injuries,
            batch,
            self.tasks,
            poisoned=poisoned,
            calls_before=calls_before,
            allowance_s=self._allowance_s,
        )
        client.close()
        problems += [*injuries.problems, *sampler.problems]
        outage_s = sum(end - begin for begin, end in injuries.outages)
        return {
            **asdict(verdict),
            "outage_s": round(outage_s, 2),
            "points_fired": len(fired),
            "load": round(os.getloadavg()[0], 1),
            "samples": sampler.samples,
            "most_counted": sampler.most_counted,
            "longest_lease_s": round(sampler.longest_lease_s, 1),
        }

    # ---- the batch -------------------------------------------------------------------------------------------------

    def _under_fire(self, client: OpenAI, injuries: Injuries, sampler: Sampler) -> str:
        waiting = list(self.faults)
        while waiting and waiting[0].at <= 0:
            injuries.begin(waiting.pop(0))
        batch_id = sampler.batch = self._submit(client, poison=any(f.name == "poison" for f in self.faults))
        deadline, ended = time.monotonic() + _LONGEST_S, False
        while not ended:
            if time.monotonic() > deadline:
                left = self._left(batch_id)
                raise Stopped(f"{sampler.ended} of {sampler.total} tasks after {_LONGEST_S:.0f} s; left: {left}")
            self._tend(injuries)
            ended = sampler.total > 0 and sampler.ended == sampler.total
            share = sampler.ended / self.tasks
            if waiting and (share >= waiting[0].at or ended):
                injuries.begin(waiting.pop(0))
            time.sleep(0.03)
        for left in waiting:
            self.tell("too late", name=left.name)
        return batch_id

    def _tend(self, injuries: Injuries) -> None:
        """What the runner does all the time."""
        self.place.watch()
        injuries.heal_due()

    def _submit(self, client: OpenAI, *, poison: bool) -> str:
        """Upload, then make the batch twice at once under one idempotency key."""
        data = "\n".join(map(json.dumps, batch_lines(self.seed, self.tasks, poison=poison))).encode()
        file = client.files.create(file=("in.jsonl", data), purpose="batch")
        made: list[str] = []

        def make() -> None:
            batch = client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                extra_headers={"Idempotency-Key": f"run {self.name}"},
            )
            made.append(batch.id)

        both = [threading.Thread(target=make) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join(60)
        if len(set(made)) != 1 or len(made) != 2:
            raise Stopped(f"one idempotency key, twice at once, made {made}")
        self.tell("submitted", batch=made[0])
        return made[0]

    def _to_its_end(self, client: OpenAI, injuries: Injuries, batch_id: str) -> Batch:
        """Completed, every part alive again, no money set aside."""
        deadline = time.monotonic() + 90
        while True:
            self._tend(injuries)
            batch = client.batches.retrieve(batch_id)
            if batch.status == "completed" and self._open_attempts() == 0:
                break
            if time.monotonic() > deadline:
                raise Stopped(f"{batch.status} with {self._open_attempts()} open attempts 90 s after the last task")
            time.sleep(0.1)
        for death in injuries.deaths:
            self.tell("recovered", fault=death.fault, leases=len(death.leases), seconds=death.recovered_s)
        return batch

    def _left(self, batch_id: str) -> list[str]:
        """What is not over, for whoever looks for the reason."""
        try:
            with self.place.connect() as conn:
                return [
                    " ".join(str(part) for part in row)
                    for row in conn.execute(
                        "SELECT count(*), state, queue, coalesce(hold, '-'), coalesce(lease_owner, '-') FROM tasks"
                        " WHERE batch_id = %s AND finished_at IS NULL GROUP BY 2, 3, 4, 5 ORDER BY 1 DESC LIMIT 10",
                        [batch_id],
                    )
                ]
        except psycopg.Error as away:
            return [str(away)]

    def _open_attempts(self) -> int:
        try:
            with self.place.connect() as conn:
                row = conn.execute("SELECT count(*) FROM attempts WHERE state IN ('reserved', 'sent')").fetchone()
        except psycopg.Error:
            return -1
        return -1 if row is None else int(row[0])

    def _reconcile(self, injuries: Injuries) -> None:
        """The provider's own export settles what is in doubt. It must be a quarter of an hour old, so it is made so,
        once no call of it can run any more."""
        books = self.place.provider.books
        for _ in range(4):
            with self.place.connect() as conn:
                row = conn.execute(
                    "SELECT coalesce(sum(spent + overrun), 0), coalesce(sum(unconfirmed), 0) FROM budgets"
                    " WHERE scope = 'project'"
                ).fetchone()
            if row is not None and row[1] == 0 and row[0] == books.total_nano():
                return
            quiet = time.monotonic() + LARGE_TIMEOUT_S + 0.3
            self.place.until(lambda until=quiet: time.monotonic() > until, 10)  # type: ignore[misc]
            with self.place.connect() as conn:
                conn.execute("UPDATE ledger SET at = at - interval '15 minutes' WHERE kind = 'unconfirmed'")
                conn.execute(
                    "UPDATE attempts SET sent_at = sent_at - interval '15 minutes' WHERE state = 'unconfirmed'"
                )
            orders = {"apply": "true", "apply_differences": "true", **_TRUE_PRICES}
            orders["complete_until"] = str(int(time.time()))
            path = f"/organization/reconcile?{urllib.parse.urlencode(orders)}"
            told = self.place.admin("POST", path, books.csv().encode(), "text/csv")
            self.tell("reconciled", **{key: value for key, value in told.items() if isinstance(value, int | str)})
            self._tend(injuries)
