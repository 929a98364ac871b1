"""Why a batch waits, since when, and when it goes on by itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cope.bootstrap import ApiParts
from cope.core.budget import Scope, next_month_start, scope_kind
from cope.core.eta import Eta, PaceSample, estimate
from cope.core.ids import KeyId
from cope.core.lifecycle import BatchStatus, HoldReason
from cope.core.money import NanoUSD, format_usd
from cope.core.records import Batch
from cope_api.context import project_row, seconds
from cope_api.present import Json, batch_json

_WHY_HELD = {
    HoldReason.BUDGET: "The monthly cap of the project or of the key leaves too little for the next paid call. Raise "
    "it, or wait for the next month; the batch goes on by itself.",
    HoldReason.PROVIDER_QUOTA: "The large model's provider refuses calls for now; it is asked again by itself.",
    HoldReason.PAUSED: "The project is paused: the operator's POST /v1/organization/projects/{id} with "
    '{"cope": {"paused": false}} lets it go on.',
    HoldReason.UNPARSABLE: "Under half of the first 200 lines had answers that could be read: look at some with "
    "GET /v1/batches/{id}/tasks, and check `cope.kind` and that the prompts ask for a final answer. To go on "
    "nevertheless: POST /v1/batches/{id}/resume.",
}
_BY_HAND = "The batch was held by hand. To go on: POST /v1/batches/{id}/resume."
_OWN_CAP = (
    "The batch's own `max_cost_usd` leaves too little for the next paid call. Raise it with POST "
    "/v1/batches/{id}/spend_limit, and the batch goes on by itself; or cancel it and keep what is done."
)
_NEVER_ENOUGH = (
    "A whole month's cap of the project or of the key is less than the next paid call may cost: raise it, and the "
    "batch goes on by itself; or cancel it and keep what is done."
)
_OPEN = frozenset({BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS})


@dataclass(frozen=True, slots=True)
class _Months:
    """The project's month: when the next one begins, and the whole caps that its calls come under then."""

    resets_at: datetime
    project_cap: NanoUSD | None
    key_caps: dict[KeyId, NanoUSD | None]

    def cover(self, batch: Batch) -> bool:
        """Whether the next month's whole caps could cover what the batch needs next."""
        needed = batch.needed or NanoUSD(0)
        own = None if batch.key_id is None else self.key_caps.get(batch.key_id)
        return all(cap is None or needed <= cap for cap in (self.project_cap, own))


async def shown(parts: ApiParts, batches: Iterable[Batch]) -> list[dict[str, Any]]:
    """Batches of one project as JSON. Two statements more where one of them waits for money, one more where one is in
    progress, else none."""
    listed, now = list(batches), parts.clock.now()
    waiting = next((batch for batch in listed if batch.held.get(HoldReason.BUDGET)), None)
    months = None if waiting is None else await _months(parts, waiting, now)
    running = [batch for batch in listed if batch.status is BatchStatus.IN_PROGRESS]
    paces = await parts.store.paces(running[0].project_id, [batch.id for batch in running]) if running else {}
    return [batch_json(batch, _hold(batch, months), _eta(batch, paces.get(batch.id, ()), now)) for batch in listed]


def _eta(batch: Batch, samples: Sequence[PaceSample], now: datetime) -> Eta | None:
    began_at, work = batch.in_progress_at, batch.workload
    if batch.status is not BatchStatus.IN_PROGRESS or began_at is None or work is None:
        return None
    return estimate(work, samples, began_at=began_at, now=now, hold=_reason(batch))


async def _months(parts: ApiParts, batch: Batch, now: datetime) -> _Months:
    project = await project_row(parts, batch.project_id)
    budgets = await parts.store.list_budgets(project.id)
    return _Months(
        resets_at=next_month_start(now, project.time_zone),
        project_cap=project.cap,
        key_caps={KeyId(one.scope): one.cap for one in budgets if scope_kind(one.scope) is Scope.KEY},
    )


def _hold(batch: Batch, months: _Months | None) -> Json | None:
    if batch.status not in _OPEN:
        return None
    reason = _reason(batch)
    if reason is None:
        return None
    message, resumes_at = _WHY_HELD[reason], None
    if reason is HoldReason.PAUSED and batch.paused:
        message = _BY_HAND
    elif reason is HoldReason.BUDGET and _own_cap_refuses(batch):
        message = _OWN_CAP
    elif reason is HoldReason.BUDGET and months is not None:
        resumes_at = months.resets_at if months.cover(batch) else None
        message = message if resumes_at is not None else _NEVER_ENOUGH
    return {
        "reason": reason.value,
        "since": seconds(batch.held_since),
        "resumes_at": seconds(resumes_at),
        "needed_usd": None if batch.needed is None else format_usd(batch.needed),
        "message": message,
    }


def _reason(batch: Batch) -> HoldReason | None:
    """What stops the whole batch comes first, then what holds most of its lines."""
    if batch.paused:
        return HoldReason.PAUSED
    if batch.held:
        return max(batch.held, key=lambda reason: batch.held[reason])
    # It stands still though none of its lines is held: its project does.
    return None if batch.held_since is None else HoldReason.PAUSED


def _own_cap_refuses(batch: Batch) -> bool:
    if batch.cap is None or batch.needed is None:
        return False
    return batch.spent + batch.reserved + batch.unconfirmed + batch.needed > batch.cap
