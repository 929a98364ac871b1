"""The whole service in one process: the API on a loopback port, workers, upkeep and the sweep, over the shipped
in-memory store. What the models say is decided by words in the prompt.

All of it runs in the server's own event loop, since the memory store belongs to one loop.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import uvicorn
from pydantic import SecretStr

from cope.adapters.answer_helper import in_process_judge
from cope.adapters.memory import MemoryFiles, MemoryLimiter, MemoryStore, RecordingWebhookSender, ScriptedModel
from cope.adapters.memory.model import Script
from cope.adapters.system import SystemClock, SystemIds
from cope.bootstrap import ApiParts
from cope.core.ids import TaskId
from cope.core.keeping import Keeping
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import Price, TokenUsage, parse_usd
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.ports.answers import AnswerJudge
from cope.ports.model import ChatAnswer, ChatRequest
from cope.ports.provider_batches import ProviderBatchStore
from cope.ports.store import ApiStore
from cope.settings import Settings
from cope.usecases.deliver_webhooks import Courier
from cope.usecases.drain import Drainer
from cope.usecases.retention import Retention
from cope.usecases.upkeep import Upkeep
from cope_api.app import create_app
from cope_local.children import free_port
from tests.support import NOON

KEY, ADMIN = "cope-sk-of-the-tests", "cope-admin-of-the-tests"
PRICE = Price("p", "2024-01", parse_usd("2.5"), parse_usd("1.25"), parse_usd("10"), NOON.replace(year=2024))
USAGE = TokenUsage(prompt=20, completion=10, calls=1)
LEASE_S = 30.0


@dataclass
class Told:
    """What a test may tell the models while they run: prompts with `slow` in them wait for `go_on`."""

    go_on: threading.Event = field(default_factory=threading.Event)

    async def answer(self, request: ChatRequest) -> ChatAnswer:
        """`slow` waits, `cut` runs into the output limit, `never` never agrees, else everybody says 5."""
        asked = " ".join(message.content for message in request.messages)
        while "slow" in asked and not self.go_on.is_set():
            await asyncio.sleep(0.02)
        reason = "length" if "cut" in asked else "stop"
        if "never" in asked:
            text = "\\boxed{9}" if request.model.name == "large" else f"\\boxed{{{request.request_id[-4:-1]}}}"
            return ChatAnswer(text, reason, USAGE, "id")
        return ChatAnswer("The answer is \\boxed{5}", reason, USAGE, "id")


class LocalWakeUp:
    """Wakes the loops of this process."""

    def __init__(self) -> None:
        self.loops: dict[str, Callable[[], None]] = {}

    async def poke(self, queue: str) -> None:
        """Nobody may listen."""
        self.loops.get(queue, lambda: None)()

    async def announce(self, task_ids: Sequence[TaskId]) -> None:
        """The API polls."""


@dataclass(frozen=True)
class WorkerParts:
    store: ProviderBatchStore
    files: MemoryFiles
    wake: LocalWakeUp
    limiter: MemoryLimiter
    model: ScriptedModel
    judge: AnswerJudge
    catalog: ModelCatalog
    prices: PriceTable
    clock: SystemClock
    ids: SystemIds
    webhooks: RecordingWebhookSender


Stores = Callable[[contextlib.AsyncExitStack], Awaitable[tuple[ApiStore, ProviderBatchStore]]]


@dataclass(frozen=True)
class Whole:
    """A running service."""

    url: str
    api: ApiParts
    told: Told
    webhooks: RecordingWebhookSender


@contextlib.contextmanager
def whole_service(stores: "Stores | None" = None, says: Script | None = None, **settings: object) -> Iterator[Whole]:
    """For as long as a `with` lasts. The base URL ends in /v1. `stores` opens others than the one in memory, `says` are
    other models than those of `Told`."""
    api, worker, told = _parts(settings, says)

    async def opened(resources: contextlib.AsyncExitStack) -> ApiParts:
        works, serves = worker, api
        if stores is not None:
            for_api, for_worker = await stores(resources)
            works, serves = replace(worker, store=for_worker), replace(api, store=for_api)
        await resources.enter_async_context(_working(works))
        return serves

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(opened), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Whole(f"http://127.0.0.1:{port}/v1", api, told, worker.webhooks)
    finally:
        told.go_on.set()
        server.should_exit = True
        thread.join()


def _parts(settings: dict[str, object], says: Script | None = None) -> tuple[ApiParts, WorkerParts, Told]:
    clock, ids, told = SystemClock(), SystemIds(), Told()
    small = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "reference", 4096)
    large = ModelEntry("large", "large", "http://localhost/v1", Tier.LARGE, "reference", 4096, price_id="p")
    store = MemoryStore(clock, ids)
    worker = WorkerParts(
        store=store,
        files=MemoryFiles(),
        wake=LocalWakeUp(),
        limiter=MemoryLimiter(clock, {}),
        model=ScriptedModel(says or told.answer),
        judge=in_process_judge(),
        catalog=ModelCatalog({"small": small, "large": large}, "small", "large", BUILT_IN),
        prices=PriceTable([PRICE]),
        clock=clock,
        ids=ids,
        webhooks=RecordingWebhookSender(refused={"https://10.0.0.1/": "10.0.0.1 is not a public address"}),
    )
    api = ApiParts(
        settings=Settings(admin_key=SecretStr(ADMIN), bootstrap_api_key=SecretStr(KEY), broker_url="", **settings),  # type: ignore[arg-type]
        store=store,
        files=worker.files,
        wake=worker.wake,
        catalog=worker.catalog,
        prices=worker.prices,
        clock=clock,
        ids=ids,
        webhooks=worker.webhooks,
    )
    return api, worker, told


@contextlib.asynccontextmanager
async def _working(parts: WorkerParts) -> AsyncIterator[None]:
    over = False

    def stopping() -> bool:
        return over

    drainers = [Drainer(parts, queue=q, worker="w", concurrency=64, lease_s=LEASE_S) for q in ("small", "large")]  # type: ignore[arg-type]
    upkeep, courier = Upkeep(parts, lease_s=LEASE_S), Courier(parts, timeout_s=5)
    parts.wake.loops.update(small=drainers[0].poke, large=drainers[1].poke, upkeep=upkeep.poke, webhooks=courier.poke)

    async def sweep() -> None:
        while not over:
            await parts.store.sweep(lease_s=LEASE_S)
            await asyncio.sleep(0.05)

    loops = [part.run(stopping) for part in (*drainers, upkeep, courier, Retention(parts, Keeping()))]
    running = [asyncio.create_task(loop) for loop in (*loops, sweep())]
    try:
        yield
    finally:
        over = True
        await asyncio.wait_for(asyncio.gather(*running), 30)
