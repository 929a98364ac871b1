"""A batch under a binding cap, with workers killed and Redis flushed, beside a provider that keeps its own books.

``python -m tests.faults.spend --lines 2000`` runs it at full size and says what it saw; `test_spend.py` a short one.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from openai import OpenAI, OpenAIError
from redis import Redis

from cope_local.children import free_port
from cope_local.stack import Stack
from tests.faults.stand_in import StandIn
from tests.paid_api.process import PaidApi

NANO = 10**9
# What a provider does on a bad day. It bills some calls whose answer never arrives; it never bills one call twice.
FAULTS = [
    {"fault": "cut", "probability": 0.02, "billed": True},
    {"fault": "server_error", "probability": 0.02, "billed": False},
    {"fault": "server_error", "probability": 0.01, "status": 502, "body": "html", "billed": True},
    {"fault": "hang", "probability": 0.005, "billed": True},
    {"fault": "broken_json", "probability": 0.01},
    {"fault": "missing_usage", "probability": 0.01},
    {"fault": "rate_limited", "probability": 0.01, "header": "seconds", "seconds": 0.2},
]


@dataclass
class Seen:
    """What a run came to. Money in nano-dollars."""

    lines: int
    seed: int
    cap: int
    samples: int = 0
    most_billed: int = 0
    most_counted: int = 0
    kills: int = 0
    flushes: int = 0
    done_under_the_cap: int = 0
    held_under_the_cap: int = 0
    unused: int = 0
    smallest_need: int = 0
    unconfirmed_before_reconciling: int = 0
    billed: int = 0
    booked: int = 0
    calls_billed: int = 0
    steps_paid: int = 0
    calls_extra: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class SpendCampaign:
    """One stack, one provider, one batch. Everything it starts ends with `close`."""

    def __init__(self, folder: Path, *, lines: int, seed: int, cap: int, kill_every_s: float) -> None:
        self.seen = Seen(lines, seed, cap)
        self.random = random.Random(seed)
        self.kill_every_s = kill_every_s
        self.cap: int | None = cap
        self.small = StandIn(same_answer=False)
        self.provider = PaidApi(
            folder / "provider", script={"seed": seed, "rules": FAULTS}, latency_s="0.02:0.15", default_max_tokens=64
        )
        self.provider.start()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")}
        environment.pop("DATABASE_URL", None)
        environment |= {
            "COPE_EMBEDDED_ONLY": "1",
            "COPE_SMALL_BASE_URL": self.small.base_url,
            "COPE_SMALL_MODEL": "stand-in-small",
            "COPE_SMALL_API_KEY": "none",
            "COPE_LARGE_BASE_URL": self.provider.base_url,
            "COPE_LARGE_MODEL": "simulated-large",
            "COPE_LARGE_API_KEY": "sk-simulated",
            "COPE_LARGE_PRICE": "gpt-4o-2024-08-06",
            "COPE_LARGE_CONCURRENCY": "16",
            "COPE_LARGE_TIMEOUT_S": "3",
            "COPE_LEASE_S": "3",
            "COPE_SWEEP_S": "0.25",
        }
        self.stack = Stack(folder / "stack", port=free_port(), environment=environment)
        self.stack.start()
        self.client = OpenAI(base_url=self.stack.base_url, api_key=self.stack.secrets.api_key, max_retries=5)
        (self.project,) = (row["id"] for row in self._admin("GET", "/organization/projects")["data"])
        self.batch_id = ""

    def close(self) -> None:
        """Stop everything."""
        self.client.close()
        self.stack.stop()
        self.provider.stop()
        self.small.close()

    # ---- the run ---------------------------------------------------------------------------------------------------

    def run(self) -> Seen:
        """Under the cap with faults; reconciled; then with the cap gone, to the end."""
        began = time.monotonic()
        self.set_cap(self.cap)
        self.submit()
        self.under_fire()
        self.settle_down()
        self.reconcile()
        held = self.check_the_cap_was_used()
        self.cap = None
        self.set_cap(None)
        self.wait("the held tasks to finish", lambda: self.batch()["status"] == "completed", 600)
        self.check_exactly_the_held_finished(held)
        self.settle_down()
        self.reconcile()
        self.check_books()
        self.seen.seconds = round(time.monotonic() - began, 1)
        return self.seen

    def submit(self) -> None:
        lines = []
        for number in range(self.seen.lines):
            # Most go to the large model at once; every eighth is a cascade whose samples never agree.
            policy = "cope" if number % 8 == 0 else "large"
            text = f"Line {number}: what is 2 + 3? " + "x" * self.random.randint(0, 400)
            body = {"model": policy, "max_tokens": 64, "messages": [{"role": "user", "content": text}]}
            lines.append({"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})
        file = self.client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
        self.batch_id = self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        ).id

    def under_fire(self) -> None:
        """Until the money is gone: kill -9 at random, flush Redis once, look at both books all the time."""
        next_kill = time.monotonic() + self.kill_every_s
        deadline = time.monotonic() + 900
        while not self.at_rest():
            if time.monotonic() > deadline:
                self.problem(f"not at rest under the cap after 900 s: {self.batch()['request_counts']}")
                return
            self.stack.watch()
            if time.monotonic() >= next_kill:
                self.kill_one()
                next_kill = time.monotonic() + self.kill_every_s * self.random.uniform(0.5, 1.5)
                if self.seen.kills == 3:
                    Redis.from_url(self._redis_url()).flushall()
                    self.seen.flushes += 1
            time.sleep(0.2)

    def at_rest(self) -> bool:
        """Whether every task has ended or is held and no call is open. Looks at the books on the way."""
        budget = self.sample()
        counts = self.batch()["request_counts"]
        over = counts["completed"] + counts["failed"] + counts["held"] == counts["total"] > 0
        return over and budget["reserved"] == 0

    def settle_down(self) -> None:
        """Nothing killed any more: all open money becomes spent, free or unconfirmed."""
        deadline, quiet_since, before = time.monotonic() + 180, time.monotonic(), -1
        # Near the cap held tasks go on one after another, so a moment's rest proves nothing: three seconds without any.
        while time.monotonic() - quiet_since < 3.0:
            self.stack.watch()
            ended = self.batch()["request_counts"]["completed"]
            if not self.at_rest() or ended != before:
                quiet_since, before = time.monotonic(), ended
            if time.monotonic() > deadline:
                self.problem(f"no rest within 180 s: {self.batch()['request_counts']}")
                return
            time.sleep(0.2)

    def kill_one(self) -> None:
        """A worker's parent, or one of its children alone."""
        pids: Any = self.stack.description()["pids"]
        parent = pids[self.random.choice(["worker-large", "worker-large", "worker-small", "worker-upkeep"])]
        if parent is None:
            return
        children = Path(f"/proc/{parent}/task/{parent}/children")
        below = children.read_text().split() if children.exists() else []
        victim = int(self.random.choice(below)) if below and self.random.random() < 0.5 else parent
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.seen.kills += 1

    # ---- looking ---------------------------------------------------------------------------------------------------

    def sample(self) -> dict[str, int]:
        """Both books at (nearly) one moment: the provider's first, so that ours can only be ahead."""
        billed = self.provider.books.total_nano()
        with psycopg.connect(self._postgres_url()) as conn:
            row = conn.execute(
                "SELECT coalesce(sum(spent), 0), coalesce(sum(reserved), 0), coalesce(sum(unconfirmed), 0),"
                " coalesce(sum(overrun), 0) FROM budgets WHERE scope = 'project'"
            ).fetchone()
        assert row is not None
        spent, reserved, unconfirmed, overrun = map(int, row)
        self.seen.samples += 1
        if self.cap is not None:
            self.seen.most_billed = max(self.seen.most_billed, billed)
            self.seen.most_counted = max(self.seen.most_counted, spent + reserved + unconfirmed)
            if billed > self.cap:
                self.problem(f"billed {billed}, cap {self.cap}")
            if spent + reserved + unconfirmed > self.cap:
                self.problem(f"counted {spent}+{reserved}+{unconfirmed}, cap {self.cap}")
        if overrun:
            self.problem(f"overrun {overrun}")
        return {"spent": spent, "reserved": reserved, "unconfirmed": unconfirmed}

    def batch(self) -> dict[str, Any]:
        while True:
            try:
                return self.client.batches.retrieve(self.batch_id).to_dict()
            except OpenAIError:
                self.stack.watch()
                time.sleep(0.2)

    def check_the_cap_was_used(self) -> set[str]:
        """What is left under the cap covers none of the held tasks' calls; their ids."""
        with psycopg.connect(self._postgres_url()) as conn:
            rows = conn.execute("SELECT id, needed FROM tasks WHERE state = 'held'").fetchall()
        budget, counts = self.sample(), self.batch()["request_counts"]
        self.seen.done_under_the_cap = counts["completed"]
        self.seen.held_under_the_cap = len(rows)
        self.seen.unused = self.seen.cap - budget["spent"] - budget["unconfirmed"]
        self.seen.smallest_need = min((need for _, need in rows), default=0)
        if not rows:
            self.problem("the cap did not bind: nothing was held")
        elif self.seen.unused >= self.seen.smallest_need:
            self.problem(f"unused {self.seen.unused}, but a held task needs only {self.seen.smallest_need}")
        return {task_id for task_id, _ in rows}

    def check_exactly_the_held_finished(self, held: set[str]) -> None:
        with psycopg.connect(self._postgres_url()) as conn:
            rows = conn.execute("SELECT id, state, finished_at > %s FROM tasks", [self.raised_at]).fetchall()
        later = {task_id for task_id, _, after in rows if after}
        if later != held:
            self.problem(f"{len(later)} tasks finished after the raise, {len(held)} were held")
        states = Counter(state for _, state, _ in rows)
        if states.total() != self.seen.lines or set(states) - {"done", "failed"}:
            self.problem(f"tasks ended as {dict(states)}")

    def check_books(self) -> None:
        """Our ledger is the provider's books, to the nano-dollar; each call was billed to one attempt."""
        budget = self.sample()
        self.seen.billed, self.seen.booked = self.provider.books.total_nano(), budget["spent"]
        if self.seen.billed != self.seen.booked or budget["unconfirmed"]:
            self.problem(f"billed {self.seen.billed}, booked {budget}")
        with psycopg.connect(self._postgres_url()) as conn:
            rows = conn.execute(
                "SELECT task_id, step, request_id FROM attempts WHERE state = 'settled' AND cost > 0"
            ).fetchall()
        billed = {name for name, nano in self.provider.books.billed_by_request().items() if nano}
        self.seen.calls_billed = len(billed)
        self.seen.steps_paid = len({(task, step) for task, step, _ in rows})
        self.seen.calls_extra = len(rows) - self.seen.steps_paid
        ours = {request_id for *_, request_id in rows}
        if {name.rsplit("-", 1)[0] for name in billed} != ours or len(billed) != len(rows):
            self.problem(f"{len(billed)} calls billed, {len(rows)} attempts paid")
        if twice := self.provider.books.duplicates("client_request_id"):
            self.problem(f"billed twice under one id: {twice}")

    # ---- doing -----------------------------------------------------------------------------------------------------

    def set_cap(self, cap: int | None) -> None:
        path = f"/organization/projects/{self.project}/spend_limit"
        with psycopg.connect(self._postgres_url()) as conn:
            (self.raised_at,) = conn.execute("SELECT now()").fetchone() or (None,)
        if cap is None:
            self._admin("DELETE", path)
        else:
            self._admin("POST", path, json.dumps({"cope": {"cap_usd": f"{cap // NANO}.{cap % NANO:09d}"}}).encode())

    def reconcile(self) -> None:
        """The provider's own usage export settles what is in doubt, and what was booked too high. What becomes free is
        spent again by the sweep, so: until nothing changes."""
        for _ in range(12):
            budget = self.sample()
            self.seen.unconfirmed_before_reconciling = max(
                self.seen.unconfirmed_before_reconciling, budget["unconfirmed"]
            )
            self.let_time_pass()
            span = {"complete_from": "0", "complete_until": str(int(time.time()))}
            orders = {"apply": "true", "apply_differences": "true", **span}
            query = urllib.parse.urlencode(orders)
            self._admin("POST", f"/organization/reconcile?{query}", self.provider.books.csv().encode(), "text/csv")
            self.settle_down()
            after = self.sample()
            if after["unconfirmed"] == 0 and after["spent"] == self.provider.books.total_nano():
                return
        self.problem(f"not reconciled after 12 rounds: {after}, billed {self.provider.books.total_nano()}")

    def let_time_pass(self) -> None:
        """A quarter of an hour, for what is in doubt: only then is it certain that no call of it still runs."""
        time.sleep(3.5)  # longer than a call's time-out, so that this is in truth so
        with psycopg.connect(self._postgres_url()) as conn:
            conn.execute("UPDATE ledger SET at = at - interval '15 minutes' WHERE kind = 'unconfirmed'")
            conn.execute("UPDATE attempts SET sent_at = sent_at - interval '15 minutes' WHERE state = 'unconfirmed'")

    def wait(self, what: str, so: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not so():
            if time.monotonic() > deadline:
                self.problem(f"waited {seconds:.0f} s for {what}: {self.batch()['request_counts']}")
                return
            self.stack.watch()
            time.sleep(0.2)

    def problem(self, text: str) -> None:
        if text not in self.seen.problems:
            self.seen.problems.append(text)

    def _admin(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.stack.secrets.admin_key}", "content-type": kind}
        request = urllib.request.Request(self.stack.base_url + path, data=body, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as refused:
            raise RuntimeError(f"{method} {path}: {refused.code} {refused.read()[:300]!r}") from None

    def _postgres_url(self) -> str:
        return dict(self.stack._servers)["postgres"].url("cope")  # type: ignore[attr-defined,no-any-return]

    def _redis_url(self) -> str:
        return dict(self.stack._servers)["redis"].url  # type: ignore[attr-defined,no-any-return]


def main() -> int:
    """Run at full size and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.spend", description=__doc__)
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cap-usd-per-line", type=float, default=0.00012, help="under what a line costs on average")
    parser.add_argument("--kill-every-s", type=float, default=3.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cope-spend-") as folder:
        Path(folder).chmod(0o755)
        cap = int(given.lines * given.cap_usd_per_line * NANO)
        campaign = SpendCampaign(
            Path(folder), lines=given.lines, seed=given.seed, cap=cap, kill_every_s=given.kill_every_s
        )
        try:
            seen = campaign.run()
        finally:
            campaign.close()
    json.dump(asdict(seen), sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 1 if seen.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
