"""Where the parts are joined: settings in, one frozen object of ports out, for the API and for a worker."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from cope.adapters.answer_helper import helper_judge
from cope.adapters.celery_wakeup import CeleryWakeUp, make_celery
from cope.adapters.configured_quotas import ConfiguredQuotas
from cope.adapters.fallback_limiter import FallbackLimiter, SharedLimiter
from cope.adapters.fault_points import FaultPoints, FaultyModel, FaultyWakeUp, FaultyWorkerStore, armed
from cope.adapters.file_places import open_files
from cope.adapters.http_webhooks import HttpWebhookSender
from cope.adapters.live_quotas import LiveQuotas
from cope.adapters.local_limiter import LocalLimiter
from cope.adapters.openai_batches import OpenAIBatches
from cope.adapters.openai_model import OpenAIModel
from cope.adapters.postgres.api_store import PostgresApiStore
from cope.adapters.postgres.limiter import PostgresLimiter
from cope.adapters.postgres.worker_store import PostgresWorkerStore
from cope.adapters.public_addresses import OwnThreads
from cope.adapters.redis_limiter import RedisLimiter
from cope.adapters.sandbox_runner import CodeJudge, SandboxPool, SandboxValues
from cope.adapters.system import SystemClock, SystemIds
from cope.adapters.usage_spool import SqliteSpool
from cope.catalog import load_catalog, load_prices
from cope.core.errors import Conflict, Misconfigured, Unpriced
from cope.core.limits.types import Pace
from cope.core.models import ModelCatalog
from cope.core.prices import PriceTable
from cope.ports.answers import AnswerJudge
from cope.ports.events import EventSink
from cope.ports.files import FileStore
from cope.ports.limiter import Limiter
from cope.ports.model import ChatModel
from cope.ports.provider_batches import BatchProvider, ProviderBatchStore
from cope.ports.quota import ProviderQuotas
from cope.ports.store import ApiStore
from cope.ports.support import Clock, IdMaker, WakeUp, WebhookSender
from cope.ports.usage_spool import UsageSpool
from cope.settings import Settings
from cope.usecases.watch_prices import reread, unpriced

_LONGEST_SLOT_LEASE_S = 20.0


@dataclass(frozen=True, slots=True)
class ApiParts:
    """What the API is made of."""

    settings: Settings
    store: ApiStore
    files: FileStore
    wake: WakeUp
    catalog: ModelCatalog
    prices: PriceTable
    clock: Clock
    ids: IdMaker
    webhooks: WebhookSender
    new_spool: Callable[[], UsageSpool] = SqliteSpool
    live_quotas: ProviderQuotas | None = None

    @property
    def quotas(self) -> ProviderQuotas:
        """What providers allow: as the workers' limiter stands, or as configured where there is none to look at."""
        return self.live_quotas or ConfiguredQuotas(self.catalog)


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What a worker process is made of. Made in the event loop that uses it."""

    settings: Settings
    store: ProviderBatchStore
    files: FileStore
    wake: WakeUp
    limiter: Limiter
    model: ChatModel
    batches: BatchProvider
    judge: AnswerJudge
    catalog: ModelCatalog
    prices: PriceTable
    clock: Clock
    ids: IdMaker
    webhooks: WebhookSender


async def open_api(settings: Settings, resources: contextlib.AsyncExitStack) -> ApiParts:
    """The API's parts; `resources` closes them. Raises `Misconfigured` naming a missing setting."""
    store = PostgresApiStore(settings.need("api_database_url"), secret_key=settings.need("secret_key"), max_size=8)
    await store.open()
    resources.push_async_callback(store.aclose)
    wake = _wake_up(settings, make_celery(settings.broker_url))
    resources.push_async_callback(wake.aclose)
    webhooks = _webhooks(settings, resources)
    catalog, quotas = load_catalog(settings), None
    if settings.broker_url.startswith(("redis://", "rediss://")):
        limiter = RedisLimiter(settings.broker_url, catalog)
        resources.push_async_callback(limiter.aclose)
        quotas = LiveQuotas(catalog, limiter, SystemClock())
    return ApiParts(
        settings=settings,
        store=store,
        files=await _files(settings),
        wake=wake,
        catalog=catalog,
        prices=load_prices(settings),
        clock=SystemClock(),
        ids=SystemIds(),
        webhooks=webhooks,
        live_quotas=quotas,
    )


async def open_worker(settings: Settings, app: Celery, resources: contextlib.AsyncExitStack) -> WorkerParts:
    """A worker process's parts; `resources` closes them. Raises `Misconfigured` naming a missing setting."""
    catalog, prices = load_catalog(settings), load_prices(settings)
    points = _fault_points(settings)
    store = _worker_store(settings, points)
    await store.open()
    resources.push_async_callback(store.aclose)
    try:
        await store.put_prices(prices.rows)
    except Conflict as changed:
        raise Misconfigured(f"The shipped price table or COPE_PRICES_FILE: {changed.message}") from None
    await reread(store, prices)
    for missing in unpriced(catalog, prices, SystemClock().now()):
        raise Unpriced(missing)  # a model without a price in force is refused at the start, not at its first call
    wake = _wake_up(settings, app)
    resources.push_async_callback(wake.aclose)
    model = OpenAIModel()
    resources.push_async_callback(model.aclose)
    batches = OpenAIBatches()
    resources.push_async_callback(batches.aclose)
    sandboxes = SandboxPool(settings.sandbox_processes)
    judge = CodeJudge(helper_judge(programs=SandboxValues(sandboxes)), sandboxes)
    resources.push_async_callback(judge.aclose)
    webhooks = _webhooks(settings, resources)
    limiter = await open_limiter(settings, catalog, resources, database_url=settings.need("worker_database_url"))
    return WorkerParts(
        settings=settings,
        store=store,
        files=await _files(settings),
        wake=wake,
        limiter=limiter,
        model=model if points is None else FaultyModel(points, model),
        batches=batches,
        judge=judge,
        catalog=catalog,
        prices=prices,
        clock=SystemClock(ahead_s=settings.test_clock_offset_s if settings.testing else 0.0),
        ids=SystemIds(),
        webhooks=webhooks,
    )


async def open_limiter(
    settings: Settings, catalog: ModelCatalog, resources: contextlib.AsyncExitStack, *, database_url: str
) -> Limiter:
    """Rate limits in Redis if that is the broker, else or while it is away in Postgres; `resources` closes them."""
    # A dead worker's slots are free by the time that its tasks are: who takes them over is not to wait for a slot.
    pace = Pace(slot_lease_s=min(_LONGEST_SLOT_LEASE_S, settings.lease_s * 2 / 3))
    kept_in: list[tuple[str, SharedLimiter]] = []
    if settings.broker_url.startswith(("redis://", "rediss://")):
        in_redis = RedisLimiter(settings.broker_url, catalog, pace=pace)
        resources.push_async_callback(in_redis.aclose)
        kept_in.append(("redis", in_redis))
    in_postgres = PostgresLimiter(database_url, catalog, pace=pace)
    resources.push_async_callback(in_postgres.aclose)
    await in_postgres.open()
    kept_in.append(("postgres", in_postgres))
    return FallbackLimiter(kept_in, LocalLimiter(catalog, share=1 / settings.large_processes))


def open_event_sink(settings: Settings) -> Callable[[], EventSink] | None:
    """What the event log is relayed to, made anew after each failure; None where no setting names it. Raises
    `Misconfigured` where the client for it is not installed."""
    if not settings.kafka_bootstrap:
        return None
    try:
        from cope.adapters.kafka_sink import KafkaSink
    except ImportError:
        raise Misconfigured(
            "COPE_KAFKA_BOOTSTRAP is set, but the Kafka client is not installed: pip install 'cope-service[kafka]'."
        ) from None
    return lambda: KafkaSink(settings.kafka_bootstrap, settings.kafka_topic, settings.kafka_options)


def _webhooks(settings: Settings, resources: contextlib.AsyncExitStack) -> HttpWebhookSender:
    names = OwnThreads()
    resources.callback(names.close)
    sender = HttpWebhookSender(
        hosts=settings.allowed_webhook_hosts,
        networks=settings.allowed_webhook_networks,
        timeout_s=settings.webhook_timeout_s,
        look_up=names,
    )
    resources.push_async_callback(sender.aclose)
    return sender


def _fault_points(settings: Settings) -> FaultPoints | None:
    return armed(testing=settings.testing, source=settings.fault_point)


def _worker_store(settings: Settings, points: FaultPoints | None) -> PostgresWorkerStore:
    url, secret_key = settings.need("worker_database_url"), settings.need("secret_key")
    if points is None:
        return PostgresWorkerStore(url, secret_key=secret_key, lease_s=settings.lease_s)
    return FaultyWorkerStore(points, url, secret_key=secret_key, lease_s=settings.lease_s)


def _wake_up(settings: Settings, app: Celery) -> CeleryWakeUp:
    points = _fault_points(settings)
    return CeleryWakeUp(app, settings.broker_url) if points is None else FaultyWakeUp(points, app, settings.broker_url)


async def _files(settings: Settings) -> FileStore:
    """Where files lie, tried out: nobody should learn at the first upload that nothing can be kept."""
    files = open_files(settings.files_url, settings.data_dir)
    await files.check()
    return files
