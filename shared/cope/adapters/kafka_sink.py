"""Events into a Kafka topic, with confluent-kafka (librdkafka). Needs the extra `kafka`.

The producer is idempotent and never gives a message up by itself: so within one producer the broker takes each
partition's messages in the order of sending, without a hole, whatever is retried. What fails for good fails the whole
publication, and the caller begins again with a new sink.

Chosen over aiokafka for that idempotence as the broker's own client library has it, and for its mock broker, which the
tests run against.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from confluent_kafka import KafkaException, Producer

from cope.core import cloud_events
from cope.core.errors import Misconfigured, SinkUnavailable
from cope.core.records import Event

logger = logging.getLogger(__name__)

_FLUSH_S = 0.5
_PATIENCE_S = 60.0
_HEADERS: list[tuple[str, str | bytes | None]] = [("content-type", cloud_events.ONE)]


class KafkaSink:
    """Key: the batch's id, else the project's; value: the CloudEvents envelope. `options` are librdkafka's own, such as
    ``security.protocol``; they may not undo what order depends on."""

    def __init__(self, bootstrap: str, topic: str, options: Mapping[str, str]) -> None:
        self._topic = topic
        self._failed: list[str] = []
        settings = {
            "client.id": "cope-relay",
            "linger.ms": 5,
            "compression.type": "lz4",
            **options,
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "message.timeout.ms": 0,
            "error_cb": lambda _: None,  # brokers that are away are tried again; what matters is in the reports
        }
        try:
            self._producer = Producer(settings, logger=logger)
        except KafkaException as wrong:
            raise Misconfigured(f"COPE_KAFKA_BOOTSTRAP or COPE_KAFKA_OPTIONS can't be used: {wrong}") from None

    async def publish(self, events: Sequence[Event]) -> None:
        """Returns once the brokers have them all. Raises `SinkUnavailable` after a minute without progress."""
        await asyncio.to_thread(self._publish, events)

    def _publish(self, events: Sequence[Event]) -> None:
        try:
            for event in events:
                self._producer.produce(
                    self._topic,
                    key=cloud_events.partition_key(event),
                    value=orjson.dumps(cloud_events.envelope(event, orjson.Fragment(event.data))),
                    headers=_HEADERS,
                    timestamp=int(event.at.timestamp() * 1000),
                    on_delivery=self._reported,
                )
            left, deadline = len(events), time.monotonic() + _PATIENCE_S
            while left and not self._failed:
                before, left = left, self._producer.flush(_FLUSH_S)
                if left < before:
                    deadline = time.monotonic() + _PATIENCE_S
                elif time.monotonic() > deadline:
                    raise SinkUnavailable(f"Kafka took nothing for {_PATIENCE_S:.0f} s; {left} events wait.")
        except (KafkaException, BufferError) as refused:
            raise SinkUnavailable(f"Kafka refused events: {refused}") from refused
        if self._failed:
            raise SinkUnavailable(f"Kafka refused events: {self._failed[0]}")

    def _reported(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failed.append(str(error))

    async def aclose(self) -> None:
        """Nothing is sent any more; a request that is under way may still arrive, in its order."""
        await asyncio.to_thread(self._producer.purge, in_queue=True, in_flight=True, blocking=True)
        await asyncio.to_thread(self._producer.flush, _FLUSH_S)
