"""The API as one application: `create_app` over any parts, real or in memory."""

import asyncio
import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.errors import NotFound
from cope.core.ids import PROJECT, ProjectId
from cope.core.records import Project
from cope.core.request_policy import SELECTABLE
from cope.core.webhooks import make_secret
from cope.usecases.watch_prices import reread_or_go_on, unpriced, watch_prices
from cope_api import (
    admin,
    audits,
    batches,
    costs,
    dead_letters,
    docs,
    doctor,
    doubt,
    event_consumers,
    events,
    failures,
    files,
    keys,
    ledger_export,
    life_cycle,
    limits,
    live,
    metrics,
    prices,
    receipts,
    responses,
    restored,
    results,
    retention,
    spend_alerts,
    spend_limits,
    usage,
    waiting,
    webhook_deliveries,
    webhooks,
)
from cope_api.context import Gate, list_body, parts_of, project_of
from cope_api.failures import json_response
from cope_api.guard import Guard

logger = logging.getLogger(__name__)
router = APIRouter()


def create_app(open_parts: Callable[[contextlib.AsyncExitStack], Awaitable[ApiParts]]) -> FastAPI:
    """The application. `open_parts` makes the parts in the loop that serves; the stack given to it closes them."""
    counts: Counter[int] = Counter()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as resources:
            parts = await open_parts(resources)
            app.state.parts, app.state.gate, app.state.waiter = parts, Gate(parts), live.LiveWaiter(parts)
            app.state.ledger_checks = metrics.LedgerChecks(parts)
            app.state.event_feed = await events.open_feed(parts, resources)
            await _ensure_project(parts)
            await reread_or_go_on(parts.store, parts.prices)
            for missing in unpriced(parts.catalog, parts.prices, parts.clock.now()):
                logger.warning("%s", missing)
            app.state.batch_waiter = waiting.BatchWaiter(parts)
            app.state.waiter.also(app.state.batch_waiter.hear)
            waiter = asyncio.create_task(app.state.waiter.run())
            batch_waiter = asyncio.create_task(app.state.batch_waiter.run())
            watcher = asyncio.create_task(watch_prices(parts, lambda: False))
            await parts.wake.poke("upkeep")  # connects to the broker now, not under the first batch
            yield
            waiter.cancel()
            batch_waiter.cancel()
            watcher.cancel()
            await asyncio.gather(waiter, batch_waiter, watcher, return_exceptions=True)

    app = FastAPI(
        title="COPE",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # a redirect would repeat the caller's Host header
    )
    failures.install(app)
    money = (
        *(prices, spend_limits, spend_alerts, limits, usage),
        *(costs, receipts, ledger_export, doubt, metrics),
    )
    log = (events, event_consumers, dead_letters, webhook_deliveries)
    work = (files, retention, batches, life_cycle, results, waiting, live, responses, webhooks, audits)
    parts = (docs, *work, admin, keys, restored, doctor, *log, *money)
    app.state.routers = [router, *(module.router for module in parts)]
    for part in app.state.routers:
        app.include_router(part)
    app.state.counts = counts
    app.add_middleware(Guard, counts=counts)
    return app


async def _ensure_project(parts: ApiParts) -> None:
    """The project that the bootstrap key belongs to, made at the first start."""
    key = parts.settings.bootstrap_api_key.get_secret_value()
    if not key:
        return
    secret = parts.settings.bootstrap_webhook_secret.get_secret_value() or make_secret(parts.ids.secret(32))
    # The id follows from the key, so that processes that start together make one project, not one each.
    digest = hashlib.sha256(key.encode()).hexdigest()
    project = Project(
        id=ProjectId(f"{PROJECT}{digest[:26]}"),
        name="default",
        created_at=parts.clock.now(),
        time_zone="UTC",
        cap=parts.settings.default_cap,
        default_kind="math",
        paused=False,
    )
    await parts.store.ensure_project(project, keys.make_key(parts, project.id, "bootstrap", key), secret)


@router.get("/health")
async def health() -> Response:
    """The process is alive."""
    return json_response({"status": "ok"})


@router.get("/ready")
async def ready(request: Request) -> Response:
    """The database answers and its schema is this version's."""
    await parts_of(request).store.ping()
    return json_response({"status": "ok"})


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """What `model` may name: policies, and the configured models."""
    parts, _, _ = await project_of(request)
    names = [*SELECTABLE, *sorted(parts.catalog.entries)]
    return json_response(
        list_body([{"id": n, "object": "model", "created": 0, "owned_by": "cope"} for n in names], has_more=False)
    )


@router.get("/v1/models/{name:path}")
async def model(request: Request, name: str) -> Response:
    """One of them."""
    parts, _, _ = await project_of(request)
    if name not in SELECTABLE and name not in parts.catalog.entries:
        raise NotFound(f"There is no model {name!r}.", code="model_not_found")
    return json_response({"id": name, "object": "model", "created": 0, "owned_by": "cope"})
