"""The event log under kills: ``python -m ops.campaigns.events --lines 500 --kills 40 --seeds 1-5 [--kafka HOST:PORT]``.

A whole stack with stand-in models works on batches, one of them cancelled on the way. One reader follows the log by a
consumer group, another by server-sent events, and the relay publishes it to a Kafka topic. Meanwhile readers, API,
workers (the sequencer and the relay are in them), Redis and, with ``--postgres``, the database are killed with kill -9
at random. What must be true then is in `event_check`. Prints one JSON object a seed.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from openai import OpenAI, OpenAIError
from ops.campaigns.event_check import WAYS, Comparison, MockKafka, Readers, Seen, all_read, lines_of, make_topic
from tests.faults.stand_in import StandIn

from cope_local.children import free_port
from cope_local.stack import Stack

_WAIT_S = 240.0
_MODELS = ("cope", "large", "small-majority")
_OPEN = {"validating", "in_progress", "finalizing", "cancelling"}


class EventCampaign:
    """Everything it starts ends with `close`. `kafka` None: librdkafka's mock broker, in a process of its own."""

    def __init__(self, folder: Path, *, seed: int, lines: int, kills: int, kafka: str | None, postgres: bool) -> None:
        self.seen = Seen(seed)
        self.random = random.Random(seed)
        self.lines, self.kills, self.folder = lines, kills, folder
        self.victims = [*WAYS, "api", "api", "worker-small", "worker-large", "worker-upkeep", "redis"]
        self.victims += ["postgres"] if postgres else []
        self.topic = f"cope.events.{seed}.{os.getpid()}"
        self.broker = MockKafka() if kafka is None else None
        self.kafka = kafka or (self.broker.bootstrap if self.broker else "")
        if kafka is not None:
            make_topic(kafka, self.topic)
        self.small, self.large = StandIn(delay_s=0.01, same_answer=False), StandIn(delay_s=0.02)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")}
        environment.pop("DATABASE_URL", None)
        environment |= {
            "COPE_EMBEDDED_ONLY": "1",
            "COPE_SMALL_BASE_URL": self.small.base_url,
            "COPE_SMALL_MODEL": "stand-in-small",
            "COPE_SMALL_API_KEY": "none",
            "COPE_LARGE_BASE_URL": self.large.base_url,
            "COPE_LARGE_MODEL": "stand-in-large",
            "COPE_LARGE_API_KEY": "none",
            "COPE_LARGE_PRICE": "gpt-4o-2024-08-06",
            "COPE_DEFAULT_CAP_USD": "unlimited",
            "COPE_LARGE_TIMEOUT_S": "3",
            "COPE_LEASE_S": "3",
            "COPE_SWEEP_S": "0.25",
            "COPE_KAFKA_BOOTSTRAP": self.kafka,
            "COPE_KAFKA_TOPIC": self.topic,
        }
        self.stack = Stack(folder / "stack", port=free_port(), environment=environment)
        self.stack.start()
        key = self.stack.secrets.api_key
        self.client = OpenAI(base_url=self.stack.base_url, api_key=key, max_retries=5)
        self.readers = Readers(folder, self.stack.base_url, key, self.seen, self.random)

    def close(self) -> None:
        """Stop everything."""
        self.readers.close()
        self.client.close()
        self.stack.stop()
        self.small.close()
        self.large.close()
        if self.broker is not None:
            self.broker.close()

    def run(self) -> Seen:
        """Work and kills, then rest, then the comparison."""
        began = time.monotonic()
        self.watch()
        few = max(1, self.lines // 10)
        batches = [self.submit(count) for count in (few, self.lines - 2 * few, few)]
        self.under_fire(batches)
        self.settle(batches)
        Comparison(self.seen, self.postgres_url(), self.folder).run(kafka=self.kafka, topic=self.topic)
        self.seen.seconds = round(time.monotonic() - began, 1)
        self.seen.kills = dict(self.seen.kills)
        return self.seen

    def submit(self, count: int) -> str:
        data = lines_of(count, _MODELS, self.random)
        file = self.client.files.create(file=("in.jsonl", data), purpose="batch")
        made = self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        return made.id

    def under_fire(self, batches: Sequence[str]) -> None:
        """One kill after another, a cancel in the middle of them."""
        for number in range(self.kills):
            until = time.monotonic() + self.random.uniform(0.1, 0.9)
            while time.monotonic() < until:
                self.watch()
                time.sleep(0.05)
            if number == self.kills // 2:
                self.patiently(lambda: self.client.batches.cancel(batches[-1]))
                self.patiently(lambda: self.submit(max(1, self.lines // 10)))
            self.kill(self.random.choice(self.victims))

    def kill(self, name: str) -> None:
        """A reader, or a process of the stack; of a worker its parent or one child alone."""
        if name in WAYS:
            self.readers.kill(name)
            return
        parent = dict(self.stack._servers)[name].pid  # noqa: SLF001 - this is the stack's own tester
        if parent is None:
            return
        children = Path(f"/proc/{parent}/task/{parent}/children")
        below = children.read_text().split() if children.exists() and name.startswith("worker") else []
        victim = int(self.random.choice(below)) if below and self.random.random() < 0.5 else parent
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            self.seen.kills[name] += 1

    def watch(self) -> None:
        """What was killed is started again."""
        self.stack.watch()
        self.readers.watch()

    def settle(self, batches: Sequence[str]) -> None:
        """Until nothing works any more and everybody has come to the log's end."""
        deadline = time.monotonic() + _WAIT_S
        while True:
            self.watch()
            with contextlib.suppress(OpenAIError):
                states = {one.id: one.status for one in self.client.batches.list(limit=100)}
                over = len(states) > len(batches) and not _OPEN & set(states.values())
                if over and all_read(self.postgres_url(), self.readers):
                    return
            if time.monotonic() > deadline:
                self.seen.problem(f"not at rest after {_WAIT_S:.0f} s: {self.readers.read()}")
                return
            time.sleep(0.1)

    def patiently(self, act: Callable[[], object]) -> None:
        """Through the service's absences."""
        deadline = time.monotonic() + 60
        while True:
            try:
                act()
            except OpenAIError:
                self.watch()
                time.sleep(0.1)
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def postgres_url(self) -> str:
        """The superuser's."""
        return dict(self.stack._servers)["postgres"].url("cope")  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001


def seeds_of(text: str) -> list[int]:
    """``3`` or ``1-10``."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> int:
    """One run a seed."""
    parser = argparse.ArgumentParser(prog="python -m ops.campaigns.events", description=__doc__)
    parser.add_argument("--lines", type=int, default=500)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seeds", type=seeds_of, default=[1])
    parser.add_argument("--kafka", help="a broker's address instead of the mock broker")
    parser.add_argument("--postgres", action="store_true", help="kill the database too")
    given = parser.parse_args()
    failed = 0
    for seed in given.seeds:
        with tempfile.TemporaryDirectory(prefix="cope-events-") as folder:
            Path(folder).chmod(0o755)
            campaign = EventCampaign(
                Path(folder),
                seed=seed,
                lines=given.lines,
                kills=given.kills,
                kafka=given.kafka,
                postgres=given.postgres,
            )
            try:
                seen = campaign.run()
            finally:
                campaign.close()
        sys.stdout.write(json.dumps(asdict(seen)) + "\n")
        sys.stdout.flush()
        failed += bool(seen.problems)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
