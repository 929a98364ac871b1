"""A worker without models: ``python -m tests.faults.event_worker`` claims, commits, closes batches, sequences, relays.

The store, the relay and the sweep are the service's own; only what a model would say is made up here. It is there to be
killed at any moment, and to be started again.
"""

import asyncio
import contextlib
import os
import random
from datetime import timedelta

from cope.adapters.kafka_sink import KafkaSink
from cope.adapters.postgres import PostgresWorkerStore
from cope.usecases.relay_events import Relay
from tests.contracts.world import done, goes_on, large_step, pages
from tests.support import make_new_task

LEASE_S = 1.5


async def main() -> None:
    """Until it is killed."""
    store = PostgresWorkerStore(os.environ["COPE_WORKER_DATABASE_URL"], secret_key=os.environ["COPE_SECRET_KEY"])
    await store.open()
    bootstrap, topic = os.environ["COPE_KAFKA_BOOTSTRAP"], os.environ["COPE_KAFKA_TOPIC"]
    relay = Relay(store, lambda: KafkaSink(bootstrap, topic, {}))
    loops = (work(store, "small"), work(store, "small"), work(store, "large"), upkeep(store), sweep(store))
    await asyncio.gather(*loops, relay.run(lambda: False))


async def work(store: PostgresWorkerStore, queue: str) -> None:
    """A few tasks at a time; every third escalates."""
    while True:
        tasks = await store.claim(queue, worker=f"{os.getpid()}", limit=random.randint(1, 4), lease_s=LEASE_S)
        await asyncio.sleep(random.uniform(0.05, 0.1))
        commits = [
            done(task, step=large_step(), stage=3)
            if queue == "large"
            else goes_on(task)
            if random.random() < 0.33
            else done(task)
            for task in tasks
        ]
        await store.commit(commits)


async def upkeep(store: PostgresWorkerStore) -> None:
    """A batch's beginning and end. Its file's name says how many lines it has: nobody uploads one here."""
    while True:
        job = await store.claim_validation(lease_s=LEASE_S)
        if job is not None:
            count = int(job.batch.input_file_id.rpartition("-")[2])
            rows = [make_new_task(line, custom_id=f"line-{line}") for line in range(1, count + 1)]
            # Ids that count up from 1 would be another process's too.
            rows = [row._replace(task_id=f"task_{job.batch.id[6:]}{row.line:06d}") for row in rows]  # type: ignore[arg-type]
            await store.ingest(job, pages(rows), model=lambda: "cope", expires_in=timedelta(hours=1))
        job = await store.claim_finalisation(lease_s=LEASE_S)
        if job is not None:
            await store.finish_batch(job, output=None, error=None)
        await asyncio.sleep(0.05)


async def sweep(store: PostgresWorkerStore) -> None:
    """As the service's: one of several, numbering in between."""
    while True:
        if await store.try_lead():
            await store.sweep(lease_s=LEASE_S)
            for _ in range(5):
                await store.sequence_events()
                await asyncio.sleep(0.05)
        else:
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
