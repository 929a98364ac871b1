"""Wake-ups as Celery messages, and the announcement of ended live calls and batches over Redis. Both are hints only."""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from celery import Celery
from redis.asyncio import Redis
from redis.exceptions import RedisError

from cope.core.ids import BatchId, TaskId

logger = logging.getLogger(__name__)

JOB = "cope.drain"
LIVE_CHANNEL = "cope:live"
QUEUES = ("small", "large", "upkeep", "webhooks")
EXPIRES_S = 30
_QUIET_S = 0.2
_AWAY_S = 5.0

_REDIS = {
    "worker_disable_prefetch": True,
    "broker_transport_options": {
        "visibility_timeout": 300,
        "socket_timeout": 5,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 30,
        "max_retries": 0,
    },
}
# Quorum queues, whose consumers must not ask for the global prefetch limit (Celery finds out by the queues' type), and
# confirmed publishing: a node that has just become a follower would else swallow messages without a word.
_RABBITMQ = {
    "task_default_queue_type": "quorum",
    "task_default_exchange_type": "topic",
    "task_create_missing_queue_type": "quorum",
    "task_create_missing_queue_exchange_type": "topic",
    "worker_detect_quorum_queues": True,
    "broker_heartbeat": 10,
    "broker_transport_options": {"confirm_publish": True, "read_timeout": 5, "write_timeout": 5, "max_retries": 0},
}


def make_celery(broker_url: str) -> Celery:
    """The Celery application: JSON only, no results, nothing kept beyond its usefulness (a message is a hint)."""
    app = Celery("cope", broker=broker_url or "memory://")
    app.conf.update(
        task_serializer="json",
        event_serializer="json",
        result_serializer="json",
        accept_content=["json"],  # a pickle is refused unread: whoever reaches the broker must not run code here
        result_accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        task_default_queue="upkeep",
        task_create_missing_queues=True,
        task_send_sent_event=False,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=2,
        enable_utc=True,
        **(_RABBITMQ if broker_url.startswith(("amqp://", "amqps://", "pyamqp://")) else _REDIS),
    )
    return app


class CeleryWakeUp:
    """Pokes queues through Celery; a broker that is away costs a log line and is left alone for some seconds."""

    def __init__(self, app: Celery, redis_url: str | None) -> None:
        self._app = app
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wake-up")
        self._last: dict[str, float] = {}
        self._away_until = 0.0
        self._redis: Redis | None = (
            Redis.from_url(redis_url, socket_timeout=2, socket_connect_timeout=1)
            if redis_url and redis_url.startswith(("redis://", "rediss://"))
            else None
        )

    async def poke(self, queue: str) -> None:
        """Say that `queue` has work; at most five times a second for each queue. Returns at once."""
        now = time.monotonic()
        if now < self._away_until or now - self._last.get(queue, 0.0) < _QUIET_S:
            return
        self._last[queue] = now
        asyncio.get_running_loop().run_in_executor(self._thread, self._send, queue)

    def _send(self, queue: str) -> None:
        try:
            self._app.send_task(JOB, args=[queue], queue=queue, expires=EXPIRES_S, retry=False, ignore_result=True)
        except Exception as away:
            # Anything a broker library can raise: whatever it is, polling goes on and work is not lost.
            self._away_until = time.monotonic() + _AWAY_S
            logger.warning("the broker is away (%s): queues are polled meanwhile", type(away).__name__)

    async def announce(self, ended: Sequence[TaskId | BatchId]) -> None:
        """Publish what has ended for the API processes that wait."""
        if self._redis is None or time.monotonic() < self._away_until:
            return
        try:
            for name in ended:
                await self._redis.publish(LIVE_CHANNEL, name)
        except (RedisError, OSError):
            logger.debug("what has ended could not be announced; the API polls")

    async def aclose(self) -> None:
        """Close connections; hints under way may be lost."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._redis is not None:
            await self._redis.aclose()
