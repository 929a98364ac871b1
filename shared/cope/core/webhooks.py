"""Signing and scheduling webhooks, after Standard Webhooks: what the stock client's `webhooks.unwrap` accepts."""

import base64
import binascii
import hashlib
import hmac

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix all secrets share, not one of them
# Seconds until the next attempt, after the first, second, …: published, 75.6 hours in all.
SCHEDULE_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
_LONGEST_RETRY_AFTER_S = 86_400.0


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
    """The `webhook-signature` header: base64 of HMAC-SHA256 over ``id.timestamp.body``."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(secret_key(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def retry_in_s(attempt: int, *, retry_after_s: float | None, jitter: float) -> float | None:
    """Seconds until the attempt after `attempt` (the first is 1); None when the schedule is exhausted.

    A receiver's `Retry-After` only ever lengthens the wait, up to a day. `jitter` in [0, 1) spreads it by ±10 %.
    """
    if not 1 <= attempt <= len(SCHEDULE_S):
        return None
    wait = SCHEDULE_S[attempt - 1] * (0.9 + 0.2 * jitter)
    return max(wait, min(retry_after_s or 0.0, _LONGEST_RETRY_AFTER_S))
