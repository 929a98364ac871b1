"""An API over the in-memory store, with a world to spend money in, and the command line against it."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from click.testing import Result
from openai import OpenAI
from pydantic import SecretStr
from typer.testing import CliRunner

from cope.adapters.memory import MemoryFiles, MemoryWakeUp, RecordingWebhookSender
from cope.bootstrap import ApiParts
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import Price, parse_usd
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.records import ApiKey, Project
from cope.core.stages import Tier
from cope.settings import Settings
from cope_api.app import create_app
from cope_cli.main import app
from cope_local.children import free_port
from tests import support
from tests.contracts.world import MemoryWorld, bill, done, large_step

ADMIN = "cope-admin-of-the-reports"
PRICE = Price("p", "2026-11-01", parse_usd("2.5"), parse_usd("1.25"), parse_usd("10"), support.NOON.replace(year=2025))


@dataclass(frozen=True)
class Place:
    """Where it serves, and what lies behind it."""

    url: str
    world: MemoryWorld

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Something in the store; the server is idle meanwhile."""
        return asyncio.run(work)

    def client(self, secret: str = ADMIN) -> OpenAI:
        """The stock client, with that key as both of its keys."""
        return OpenAI(base_url=self.url, api_key=secret, admin_api_key=secret, max_retries=0)

    def get(self, path: str, secret: str = ADMIN, **query: str) -> Any:
        """An answer as plain JSON."""
        with self.client(secret) as client:
            return client.get(path, cast_to=object, options={"params": query})

    def cli(self, *arguments: str, secret: str = "", admin: bool = True) -> Result:
        """The command line's output and exit code."""
        keys = ["--api-key", secret] if secret else []
        keys += ["--admin-key", ADMIN] if admin else []
        return CliRunner().invoke(app, ["--base-url", self.url, *keys, *arguments], env={"COLUMNS": "160"})

    async def project(self, name: str, *, time_zone: str = "UTC") -> tuple[Project, ApiKey, str]:
        """A project with a key and the key's secret."""
        project = await self.world.project(name=name, time_zone=time_zone)
        secret = f"sk-{project.id}"
        return project, await self.world.key(project, secret=secret), secret

    async def paid(
        self, project: Project, cost: int, *, key: ApiKey | None = None, step: str = "stage3", overrun: int = 0
    ) -> tuple[str, str]:
        """A batch of one line that has cost something; the batch's id and the call's request id."""
        batch = await self.world.batch(project, 1, queue="large", key_id=None if key is None else key.id)
        task = await self.world.claim_one("large")
        granted = await self.world.send(task, 2_000_000, step=step)
        settled = bill(granted, cost, overrun=overrun)
        await self.world.commit(done(task, step=large_step(cost, name=step), bills=(settled,)))
        await self.world.api.update_project(project.id, paused=False)
        return batch.id, f"{task.task_id}-{task.fence:06d}-000x"

    async def doubtful(self, project: Project, amount: int) -> str:
        """A call whose worker died, over by now; its request id."""
        await self.world.batch(project, 1, queue="large")
        task = await self.world.claim_one("large", lease_s=30)
        await self.world.send(task, amount)
        await self.world.advance(31)
        await self.world.sweep()
        for ready in await self.world.claim("large"):
            await self.world.commit(done(ready, step=large_step()))
        await self.world.advance(1_000)
        return f"{task.task_id}-{task.fence:06d}-000x"


@contextlib.contextmanager
def serving(*, metrics_open: bool = False) -> Iterator[Place]:
    """A fresh one."""
    world = MemoryWorld()
    large = ModelEntry("large", "large", "http://localhost/v1", Tier.LARGE, "instruct", 4096, price_id="p")
    small = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 4096)
    parts = ApiParts(
        settings=Settings(admin_key=SecretStr(ADMIN), broker_url="", metrics_open=metrics_open, max_file_bytes=500_000),
        store=world.store,
        files=MemoryFiles(),
        wake=MemoryWakeUp(),
        catalog=ModelCatalog({"small": small, "large": large}, "small", "large", BUILT_IN),
        prices=PriceTable([PRICE]),
        clock=world.clock,
        ids=support._ids,
        webhooks=RecordingWebhookSender(),
    )

    async def opened(_: contextlib.AsyncExitStack) -> ApiParts:
        return parts

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(opened), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Place(f"http://127.0.0.1:{port}/v1", world)
    finally:
        server.should_exit = True
        thread.join()
