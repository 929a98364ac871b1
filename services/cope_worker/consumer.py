"""Celery's consumer, which looks after the worker's children also while it has no broker."""

from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

Connect = Callable[..., Any]


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery has no types
    """While Celery tries to reach its broker its event loop stands still, and with it whatever replaces children that
    died. Without Redis that may be for ever, and a queue whose only child is dead would stand still as well: messages
    are only hints, the child works without them."""

    def ensure_connected(self, conn: Any) -> Any:
        """As Celery's, with a look at the children at least once a second of the waiting."""
        plain: Connect = conn.ensure_connection

        def ensure(*given: Any, callback: Callable[[], None] | None = None, **named: Any) -> Any:
            def look() -> None:
                if callback is not None:
                    callback()  # Celery's own: a shutdown that was asked for meanwhile
                self.pool.maintain_pool()

            return plain(*given, callback=look, **named)

        conn.ensure_connection = ensure
        return super().ensure_connected(conn)
