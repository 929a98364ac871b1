"""The API over in-memory parts, with a sequencer in its own loop, as workers run one beside it."""

import asyncio
import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from cope.adapters.memory import (
    FixedClock,
    MemoryFiles,
    MemoryStore,
    MemoryWakeUp,
    RecordingWebhookSender,
    SequentialIds,
)
from cope.bootstrap import ApiParts
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.settings import Settings
from cope_api.app import create_app
from cope_local.children import free_port

KEY = "cope-sk-of-the-event-tests"


@dataclass
class EventsPlace:
    """A served API whose project's log grows by `grow`."""

    url: str
    store: MemoryStore
    app: FastAPI
    made: list[str] = field(default_factory=list)

    def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """(status, JSON, headers)."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header("authorization", f"Bearer {KEY}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read()), {k.lower(): v for k, v in answer.headers.items()}
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.loads(refused.read()), dict(refused.headers)

    def grow(self, events: int = 1) -> None:
        """So many events more: new webhook endpoints."""
        for number in range(events):
            url = f"https://hooks.example.com/{len(self.made)}/{number}"
            status, made, _ = self.call("POST", "/webhook_endpoints", {"url": url})
            assert status == 200
            self.made.append(made["id"])

    def head(self, at_least: int = 0) -> int:
        """The log's end, once it has come that far."""
        deadline = time.monotonic() + 10
        while True:
            head = int(self.call("GET", "/events?limit=1")[1]["head"])
            if head >= at_least:
                return head
            assert time.monotonic() < deadline
            time.sleep(0.02)


def make_parts(store: MemoryStore, clock: FixedClock, ids: SequentialIds) -> ApiParts:
    small = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 4096)
    large = ModelEntry("large", "large", "http://localhost/v1", Tier.LARGE, "instruct", 4096, price_id="p")
    return ApiParts(
        settings=Settings(bootstrap_api_key=SecretStr(KEY), broker_url=""),
        store=store,
        files=MemoryFiles(),
        wake=MemoryWakeUp(),
        catalog=ModelCatalog({"small": small, "large": large}, "small", "large", BUILT_IN),
        prices=PriceTable([]),
        clock=clock,
        ids=ids,
        webhooks=RecordingWebhookSender(),
    )


@contextlib.contextmanager
def events_place() -> Iterator[EventsPlace]:
    """For as long as a `with` lasts."""
    clock, ids = FixedClock(), SequentialIds()
    store = MemoryStore(clock, ids)

    async def opened(resources: contextlib.AsyncExitStack) -> ApiParts:
        async def sequence() -> None:
            while True:
                await store.sequence_events()
                await asyncio.sleep(0.02)

        task = asyncio.create_task(sequence())
        resources.callback(task.cancel)
        return make_parts(store, clock, ids)

    port = free_port()
    app = create_app(opened)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield EventsPlace(f"http://127.0.0.1:{port}/v1", store, app)
    server.should_exit = True
    thread.join()
