"""``python -m cope_worker --queues small,large --processes 2``: a Celery worker whose children drain Postgres."""

import argparse
import logging
import os
import socket
import sys
from typing import Any

from celery.signals import (
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutting_down,
)

from cope.adapters.celery_wakeup import QUEUES
from cope.bootstrap import open_event_sink
from cope.catalog import load_catalog, load_prices
from cope.core.errors import Misconfigured
from cope.logs import set_up_logs
from cope.settings import Settings
from cope_worker import process
from cope_worker.app import app

_GRACE_S = 15.0
_LOOK_AT_CHILDREN_S = 1.0


def main() -> None:
    """Check the settings, then hand over to Celery until a signal ends it."""
    parser = argparse.ArgumentParser(prog="cope_worker", description=__doc__)
    parser.add_argument("--queues", default=",".join(QUEUES), help=f"comma list of {', '.join(QUEUES)} (default all)")
    parser.add_argument("--processes", type=int, default=1, help="worker children (default 1)")
    arguments = parser.parse_args()
    queues = tuple(name.strip() for name in arguments.queues.split(",") if name.strip())
    for name in queues:
        if name not in QUEUES:
            parser.error(f"unknown queue {name!r}: choose from {', '.join(QUEUES)}")
    settings = _checked_settings()
    set_up_logs(settings)
    for chatty in ("httpx", "httpx2"):  # a line for every model call: eight and more for each task
        logging.getLogger(chatty).setLevel(logging.WARNING)
    grace_s = settings.large_timeout_s + _GRACE_S
    stopping = process.StopFlag()  # before the fork: a prefork child hears of a shutdown by nothing else

    def on_init(**_: object) -> None:
        process.begin(app, queues, stopping)

    def on_parent_stop(**_: object) -> None:
        stopping.raise_()

    def on_child_stop(**_: object) -> None:
        stopping.raise_()
        process.end(grace_s)

    def on_ready(sender: Any, **_: object) -> None:
        # Celery hears of a killed child now and then only by its own look every five seconds: too long for a queue
        # whose only child that was.
        if sender.hub is not None:
            sender.hub.call_repeatedly(_LOOK_AT_CHILDREN_S, sender.pool.maintain_pool)

    setup_logging.connect(lambda **_: None, weak=False)
    worker_process_init.connect(on_init, weak=False)
    worker_ready.connect(on_ready, weak=False)
    worker_shutting_down.connect(on_parent_stop, weak=False)
    worker_process_shutdown.connect(on_child_stop, weak=False)
    app.conf.worker_proc_alive_timeout = 60
    app.conf.worker_consumer = "cope_worker.consumer:Consumer"
    app.worker_main(
        [
            "worker", "--pool", "prefork", "--concurrency", str(arguments.processes), "--queues", ",".join(queues),
            "--hostname", f"{'-'.join(queues)}-{os.getpid()}@{socket.gethostname()}", "--without-gossip",
            "--without-mingle", "--events", "--loglevel", "WARNING",
        ]
    )  # fmt: skip


def _checked_settings() -> Settings:
    try:
        settings = Settings()
        settings.need("worker_database_url")
        settings.need("secret_key")
        load_catalog(settings)
        load_prices(settings)
        open_event_sink(settings)
    except (Misconfigured, ValueError) as wrong:
        sys.stderr.write(f"cope_worker: {wrong}\n")
        raise SystemExit(2) from None
    return settings


if __name__ == "__main__":
    main()
