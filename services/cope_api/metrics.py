"""Prometheus' text form: requests by status for anybody, money for the operator or where COPE_METRICS_OPEN says so."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.deliveries import WebhookBacklog
from cope.core.ids import ProjectId
from cope.ports.ledger import Standing
from cope_api.context import admin_of, parts_of
from cope_api.retention import retention_gauges

router = APIRouter()
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_CHECK_EVERY_S = 60.0
_SHARE = 20


@dataclass(frozen=True, slots=True)
class Checked:
    """When (monotonic) the ledger was checked, how long that took, and by how much each project's budgets differ."""

    at_s: float
    took_s: float
    sizes: dict[ProjectId, int]


class LedgerChecks:
    """The last check of the whole ledger, renewed once a minute at most.

    A ledger so large that its check takes seconds is checked more seldom: at most a twentieth of the time is spent so.
    Scrapes do not wait for a renewal; only the very first one does.
    """

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._last: Checked | None = None
        self._running: asyncio.Task[Checked] | None = None

    async def latest(self) -> Checked:
        """The last one. Raises `StoreUnavailable` where there is none yet and the database does not answer."""
        last = self._last
        if last is not None and time.monotonic() < last.at_s + max(_CHECK_EVERY_S, _SHARE * last.took_s):
            return last
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._check())
        if last is None:
            return await asyncio.shield(self._running)
        self._running.add_done_callback(_forget_failure)
        return last

    async def _check(self) -> Checked:
        began = time.monotonic()
        sizes: Counter[ProjectId] = Counter()
        for row in await self._parts.store.ledger_difference(None):
            sizes[row.project_id] += row.size
        self._last = Checked(time.monotonic(), time.monotonic() - began, dict(sizes))
        return self._last


def _forget_failure(task: "asyncio.Task[Checked]") -> None:
    # The age of the last check tells of it; the next scrape tries again.
    if not task.cancelled():
        task.exception()


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """With the admin key, or COPE_METRICS_OPEN, the money of every project too. A wrong key is refused."""
    counts: Counter[int] = request.app.state.counts
    lines = ["# TYPE cope_api_requests_total counter"]
    lines += [f'cope_api_requests_total{{status="{status}"}} {count}' for status, count in sorted(counts.items())]
    if parts_of(request).settings.metrics_open or "authorization" in request.headers:
        parts = parts_of(request) if parts_of(request).settings.metrics_open else await admin_of(request)
        checks: LedgerChecks = request.app.state.ledger_checks
        now_s = parts.clock.now().timestamp()
        lines += _money(await parts.store.standings(), await checks.latest(), now_s=now_s)
        lines += _webhooks(await parts.store.webhook_backlog(), now_s=now_s)
        lines += retention_gauges(await parts.store.retention_report(), now_s=now_s)
    else:
        lines.append("# money: scrape with the admin key as bearer token, or set COPE_METRICS_OPEN=true")
    return Response("\n".join(lines) + "\n", media_type=_TEXT)


def _money(standings: Sequence[Standing], checked: Checked, *, now_s: float) -> Iterable[str]:
    """Nano-dollars are whole numbers; a scraper that keeps them as doubles is exact up to nine million dollars."""
    budgets = [(_labels(standing), standing.budget) for standing in standings]
    yield from _gauge(
        "cope_budget_cap_nanousd",
        "This month's cap; no sample where there is none.",
        [(labels, budget.cap) for labels, budget in budgets if budget.cap is not None],
    )
    for name in ("spent", "reserved", "overrun"):
        samples = [(labels, getattr(budget, name)) for labels, budget in budgets]
        yield from _gauge(f"cope_budget_{name}_nanousd", f"This month's {name}.", samples)
    yield from _gauge(
        "cope_budget_unconfirmed_nanousd",
        "This month's reserves whose outcome nobody knows.",
        [(labels, budget.unconfirmed) for labels, budget in budgets],
    )
    own = [(f'project="{standing.budget.project_id}"', standing) for standing in standings]
    yield from _gauge("cope_unconfirmed_nanousd", "The same of all months.", [(p, s.unconfirmed) for p, s in own])
    yield from _gauge("cope_unconfirmed_attempts", "Attempts in doubt.", [(p, s.unconfirmed_attempts) for p, s in own])
    yield from _gauge(
        "cope_oldest_unconfirmed_age_seconds",
        "Since the oldest of them was sent; 0 where there is none.",
        [(p, 0 if s.oldest_sent_at is None else max(0, int(now_s - s.oldest_sent_at.timestamp()))) for p, s in own],
    )
    yield from _gauge(
        "cope_ledger_difference_nanousd",
        "By how much budgets differ from what the ledger adds up to: must be 0.",
        [(p, checked.sizes.get(s.budget.project_id, 0)) for p, s in own],
    )
    age = max(0, int(time.monotonic() - checked.at_s))
    yield from _gauge("cope_ledger_check_age_seconds", "How old that comparison is.", [("", age)])


def _webhooks(backlog: WebhookBacklog, *, now_s: float) -> Iterable[str]:
    oldest_s = 0 if backlog.oldest_due_at is None else max(0, int(now_s - backlog.oldest_due_at.timestamp()))
    for name, about, value in (
        ("cope_webhook_deliveries_pending", "Not delivered and not given up; counted up to 100,000.", backlog.pending),
        ("cope_webhook_deliveries_due", "Those of them that are due now; counted up to 100,000.", backlog.due),
        ("cope_webhook_oldest_due_age_seconds", "How long the first of these has been due.", oldest_s),
        ("cope_webhook_deliveries_sending", "Being sent now.", backlog.sending),
        (
            "cope_webhook_lanes_failing",
            "Endpoints, or hosts of batches' own addresses, that failed last.",
            backlog.failing,
        ),
        ("cope_webhook_lanes_left_alone", "Those of them that asked for a pause.", backlog.blocked),
        ("cope_webhook_endpoints_disabled", "Endpoints that are told nothing more.", backlog.disabled),
    ):
        yield from _gauge(name, about, [("", value)])


def _labels(standing: Standing) -> str:
    return f'project="{standing.budget.project_id}",month="{standing.budget.month}"'


def _gauge(name: str, about: str, samples: Iterable[tuple[str, int]]) -> Iterable[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} gauge"
    yield from (f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in samples)
