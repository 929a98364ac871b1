"""Events into Kafka, against librdkafka's own mock broker: a process of its own that speaks the protocol over TCP."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from cope.adapters import kafka_sink
from cope.adapters.kafka_sink import KafkaSink
from cope.core.errors import Misconfigured, SinkUnavailable
from cope.core.ids import BatchId, EventId, ProjectId, TaskId
from cope.core.records import Event

pytestmark = pytest.mark.integration

# Where it listens is all it says; it ends with its standard input.
_BROKER = """
import sys
from confluent_kafka.admin import AdminClient
broker = AdminClient({"test.mock.num.brokers": 1, "log_level": 0})
print(next(iter(broker.list_topics(timeout=10).brokers.values())).port, flush=True)
sys.stdin.read()
"""


@dataclass
class Broker:
    bootstrap: str
    process: "subprocess.Popen[str]"


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    process = subprocess.Popen(
        [sys.executable, "-c", _BROKER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    yield Broker(f"127.0.0.1:{process.stdout.readline().strip()}", process)
    process.kill()
    process.communicate()


def event(offset: int, *, batch: int | None = 1) -> Event:
    return Event(
        offset=offset,
        id=EventId(f"evt_{offset}"),
        project_id=ProjectId("proj_1"),
        batch_id=None if batch is None else BatchId(f"batch_{batch}"),
        task_id=None if batch is None else TaskId("task_1"),
        type="task.done",
        at=datetime(2026, 11, 2, 12, 0, tzinfo=UTC),
        data='{"stage":1}',
    )


def received(broker: Broker, topic: str, count: int) -> list[tuple[str, dict[str, Any]]]:
    """All messages, or the first `count`: (key, value), by partition and in its order."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    found, last = [], time.monotonic()
    while len(found) < count and time.monotonic() < last + 1.5:
        if page := [one for one in consumer.consume(1000, 0.2) if one.error() is None]:
            found, last = found + page, time.monotonic()
    consumer.close()
    found.sort(key=lambda one: (one.partition(), one.offset()))
    return [(one.key().decode(), json.loads(one.value())) for one in found]


async def test_each_event_is_a_cloud_event_under_the_key_of_its_batch_or_project(broker: Broker) -> None:
    sink = KafkaSink(broker.bootstrap, "envelopes", {})
    await sink.publish([event(1), event(2, batch=None)])
    await sink.aclose()

    found = dict(received(broker, "envelopes", 2))

    assert set(found) == {"batch_1", "proj_1"}
    assert found["batch_1"] == {
        "specversion": "1.0",
        "id": "evt_1",
        "source": "/projects/proj_1",
        "type": "task.done",
        "subject": "batch_1/task_1",
        "time": "2026-11-02T12:00:00Z",
        "datacontenttype": "application/json",
        "offset": "1",
        "partitionkey": "batch_1",
        "data": {"stage": 1},
    }


async def test_the_events_of_each_batch_arrive_in_order_through_a_broker_that_stands_still_for_a_while(
    broker: Broker,
) -> None:
    sink = KafkaSink(broker.bootstrap, "stalls", {"socket.timeout.ms": "1000", "batch.num.messages": "50"})
    await sink.publish([event(1, batch=0)])
    os.kill(broker.process.pid, signal.SIGSTOP)
    threading.Timer(2.5, os.kill, [broker.process.pid, signal.SIGCONT]).start()
    try:
        await sink.publish([event(offset, batch=offset % 7) for offset in range(2, 2001)])
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)
    await sink.aclose()

    # The mock broker, unlike a real one, does not know a request that is sent again: first appearances count.
    by_batch: dict[str, list[int]] = {}
    for key, value in received(broker, "stalls", 10_000):
        seen = by_batch.setdefault(key, [])
        if int(value["offset"]) not in seen:
            seen.append(int(value["offset"]))

    assert by_batch == {
        f"batch_{batch}": [offset for offset in range(1, 2001) if (offset % 7 if offset > 1 else 0) == batch]
        for batch in range(7)
    }


async def test_a_broker_that_is_not_there_is_said_after_a_while_and_nothing_is_sent_later(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = KafkaSink(broker.bootstrap, "late", {})
    await sink.publish([event(1)])
    monkeypatch.setattr(kafka_sink, "_PATIENCE_S", 0.5)
    os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(SinkUnavailable, match="Kafka took nothing"):
            await sink.publish([event(2)])
        await sink.aclose()
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)

    # Event 2 may arrive: it was under way. What matters is that the caller knows to send it again.
    assert next(value["offset"] for _, value in received(broker, "late", 10)) == "1"


async def test_an_unusable_option_is_said(broker: Broker) -> None:
    with pytest.raises(Misconfigured, match="COPE_KAFKA_OPTIONS"):
        KafkaSink(broker.bootstrap, "topic", {"security.protocl": "SSL"})
