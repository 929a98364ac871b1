"""The small ports: time, chance, wake-ups and the webhook sender."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cope.core.ids import BatchId, TaskId


class Clock(Protocol):
    """Time, passed in."""

    def now(self) -> datetime:
        """The present, aware, UTC."""
        ...


class IdMaker(Protocol):
    """Chance, passed in: new ids and jitter."""

    def new(self, prefix: str) -> str:
        """A new id with this prefix (`cope.core.ids`)."""
        ...

    def jitter(self) -> float:
        """A number in [0, 1)."""
        ...

    def secret(self, num_bytes: int) -> bytes:
        """Cryptographically strong random bytes."""
        ...


class WakeUp(Protocol):
    """A hint that a queue has work. It may be lost, doubled or late; nothing depends on it."""

    async def poke(self, queue: str) -> None:
        """Say that `queue` has work. Never raises: a broker that is away must not fail the caller."""
        ...

    async def announce(self, ended: Sequence[TaskId | BatchId]) -> None:
        """Say that these live tasks or batches have ended, to whoever waits for them. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """One delivery: the exact bytes to send and the headers that sign them."""

    url: str
    body: bytes
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class WebhookReply:
    """`status` is None where no answer came; `error` then says why. `excerpt` is at most 1 KiB of the body; `took_ms`
    is the time until the answer's head was there, or until it was given up."""

    status: int | None
    error: str | None
    excerpt: str
    retry_after_s: float | None
    took_ms: int = 0


class WebhookSender(Protocol):
    """Sends one delivery to a public (or allowed) address, follows no redirect."""

    async def send(self, request: WebhookRequest) -> WebhookReply:
        """One attempt. Never raises for anything the receiver does."""
        ...

    def refuse_reason(self, url: str) -> str | None:
        """Why this address may not be a webhook at all (scheme, credentials, literal private address), or None."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...
