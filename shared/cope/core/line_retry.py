"""Which lines of a batch are taken up again, and what is different this time."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from cope.core.errors import BadRequest, ErrorInfo
from cope.core.ids import BatchId
from cope.core.models import ModelCatalog
from cope.core.policies.spec import PolicySpec
from cope.core.request_policy import COPE_POLICY_KEYS, resolve_policy
from cope.core.task import OnBudget


class Retryable(StrEnum):
    """How a line that can be retried stands: it ended without an answer, waits in a hold, or got the small model's
    answer because the money was gone."""

    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    HELD = "held"
    DEGRADED = "degraded"


ENDED_WITHOUT_ANSWER = frozenset({Retryable.FAILED, Retryable.EXPIRED, Retryable.CANCELLED})


@dataclass(frozen=True, slots=True)
class LineRetry:
    """The lines of `parent` that stand as `lines` says and, where given, are named in `custom_ids`.

    `policy` (encoded) and `on_budget` take the place of the lines' own; None leaves them.
    """

    parent: BatchId
    lines: frozenset[Retryable]
    custom_ids: tuple[str, ...] | None = None
    policy: str | None = None
    on_budget: OnBudget | None = None


def encode_line_retry(retry: LineRetry) -> str:
    """As JSON text."""
    return orjson.dumps(
        {
            "parent": retry.parent,
            "lines": sorted(retry.lines),
            "custom_ids": retry.custom_ids,
            "policy": retry.policy,
            "on_budget": retry.on_budget,
        }
    ).decode()


def decode_line_retry(text: str) -> LineRetry:
    """The inverse of `encode_line_retry`."""
    data: dict[str, Any] = orjson.loads(text)
    return LineRetry(
        parent=BatchId(data["parent"]),
        lines=frozenset(map(Retryable, data["lines"])),
        custom_ids=None if data["custom_ids"] is None else tuple(data["custom_ids"]),
        policy=data["policy"],
        on_budget=None if data["on_budget"] is None else OnBudget(data["on_budget"]),
    )


def policy_of(cope: Mapping[str, object], catalog: ModelCatalog) -> PolicySpec | None:
    """The policy that a retry's `cope` block names for all its lines, None if it names none. Raises `BadRequest`."""
    own = {key: value for key, value in cope.items() if key in COPE_POLICY_KEYS}
    if not own:
        return None
    if "policy" not in own:
        key = min(own)
        raise BadRequest(
            f"`cope.{key}` needs `cope.policy` beside it: a retry gives its lines a whole policy, or leaves each its "
            "own.",
            param=f"cope.{key}",
        )
    return resolve_policy("cope", own, {}, catalog)


def moved(child: BatchId) -> ErrorInfo:
    """How a held line ends in its batch when a retry takes it over."""
    return ErrorInfo("moved_to_retry", f"This line was taken over by batch {child}, a retry, and goes on there.")
