"""The Celery application: `celery -A cope_worker.app …` and Flower find it here."""

from cope.adapters.celery_wakeup import JOB, make_celery
from cope.settings import Settings
from cope_worker import process

app = make_celery(Settings().broker_url)


@app.task(name=JOB, ignore_result=True)  # type: ignore[untyped-decorator]
def drain(queue: str) -> None:
    """A wake-up: the loop of this process looks at `queue` now instead of within a second."""
    process.poke(queue)
