"""One attacked server for each process of the tests that attack it."""

import asyncio
import contextlib
import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn
from cryptography.fernet import Fernet
from pydantic import SecretStr

from cope.adapters.http_webhooks import HttpWebhookSender
from cope.adapters.local_files import LocalFiles
from cope.adapters.memory import MemoryWakeUp
from cope.adapters.postgres import PostgresApiStore, PostgresWorkerStore
from cope.adapters.postgres.migrate import upgrade
from cope.adapters.system import SystemClock, SystemIds
from cope.bootstrap import ApiParts
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import Price, parse_usd
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.logs import GuardedFormatter
from cope.settings import Settings
from cope_api.app import create_app
from cope_local.children import free_port
from cope_local.postgres import EmbeddedPostgres
from tests.attacks.place import ADMIN, CANARY, Attacked, Victim
from tests.contracts.world import pages
from tests.postgres.conftest import Place, drop_place, make_place
from tests.support import NOON, make_new_task, make_problem, make_spec

PRICE = Price("p", "2024-01", parse_usd("2.5"), parse_usd("1.25"), parse_usd("10"), NOON.replace(year=2024))
SECRET_KEY = Fernet.generate_key().decode()


@pytest.fixture(scope="session")
def attacked(postgres_cluster: EmbeddedPostgres, scratch: Path) -> Iterator[Attacked]:
    """The API with short patience and small limits, a victim with rows of every kind, and an attacker with a key."""
    place = make_place(postgres_cluster, "cope_attacks")
    upgrade(place.owner)
    with _served(place, scratch / "attacked") as served:
        yield replace(served, victim=_victim(served))
    drop_place(postgres_cluster, "cope_attacks")


@contextlib.contextmanager
def _served(place: Place, folder: Path) -> Iterator[Attacked]:
    settings = Settings(
        admin_key=SecretStr(ADMIN), broker_url="", max_file_bytes=200_000, max_file_lines=1000, max_line_bytes=10_000,
        body_idle_s=0.7, hsts_s=60,
    )  # fmt: skip
    small = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 4096)
    large = ModelEntry("large", "large", "http://localhost/v1", Tier.LARGE, "instruct", 4096, price_id="p")
    unpriced = replace(large, name="unpriced", price_id="none")

    async def opened(resources: contextlib.AsyncExitStack) -> ApiParts:
        store = PostgresApiStore(place.api, secret_key=SECRET_KEY)
        await store.open()
        resources.push_async_callback(store.aclose)
        webhooks = HttpWebhookSender()
        resources.push_async_callback(webhooks.aclose)
        return ApiParts(
            settings=settings,
            store=store,
            files=LocalFiles(folder),
            wake=MemoryWakeUp(),
            catalog=ModelCatalog({"small": small, "large": large, "unpriced": unpriced}, "small", "large", BUILT_IN),
            prices=PriceTable([PRICE]),
            clock=SystemClock(),
            ids=SystemIds(),
            webhooks=webhooks,
        )

    app, port, log = create_app(opened), free_port(), io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(GuardedFormatter(settings.secrets))
    logging.getLogger().addHandler(handler)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, log_level="warning", server_header=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    folder.mkdir(parents=True, exist_ok=True)
    yield Attacked(port, app, place, folder, log)
    server.should_exit = True
    thread.join()
    logging.getLogger().removeHandler(handler)


def _victim(served: Attacked) -> Victim:
    project, key = _project(served, f"{CANARY}-project")
    other, attacker = _project(served, "attacker")
    # Not the key that the tests speak with: some of them rotate it.
    ids = {"project_id": project, "key_id": _key(served, project, CANARY)[0], "file_id": _upload(served, key)}

    def made(path: str, body: dict[str, object], *, by: str = key) -> str:
        answer = served.send("POST", path, json.dumps(body).encode(), key=by)
        assert answer.status == 200, answer.body
        return str(answer.json["id"])

    ids["endpoint_id"] = made("/v1/webhook_endpoints", {"name": CANARY, "url": f"https://{CANARY}.example.com/x"})
    ids["alert_id"] = made(f"/v1/organization/projects/{project}/spend_alerts", {"threshold_amount": 5}, by=ADMIN)
    made("/v1/usage", {"amount_usd": "0.5", "description": CANARY})
    batch = {"input_file_id": ids["file_id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    ids["batch_id"] = made("/v1/batches", {**batch, "metadata": {"team": CANARY}, "cope": {"max_cost_usd": "1"}})
    ids["task_id"] = asyncio.run(_tasks(served.databases.worker))
    return Victim(ids, key, attacker, other)


def _project(served: Attacked, name: str) -> tuple[str, str]:
    made = served.send("POST", "/v1/organization/projects", json.dumps({"name": name}).encode(), key=ADMIN).json
    return made["id"], _key(served, made["id"], f"{name}-key")[1]


def _key(served: Attacked, project: str, name: str) -> tuple[str, str]:
    path = f"/v1/organization/projects/{project}/service_accounts"
    account = served.send("POST", path, json.dumps({"name": name}).encode(), key=ADMIN).json
    return account["id"], account["api_key"]["value"]


def _upload(served: Attacked, key: str) -> str:
    form = (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="' + CANARY.encode() + b'.jsonl"\r\n\r\n'
        b'{"custom_id": "' + CANARY.encode() + b'"}\n\r\n--b--\r\n'
    )
    kind = [("content-type", "multipart/form-data; boundary=b")]
    return str(served.send("POST", "/v1/files", form, key=key, headers=kind).json["id"])


async def _tasks(url: str) -> str:
    """The victim's batch in progress with a task of its own, and events in its feed."""
    store = PostgresWorkerStore(url, secret_key=SECRET_KEY)
    await store.open()
    try:
        job = await store.claim_validation(lease_s=30)
        assert job is not None
        row = make_new_task(1, queue="large", custom_id=CANARY, spec=make_spec(make_problem(f"{CANARY} + 1?")))
        await store.ingest(job, pages([row]), model=lambda: "cope", expires_in=timedelta(days=1))
        await store.sweep(lease_s=30)
        return str(row.task_id)
    finally:
        await store.aclose()
