"""Carrying the faults out, one method for each kind, and healing what must not last."""

import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from openai import OpenAI
from ops.bench.faults.place import WORKERS, Place
from ops.bench.faults.plan import LEASE_S, Planned
from redis import Redis
from redis.exceptions import RedisError

# A minute without Redis and half a minute without Postgres at a lease of 30 s, scaled to a lease of 3 s.
REDIS_GONE_S, POSTGRES_GONE_S = 6.0, 3.0
ZOMBIE_S = LEASE_S + 1.5
NET_S, PROVIDER_S, WAKE_UPS_S, CAP_S, CLOCK_S = 3.0, 2.0, 5.0, 1.5, 3.0
_FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
_BAD_DAY = [
    {"fault": "cut", "probability": 0.05, "billed": True},
    {"fault": "server_error", "probability": 0.05, "billed": False},
    {"fault": "server_error", "probability": 0.02, "status": 502, "body": "html", "billed": True},
    {"fault": "hang", "probability": 0.02, "billed": True},
    {"fault": "broken_json", "probability": 0.03},
    {"fault": "missing_usage", "probability": 0.03},
    {"fault": "rate_limited", "probability": 0.05, "header": "any", "seconds": 0.3},
]

_STILL = """
SELECT count(*), extract(epoch FROM clock_timestamp())::float8 FROM tasks t
JOIN unnest(%s::text[], %s::int[]) AS l (id, fence) ON t.id = l.id AND t.fence = l.fence WHERE t.state = 'leased'
"""


@dataclass(slots=True)
class Death:
    """Processes ended or stopped at a moment of the machine's clock (seconds since 1970), with the leases (task and
    fence) they held then. `recovered_s` is when the last of these was free again, None while one is not."""

    fault: str
    at: float
    leases: tuple[tuple[str, int], ...]
    recovered_s: float | None = None


@dataclass
class Injuries:
    """What was done to one place in one run. `tell` writes the run's event log."""

    place: Place
    client: OpenAI
    project: str
    seed: int
    tell: Callable[..., None]
    deaths: list[Death] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)  # when nothing at all could go on
    caps: list[int] = field(default_factory=list)  # every cap in force in the run
    _heals: list[tuple[float, str, Callable[[], None]]] = field(default_factory=list)
    _orders: dict[str, str] = field(default_factory=dict)
    _restart: set[str] = field(default_factory=set)

    def begin(self, planned: Planned) -> None:
        """Do it now. What lasts heals itself by `heal_due`."""
        head, _, tail = planned.name.partition(" ")
        self.tell("fault", name=planned.name)
        method: Callable[[str], None] = getattr(self, f"_{head.replace('-', '_')}")
        method(tail)

    def heal_due(self, *, all_: bool = False) -> None:
        """End what has lasted long enough, or everything."""
        now = time.monotonic()
        due = [heal for heal in self._heals if all_ or heal[0] <= now]
        self._heals = [heal for heal in self._heals if heal not in due]
        for _, name, act in due:
            self.tell("healed", name=name)
            act()

    def look(self, conn: "psycopg.Connection[Any]") -> None:
        """Note which deaths' leases are free again. Call often. Raises `psycopg.Error` without a database."""
        for death in list(self.deaths):  # a thread of its own looks
            if death.leases and death.recovered_s is None:
                row = conn.execute(_STILL, [[t for t, _ in death.leases], [f for _, f in death.leases]]).fetchone()
                assert row is not None
                if row[0] == 0:
                    death.recovered_s = float(row[1]) - death.at

    @property
    def waiting(self) -> bool:
        """Whether something still lasts."""
        return bool(self._heals)

    def tidy(self) -> None:
        """After the run: no point armed, no clock wrong, nobody to restart."""
        self.heal_due(all_=True)
        self._orders.clear()
        self.place.order_points("")
        for name in self._restart:
            self._send(self.place.parent(name), signal.SIGTERM)
        self._restart.clear()

    def _later(self, seconds: float, name: str, act: Callable[[], None]) -> None:
        self._heals.append((time.monotonic() + seconds, name, act))

    # ---- processes -------------------------------------------------------------------------------------------------

    def _die(self, fault: str, pids: list[int], sig: int, owners: list[int]) -> None:
        at = time.time()
        for pid in pids:
            self._send(pid, sig)
        self.deaths.append(Death(fault, at, self._leases(owners)))
        self.tell("signal", signal=signal.Signals(sig).name, pids=pids)

    @staticmethod
    def _send(pid: int, sig: int) -> None:
        if pid > 1:  # 0 would be this process's own group
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)

    def _leases(self, owners: list[int]) -> tuple[tuple[str, int], ...]:
        try:
            with self.place.connect() as conn:
                rows = conn.execute(
                    "SELECT id, fence FROM tasks WHERE state = 'leased' AND split_part(lease_owner, ':', 2) = ANY (%s)",
                    [[str(pid) for pid in owners]],
                ).fetchall()
        except psycopg.Error:
            return ()
        return tuple((task_id, fence) for task_id, fence in rows)

    def _kill(self, tail: str) -> None:
        which, _, name = tail.partition(" ")
        if which == "api":
            self._die("kill api", [self.place.parent("api")], signal.SIGKILL, [])
            return
        if which == "sweeper":
            pids = self._leader()
            self._die("kill sweeper", pids, signal.SIGKILL, pids)
            return
        worker = f"worker-{name}"
        parent, children = self.place.parent(worker), self.place.children(worker)
        if which == "child" and children:
            self._die(f"kill child {name}", children[:1], signal.SIGKILL, children[:1])
        elif which == "group" and parent:
            self._die(f"kill group {name}", [parent, *children], signal.SIGKILL, children)
        elif parent:
            self._die(f"kill parent {name}", [parent], signal.SIGKILL, [])  # its children are another matter

    def _zombie(self, name: str) -> None:
        pids = self._leader() if name == "sweeper" else self.place.children(f"worker-{name}")[:1]
        if not pids:
            return
        self._die(f"zombie {name}", pids, signal.SIGSTOP, pids)

        def go_on() -> None:
            for pid in pids:
                self._send(pid, signal.SIGCONT)

        self._later(ZOMBIE_S, f"zombie {name}", go_on)

    def _double(self, tail: str) -> None:
        worker = f"worker-{tail.removeprefix('sigterm ')}"
        parent = self.place.parent(worker)
        for _ in range(2):
            self._send(parent, signal.SIGTERM)
            time.sleep(0.2)

    def _rolling(self, _: str) -> None:
        for worker in WORKERS:
            self._send(self.place.parent(worker), signal.SIGTERM)
            self.place.until(lambda w=worker: len(self.place.children(w)) > 0, 20)  # type: ignore[misc]

    def _leader(self) -> list[int]:
        try:
            with self.place.connect() as conn:
                rows = conn.execute(
                    "SELECT split_part(application_name, ' ', 2) FROM pg_stat_activity a JOIN pg_locks l USING (pid)"
                    " WHERE application_name LIKE 'cope-leader %%' AND l.locktype = 'advisory' AND l.granted",
                    [],
                ).fetchall()
        except psycopg.Error:
            return []
        return [int(pid) for (pid,) in rows][:1]

    # ---- named points, wake-ups, poison ----------------------------------------------------------------------------

    def _order(self, name: str, word: str | None) -> None:
        self._orders.pop(name, None)
        if word is not None:
            self._orders[name] = word
        self.place.order_points(" ".join(self._orders.values()))

    def _point(self, name: str) -> None:
        chance = "1" if name in {"inside_ingest", "inside_finish"} else "0.3"
        times = 1 if chance == "1" else 2
        self._order(name, f"{name}:{chance}:{self.seed}:{times}")

    def _poison(self, _: str) -> None:
        self._order("poison", f"poison:1:{self.seed}")

    def _wakeups(self, which: str) -> None:
        self._order("wakeups", f"wakeups_{which}")
        self._later(WAKE_UPS_S, f"wakeups {which}", lambda: self._order("wakeups", None))

    # ---- servers ---------------------------------------------------------------------------------------------------

    def _redis(self, what: str) -> None:
        server = self.place.redis
        assert server is not None
        if what == "flush":
            with contextlib.suppress(RedisError):
                Redis.from_url(server.url).flushall()
            return
        server.kill9()
        if what == "kill":
            server.start()
        else:
            self._later(REDIS_GONE_S, "redis gone", server.start)

    def _postgres(self, what: str) -> None:
        server, at = self.place.postgres, time.time()
        if what == "restart":
            server.stop()
        else:
            server.kill9()
        if what == "gone":

            def back() -> None:
                server.start()
                self.outages.append((at, time.time()))

            self._later(POSTGRES_GONE_S, "postgres gone", back)
            return
        server.start()
        self.outages.append((at, time.time()))

    # ---- links -----------------------------------------------------------------------------------------------------

    def _latency(self, link: str) -> None:
        # A database a third of a second away could carry no such load at all; a slow one can.
        self.place.proxies.late(link, 0.02 if link in {"postgres", "redis"} else 0.3)
        self._later(NET_S, f"latency {link}", lambda: self.place.proxies.heal(link))

    def _half_open(self, link: str) -> None:
        self.place.proxies.freeze(link)

    def _reset(self, link: str) -> None:
        self.place.proxies.reset(link)

    def _trickle(self, link: str) -> None:
        at = time.time()
        self.place.proxies.trickle(link, on=True)

        def heal() -> None:
            self.place.proxies.heal(link)
            if link == "postgres":
                self.outages.append((at, time.time()))

        self._later(NET_S, f"trickle {link}", heal)

    # ---- time ------------------------------------------------------------------------------------------------------

    def _clock(self, way: str) -> None:
        """One worker comes back from a restart with its clock an hour off, another's is an hour off the other way."""
        sign = 1 if way == "ahead" else -1
        for worker, hours in (("worker-large", sign), ("worker-upkeep", -sign)):
            # Under libfaketime Python can't sleep (EINVAL), and that is what Celery does while it looks for its broker.
            if _FAKETIME and self.place.broker != "none":
                values = {
                    "LD_PRELOAD": str(_FAKETIME[0]),
                    "FAKETIME": f"{hours:+d}h",
                    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                }
            else:
                values = {"COPE_TEST_CLOCK_OFFSET_S": str(3600 * hours)}
            self.place.set_environment(worker, **values)
            self._send(self.place.parent(worker), signal.SIGTERM)
            self._restart.add(worker)
            names = tuple(values)

            def right(worker: str = worker, names: tuple[str, ...] = names) -> None:
                self.place.set_environment(worker, **dict.fromkeys(names))

            self._later(CLOCK_S + 60, f"clock of {worker}", right)

    def _month(self, _: str) -> None:
        """From now on the database's months are the next one's, for all that is reserved."""
        with self.place.connect() as conn:
            conn.execute("UPDATE faults.shift SET months = 1")
        self._later(10**6, "month end", self._this_month)

    def _this_month(self) -> None:
        with self.place.connect() as conn:
            conn.execute("UPDATE faults.shift SET months = 0")

    # ---- provider, money, disk -------------------------------------------------------------------------------------

    def _provider(self, what: str) -> None:
        provider = self.place.provider
        if what == "bad day":
            provider.control(script={"seed": self.seed, "rules": _BAD_DAY})
            self._later(PROVIDER_S * 2, "provider bad day", lambda: self._told(script={}))
            return
        provider.control(outage=what)
        self._later(PROVIDER_S, f"provider {what}", lambda: self._told(outage="off"))

    def _told(self, **order: Any) -> None:
        self.place.provider.control(**order)

    def _cap(self, _: str) -> None:
        """The cap falls to what is counted already, so that every paid call waits, and comes back."""
        full = self.caps[-1]
        with self.place.connect() as conn:
            row = conn.execute(
                "SELECT coalesce(sum(spent + reserved + unconfirmed), 0) FROM budgets"
                " WHERE scope = 'project' AND project_id = %s",
                [self.project],
            ).fetchone()
        low = int(row[0]) + 1 if row else 1
        self._set_cap(low)
        self._later(CAP_S, "cap lowered", lambda: self._set_cap(full))

    def _set_cap(self, nano: int) -> None:
        self.caps.append(nano)
        body = {"cope": {"cap_usd": f"{nano // 10**9}.{nano % 10**9:09d}"}}
        deadline = time.monotonic() + 60
        while True:
            try:
                self.place.admin("POST", f"/organization/projects/{self.project}/spend_limit", body)
                return
            except OSError as away:  # an HTTPError is one
                if time.monotonic() > deadline:
                    self.problems.append(f"the cap could not be set within 60 s: {away}")
                    return
                self.place.watch()
                time.sleep(0.2)

    def _disk(self, _: str) -> None:
        """An upload that the disk can't hold: refused clearly, nothing half-written, and the next one is taken."""
        if not self.place.until(self.place.answers, 20):
            return  # an API that is away tells nothing about its disk
        pid = self.place.parent("api")
        stored = self.place.folder / "stack" / "files"
        before = {path.name for path in stored.rglob("*") if path.is_file()}
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (256 * 1024, limits[1]))
        told: list[str] = []

        def upload() -> None:
            once = self.client.with_options(max_retries=0)
            try:
                once.files.create(file=("big.jsonl", b'{"a": 1}\n' * 100_000), purpose="batch")
                told.append("it was taken")
            except Exception as refused:
                told.append(f"{getattr(refused, 'status_code', None)} {getattr(refused, 'code', None)} {refused}")

        thread = threading.Thread(target=upload)
        thread.start()
        thread.join(20)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        self.tell("upload", answer=told[0][:200] if told else "none within 20 s")
        if self.place.parent("api") != pid:
            return  # something else ended the API meanwhile
        if not told or not told[0].startswith("507 storage_full"):
            self.problems.append(f"disk full: the upload was answered {told}")
        left = [path for path in stored.rglob("*") if path.is_file() and path.stat().st_size > 0]
        half = [path.name for path in left if path.name not in before and ".unfinished" in str(path)]
        if half:
            self.problems.append(f"disk full: left half-written: {half}")
