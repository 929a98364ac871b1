"""A clean stop cuts no paid call, and without any Redis the work goes on, a little later.

One stack on a Redis of the test's own, which nobody starts again, with stand-ins for the models.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from openai.types import Batch

from cope_local.children import free_port
from cope_local.redis import EmbeddedRedis
from cope_local.stack import Stack
from tests.faults.stand_in import StandIn

pytestmark = [pytest.mark.integration, pytest.mark.e2e, pytest.mark.timeout(180)]


class Place:
    """A running stack, what it talks to, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.small, self.large = StandIn(same_answer=False), StandIn()
        self.redis = EmbeddedRedis(folder / "own-redis", password="only-for-tests")
        self.redis.start()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")}
        environment.pop("DATABASE_URL", None)
        environment |= {
            "COPE_EMBEDDED_ONLY": "1",
            "COPE_BROKER_URL": self.redis.url,
            "COPE_SMALL_BASE_URL": self.small.base_url,
            "COPE_SMALL_MODEL": "stand-in-small",
            "COPE_SMALL_API_KEY": "none",
            "COPE_LARGE_BASE_URL": self.large.base_url,
            "COPE_LARGE_MODEL": "stand-in-large",
            "COPE_LARGE_API_KEY": "none",
            "COPE_LARGE_PRICE": "gpt-4o-2024-08-06",
            "COPE_LARGE_CONCURRENCY": "4",
            "COPE_LEASE_S": "3",
            "COPE_SWEEP_S": "0.25",
        }
        self.stack = Stack(folder / "no-redis-stack", port=free_port(), environment=environment)
        self.stack.start()
        self.client = OpenAI(base_url=self.stack.base_url, api_key=self.stack.secrets.api_key, max_retries=2)

    def close(self) -> None:
        self.client.close()
        self.stack.stop()
        self.redis.stop()
        self.small.close()
        self.large.close()

    def submit(self, count: int, model: str) -> Batch:
        body = {"model": model, "messages": [{"role": "user", "content": "What is 2 + 3?"}]}
        lines = [
            {"custom_id": f"line-{i}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            for i in range(count)
        ]
        file = self.client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
        return self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

    def completed(self, batch: Batch, count: int) -> Batch:
        self.until(lambda: self.client.batches.retrieve(batch.id).status == "completed", watch=True)
        batch = self.client.batches.retrieve(batch.id)
        assert batch.request_counts is not None
        assert (batch.request_counts.completed, batch.request_counts.failed) == (count, 0)
        assert batch.output_file_id is not None
        lines = [json.loads(line) for line in self.client.files.content(batch.output_file_id).text.splitlines()]
        assert sorted(line["custom_id"] for line in lines) == sorted(f"line-{i}" for i in range(count))
        return batch

    def until(self, so: Callable[[], bool], *, watch: bool = False) -> None:
        """Wait for it; `watch` lets the stack start dead children again meanwhile."""
        deadline = time.monotonic() + 90
        while not so():
            assert time.monotonic() < deadline
            if watch:
                self.stack.watch()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def place(scratch: Path) -> Iterator[Place]:
    running = Place(scratch)
    yield running
    running.close()


def test_a_clean_stop_mid_batch_cuts_no_paid_call(place: Place) -> None:
    place.large.delay_s = 2.0
    batch = place.submit(10, "large")
    place.until(lambda: place.large.in_flight == 4)

    pids: Any = place.stack.description()["pids"]
    os.kill(pids["worker-large"], signal.SIGTERM)
    place.until(lambda: dict(place.stack._servers)["worker-large"].running is False)

    assert place.large.broken == 0
    assert place.large.answered == place.large.calls
    assert place.large.calls < 10, "a worker that stops begins no further call"
    place.completed(batch, 10)
    assert place.large.calls == 10, "no call was made twice"
    assert place.large.broken == 0
    assert cope_of(place, batch)["unconfirmed_usd"] == "0.00"


def test_after_redis_is_gone_for_good_a_batch_and_a_live_call_still_end(place: Place) -> None:
    place.large.delay_s = 0.2
    batch = place.submit(12, "cope")
    place.redis.kill9()

    place.completed(batch, 12)
    answer = place.client.chat.completions.create(
        model="cope", messages=[{"role": "user", "content": "What is 2 + 3?"}], timeout=60
    )
    assert answer.choices[0].message.content
    place.completed(place.submit(3, "large"), 3)


def test_without_redis_a_clean_stop_still_cuts_no_paid_call(place: Place) -> None:
    place.large.delay_s = 2.0
    before = place.large.calls
    batch = place.submit(6, "large")
    place.until(lambda: place.large.in_flight == 4)

    pids: Any = place.stack.description()["pids"]
    os.kill(pids["worker-large"], signal.SIGTERM)

    place.completed(batch, 6)
    assert place.large.calls - before == 6
    assert place.large.broken == 0


def test_a_worker_that_starts_without_a_broker_works(place: Place) -> None:
    place.large.delay_s = 0.0
    pids: Any = place.stack.description()["pids"]
    for name in ("worker-small", "worker-large", "worker-upkeep"):
        os.killpg(pids[name], signal.SIGKILL)

    place.completed(place.submit(5, "cope"), 5)


def test_a_worker_without_a_broker_replaces_its_only_child(place: Place) -> None:
    time.sleep(6)  # so long that the parents wait seconds between their looks for the broker
    pids: Any = place.stack.description()["pids"]
    for name in ("worker-small", "worker-large", "worker-upkeep"):
        for child in children_of(pids[name]):
            os.kill(child, signal.SIGKILL)

    place.completed(place.submit(5, "cope"), 5)


def children_of(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def cope_of(place: Place, batch: Batch) -> dict[str, Any]:
    extra = place.client.batches.retrieve(batch.id).model_extra
    assert extra is not None
    return dict(extra["cope"])
