"""Signing and scheduling webhooks, after Standard Webhooks: what the stock client's `webhooks.unwrap` accepts."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix all secrets share, not one of them
# Seconds until the next attempt, after the first, second, …: published, 75.6 hours in all.
SCHEDULE_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
MAX_BODY_BYTES = 20_000
"""Of one message."""
OLD_SECRET_S = 86_400.0
"""How long a secret that was rotated away still signs, where that was asked for."""
OLD_SECRETS = 4
"""That sign beside the present one, at most."""
DISABLED_AFTER = timedelta(days=5)
_SPANNED = timedelta(hours=12)
_LONGEST_RETRY_AFTER_S = 86_400.0
_SLOW_DOWN = frozenset({429, 502, 504})
_SLOW_FIRST_S, _SLOW_MOST_S = 5.0, 300.0


def make_secret(random: bytes) -> str:
    """A signing secret from 24 to 64 random bytes."""
    return SECRET_PREFIX + base64.b64encode(random).decode()


def secret_key(secret: str) -> bytes:
    """The key in a ``whsec_…`` secret. Raises `ValueError` if it is not one."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError("a webhook secret starts with whsec_")
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("a webhook secret is base64 after whsec_") from None


def sign(secret: str, *, message_id: str, timestamp: int, body: bytes) -> str:
    """One `webhook-signature`: base64 of HMAC-SHA256 over ``id.timestamp.body``."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(secret_key(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def signed_headers(
    secrets: Sequence[str], *, message_id: str, timestamp: int, body: bytes
) -> tuple[tuple[str, str], ...]:
    """What goes with a message. Signed by each secret, the present one first: a receiver takes any that fits."""
    signatures = [sign(secret, message_id=message_id, timestamp=timestamp, body=body) for secret in secrets]
    return (
        ("content-type", "application/json"),
        ("webhook-id", message_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", " ".join(signatures)),
    )


def message_body(
    *, event_id: str, type_: str, created_at: int, about: str, data: Mapping[str, str | int | None]
) -> str:
    """The message as it is stored and sent, at most `MAX_BODY_BYTES`: where `data` makes it longer, only the id that it
    is `about` is told, and that something was left out."""
    told = {"id": about, **{key: value for key, value in data.items() if value is not None}}
    body = _body(event_id, type_, created_at, told)
    if len(body) > MAX_BODY_BYTES:  # it is ASCII
        body = _body(event_id, type_, created_at, {"id": about, "truncated": True})
    return body


def _body(event_id: str, type_: str, created_at: int, data: Mapping[str, object]) -> str:
    whole = {"id": event_id, "object": "event", "created_at": created_at, "type": type_, "data": data}
    return json.dumps(whole, separators=(",", ":"))


def retry_in_s(
    attempt: int, *, retry_after_s: float | None, jitter: float, schedule: Sequence[float] = SCHEDULE_S
) -> float | None:
    """Seconds until the attempt after `attempt` (the first is 1); None when the schedule is exhausted.

    A receiver's `Retry-After` only ever lengthens the wait, up to a day. `jitter` in [0, 1) spreads it by ±10 %.
    """
    if not 1 <= attempt <= len(schedule):
        return None
    wait = schedule[attempt - 1] * (0.9 + 0.2 * jitter)
    return max(wait, min(retry_after_s or 0.0, _LONGEST_RETRY_AFTER_S))


def slow_down_s(status: int | None, attempt: int, *, retry_after_s: float | None, jitter: float) -> float | None:
    """For how long the whole endpoint is left alone after this failure; None: its other messages go on.

    What its `Retry-After` says, up to a day; else 5 seconds and twice as much with each attempt, up to 5 minutes, after
    429, 502 and 504. `jitter` in [0, 1) spreads ours by ±10 %.
    """
    if status is None:
        return None
    if retry_after_s is not None and retry_after_s > 0:
        return min(retry_after_s, _LONGEST_RETRY_AFTER_S)
    if status not in _SLOW_DOWN:
        return None
    doubled = _SLOW_FIRST_S * 2 ** min(max(attempt, 1) - 1, 10)
    return float(min(doubled, _SLOW_MOST_S)) * (0.9 + 0.2 * jitter)


def to_be_disabled(*, failing_since: datetime, failed_at: datetime, now: datetime) -> bool:
    """Whether one more failure disables an endpoint that has not taken a message since `failing_since`: five days
    later, and with failures before this one (the last at `failed_at`) that lie twelve hours apart, so that two unlucky
    messages in a quiet week do not."""
    return now - failing_since >= DISABLED_AFTER and failed_at - failing_since >= _SPANNED
