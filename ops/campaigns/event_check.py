"""What the campaigns on the event log share: the readers that are killed, and the comparison at the end.

Each reader must have seen every event at least once and each offset for the first time in its turn; the log must tell
what the tables hold, in the order of a batch's life; Kafka must hold all of it, each key in order.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

WAYS = ("group", "stream")
_ENDS = {"task.done", "task.failed", "task.cancelled", "task.expired"}
_BATCH_ENDS = {"batch.completed", "batch.failed", "batch.expired", "batch.cancelled"}
_AT_REST = """
SELECT (SELECT count(*) FROM events), coalesce(max(last), 0),
  (SELECT coalesce(max(committed), 0) FROM relay_places) FROM event_heads
"""


@dataclass
class Seen:
    """What one run came to."""

    seed: int
    events: int = 0
    tasks: int = 0
    kills: dict[str, int] = field(default_factory=Counter)
    by_group: int = 0
    twice_by_group: int = 0
    by_stream: int = 0
    twice_by_stream: int = 0
    by_kafka: int = 0
    twice_by_kafka: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        """Said once."""
        if text not in self.problems and len(self.problems) < 20:
            self.problems.append(text)


class MockKafka:
    """librdkafka's mock broker in a process of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ops.campaigns.mock_kafka"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.bootstrap = f"127.0.0.1:{self.process.stdout.readline().strip()}"

    def close(self) -> None:
        """Its log is gone with it."""
        self.process.kill()
        self.process.communicate()


class Readers:
    """One reader by a consumer group, one by server-sent events; started again, some time after they were killed."""

    def __init__(self, folder: Path, base_url: str, key: str, seen: Seen, rng: random.Random) -> None:
        self._folder, self._base_url, self._key = folder, base_url, key
        self._seen, self._random = seen, rng
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._due = dict.fromkeys(WAYS, 0.0)

    def watch(self) -> None:
        """Call this often."""
        now = time.monotonic()
        for way in WAYS:
            reader = self._running.get(way)
            if reader is not None and reader.poll() is not None:
                if reader.returncode != -signal.SIGKILL:
                    self._seen.problem(f"the {way} reader ended by itself: {reader.returncode}")
                del self._running[way]
                self._due[way] = now + self._random.uniform(0, 0.5)
            elif reader is None and now >= self._due[way]:
                self._running[way] = self._start(way)

    def kill(self, way: str) -> None:
        """With kill -9, wherever it is."""
        if way in self._running:
            self._running[way].kill()
            self._running[way].wait()
            self._seen.kills[way] += 1

    def close(self) -> None:
        """Both."""
        for reader in self._running.values():
            reader.kill()
            reader.wait()

    def read(self) -> dict[str, int]:
        """How far each has come."""
        return {way: _last_offset(self._folder / f"{way}.jsonl") for way in WAYS}

    def _start(self, way: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "ops.campaigns.event_reader", way]
        command += ["--base-url", self._base_url, "--out", str(self._folder / f"{way}.jsonl")]
        with (self._folder / f"{way}.err").open("ab") as err:
            return subprocess.Popen(command, env={**os.environ, "COPE_API_KEY": self._key}, stderr=err)


def all_read(postgres_url: str, readers: Readers) -> bool:
    """Whether nothing waits to enter the log, and the relay and both readers have come to its end."""
    with contextlib.suppress(psycopg.Error), psycopg.connect(postgres_url) as conn:
        waiting, head, relayed = conn.execute(_AT_REST).fetchone() or (1, 0, 0)
        return bool(waiting == 0 < head == relayed and set(readers.read().values()) == {head})
    return False


class Comparison:
    """Of everything with everything, once all is at rest. What differs is a problem in `seen`."""

    def __init__(self, seen: Seen, postgres_url: str, folder: Path) -> None:
        self._seen, self._folder = seen, folder
        with psycopg.connect(postgres_url) as conn:
            self._log = conn.execute(
                'SELECT "offset", id, type, batch_id, task_id FROM event_log ORDER BY "offset"'
            ).fetchall()
            self._tasks = conn.execute("SELECT id, state FROM tasks").fetchall()
            self._steps = conn.execute("SELECT task_id, name FROM steps").fetchall()
            self._batches = conn.execute("SELECT id, status FROM batches").fetchall()
        self._ids = {str(row[0]): row[1] for row in self._log}
        seen.events, seen.tasks = len(self._log), len(self._tasks)

    def run(self, *, kafka: str, topic: str) -> None:
        """All of it."""
        self._log_with_tables()
        self._order()
        seen = self._seen
        seen.by_group, seen.twice_by_group = self._reader("group")
        seen.by_stream, seen.twice_by_stream = self._reader("stream")
        self._kafka(messages(kafka, topic))

    def _log_with_tables(self) -> None:
        log, problem = self._log, self._seen.problem
        if [row[0] for row in log] != list(range(1, len(log) + 1)):
            problem("the log's offsets are not 1, 2, 3 …")
        ends = Counter((row[4], row[2]) for row in log if row[2] in _ENDS)
        if ends != Counter((task, f"task.{state}") for task, state in self._tasks):
            problem("the ends of tasks in the log are not those of the table")
        told = Counter(row[4] for row in log if row[2] == "task.step_finished")
        # Of tasks that were cancelled the table may keep fewer steps: the log has told of them all the same.
        if any(told[task] < count for task, count in Counter(task for task, _ in self._steps).items()):
            problem("a step in the table is not in the log")
        batch_ends = Counter((row[3], row[2]) for row in log if row[2] in _BATCH_ENDS)
        if batch_ends != Counter((batch, f"batch.{status}") for batch, status in self._batches):
            problem("the ends of batches in the log are not those of the table")

    def _order(self) -> None:
        """A batch's life: created, in progress, its tasks' steps before their ends, all ends, finalizing, its end."""
        places: dict[tuple[str, str], int] = {}
        last_end: dict[str, int] = {}
        ended: set[str] = set()
        for offset, _, type_, batch, task in self._log:
            places.setdefault((batch, type_), offset)
            if task in ended and type_.startswith("task."):
                self._seen.problem(f"{type_} of {task} at {offset} comes after its end")
            if type_ in _ENDS:
                ended.add(task)
                last_end[batch] = offset
        for batch, end in last_end.items():
            # A cancelled batch does not finalize; its tasks end between its cancelling and its end.
            life = [places.get((batch, f"batch.{turn}")) for turn in ("created", "in_progress")] + [end]
            life += [places.get((batch, type_)) for type_ in ("batch.finalizing", *sorted(_BATCH_ENDS))]
            known = [offset for offset in life if offset is not None]
            if known != sorted(known):
                self._seen.problem(f"the life of {batch} is out of order: {life}")

    def _reader(self, way: str) -> tuple[int, int]:
        """How many events it saw, and how many of them again."""
        newest = again = 0
        with (self._folder / f"{way}.jsonl").open() as lines:
            for event in map(json.loads, lines):
                offset = int(event["offset"])
                if self._ids.get(event["offset"]) != event["id"]:
                    self._seen.problem(f"{way}: offset {offset} is another event than in the log")
                if offset > newest + 1:
                    self._seen.problem(f"{way}: {offset} came after {newest}")
                again += offset <= newest
                newest = max(newest, offset)
        if newest != len(self._ids):
            self._seen.problem(f"{way}: ended at {newest} of {len(self._ids)}")
        return newest, again

    def _kafka(self, found: Iterator[tuple[str, dict[str, str]]]) -> None:
        """By first appearance; every event there."""
        seen: Counter[str] = Counter()
        newest: Counter[str] = Counter()
        for key, event in found:
            offset = event["offset"]
            if self._ids.get(offset) != event["id"] or event["partitionkey"] != key:
                self._seen.problem(f"kafka: offset {offset} is another event than in the log")
            if offset not in seen and int(offset) < newest[key]:
                self._seen.problem(f"kafka: {offset} of {key} came after {newest[key]}")
            newest[key] = max(newest[key], int(offset))
            seen[offset] += 1
        self._seen.by_kafka, self._seen.twice_by_kafka = len(seen), seen.total() - len(seen)
        if len(seen) != len(self._ids):
            self._seen.problem(f"kafka: {len(seen)} of {len(self._ids)} events")


def messages(kafka: str, topic: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A whole topic, (key, value): by partition, in its order."""
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": topic, "auto.offset.reset": "earliest", "log_level": 0}
    )
    for number in sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
        consumer.assign([TopicPartition(topic, number, low)])
        place = low
        while place < high:
            for message in consumer.consume(1000, 0.5):
                if message.error() is None and message.partition() == number:
                    place = message.offset() + 1
                    yield message.key().decode(), json.loads(message.value())
    consumer.close()


def make_topic(kafka: str, topic: str) -> None:
    """Four partitions; brokers need not make topics by themselves."""
    admin = AdminClient({"bootstrap.servers": kafka})
    for made in admin.create_topics([NewTopic(topic, 4, 1)]).values():
        made.result(20)


def lines_of(count: int, models: Sequence[str], rng: random.Random) -> bytes:
    """A batch's input file."""
    lines = []
    for number in range(count):
        body = {"model": rng.choice(models), "max_tokens": 64}
        body["messages"] = [{"role": "user", "content": f"Line {number}: what is 2 + 3?"}]
        lines.append({"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})
    return "\n".join(map(json.dumps, lines)).encode()


def _last_offset(path: Path) -> int:
    """Of the last whole line."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().split(b"\n")[:-1]
    return int(json.loads(lines[-1])["offset"]) if lines else 0
