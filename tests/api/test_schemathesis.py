"""Schemathesis against the API's own OpenAPI document: no 5xx, every answer as described, wrong input refused.

Deterministic cases for every endpoint, then random ones for the time that is left. A longer run, or another seed:

    COPE_FUZZ_S=900 COPE_FUZZ_SEED=7 python -m pytest tests/api/test_schemathesis.py -s

With COPE_FUZZ_STORE=postgres the store is a real Postgres under its three roles instead of the one in memory.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from openai import OpenAI

from cope.adapters.postgres.api_store import PostgresApiStore
from cope.adapters.postgres.worker_store import PostgresWorkerStore
from cope.ports.provider_batches import ProviderBatchStore
from cope.ports.store import ApiStore
from tests.api.whole import ADMIN, KEY, PRICE, Stores, Whole, whole_service
from tests.contracts.conftest import migrated

SECONDS = int(os.environ.get("COPE_FUZZ_S", "30"))
STORE = os.environ.get("COPE_FUZZ_STORE", "memory")
SEED = os.environ.get("COPE_FUZZ_SEED", "4")
# What is valid can't all be said in a schema (an id must exist, choices belong to kind `choice`): 400 is an answer.
LEFT_OUT = "positive_data_acceptance"
PROJECT = "/v1/organization/projects/{project_id}"
# A project that is paused, archived or without money lets a live call wait: only one that nobody calls with may be.
ONLY_OTHERS = (
    f"POST {PROJECT}",
    f"POST {PROJECT}/archive",
    f"POST {PROJECT}/spend_limit",
    f"POST {PROJECT}/api_keys/{{key_id}}/spend_limit",
    f"DELETE {PROJECT}/api_keys/{{key_id}}",
)


@pytest.fixture
def stores(request: pytest.FixtureRequest) -> Iterator[Stores | None]:
    if STORE != "postgres":
        yield None
        return
    key = Fernet.generate_key().decode()
    with contextlib.contextmanager(migrated)(request.getfixturevalue("postgres_cluster"), "cope_fuzz") as urls:

        async def opened(resources: contextlib.AsyncExitStack) -> tuple[ApiStore, ProviderBatchStore]:
            api = PostgresApiStore(urls.api, secret_key=key)
            worker = PostgresWorkerStore(urls.worker, secret_key=key)
            for store in (api, worker):
                await store.open()
                resources.push_async_callback(store.aclose)
            await worker.put_prices([PRICE])
            return api, worker

        yield opened


@pytest.mark.timeout(2 * SECONDS + 120)
def test_every_endpoint_answers_as_described_whatever_it_is_sent(tmp_path: Path, stores: Stores | None) -> None:
    with whole_service(stores, default_cap_usd="unlimited") as service:
        service.told.go_on.set()
        config = tmp_path / "schemathesis.toml"
        config.write_text(settings(known_ids(service)))
        run = subprocess.run(
            [
                str(Path(sys.executable).with_name("st")),
                *("--config-file", str(config), "run", service.url.removesuffix("/v1") + "/openapi.json"),
                *("--seed", SEED, "--max-time", str(SECONDS), "--max-examples", str(max(4, SECONDS // 8))),
                *("--phases", "examples,coverage,fuzzing", "--exclude-checks", LEFT_OUT, "--warnings", "off"),
                *("--continue-on-failure", "--no-shrink", "--no-color", "--request-timeout", "20"),
                *("--generation-database", "none"),
            ],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    print(run.stdout[-6000:])
    assert run.returncode == 0, f"schemathesis found something (seed {SEED}):\n{run.stdout}\n{run.stderr}"
    assert "Tested" in run.stdout


def known_ids(service: Whole) -> dict[str, list[str]]:
    """Things that exist, several of each since some are deleted on the way: without them nearly all would be a 404."""
    body = {"model": "cope", "messages": [{"role": "user", "content": "2 + 3?"}]}
    row = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body})
    with (
        OpenAI(base_url=service.url, api_key=KEY) as client,
        OpenAI(base_url=service.url, admin_api_key=ADMIN) as admin,
    ):
        files = [client.files.create(file=("in.jsonl", row.encode()), purpose="batch").id for _ in range(6)]
        batches = [
            client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h").id
            for file in files
        ]
        responses = [client.responses.create(model="cope", input="2 + 3?", background=True).id for _ in range(6)]
        endpoints = [client.post("/webhook_endpoints", body={"url": "https://example.com/x"}, cast_to=dict)["id"]]
        projects = [admin.admin.organization.projects.create(name="other").id for _ in range(2)]
        keys = [admin.admin.organization.projects.service_accounts.create(one, name="k").id for one in projects]
        while any(client.batches.retrieve(batch).status != "completed" for batch in batches):
            time.sleep(0.05)
        held = held_batches(client, service)
        outputs = [client.batches.retrieve(batch).output_file_id or "" for batch in batches]
    tasks = [f"task_{response.removeprefix('resp_')}" for response in responses]
    return {
        "path.file_id": files + outputs,
        "path.batch_id": batches + held,
        "path.task_id": tasks,
        "path.response_id": responses,
        "path.endpoint_id": endpoints,
        "path.project_id": [*projects, "me"],
        "path.key_id": keys,
        "path.name": ["cope", "small"],
        "path.month": [time.strftime("%Y-%m", time.gmtime())],
        "query.batch_id": batches,
        "query.project_id": projects,
        "body.input_file_id": files,
    }


def held_batches(client: OpenAI, service: Whole) -> list[str]:
    """Batches that wait for a slow model, and so can be held and cancelled. Until the run ends, its models are slow."""
    service.told.go_on.clear()
    body = {"model": "small", "messages": [{"role": "user", "content": "slow"}]}
    row = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body})
    file = client.files.create(file=("in.jsonl", row.encode()), purpose="batch").id
    return [
        client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h").id
        for _ in range(6)
    ]


def settings(known: dict[str, list[str]]) -> str:
    """The configuration: both keys, and by which chance a known id is taken instead of a random one."""
    lines = [f'[auth.openapi.project_key]\nbearer = "{KEY}"', f'[auth.openapi.admin_key]\nbearer = "{ADMIN}"']
    lines += [f"[dictionaries.{name.replace('.', '_')}]\nvalues = {json.dumps(ids)}" for name, ids in known.items()]
    lines.append("[parameters]")
    lines += [f'"{name}" = {{ dictionary = "{name.replace(".", "_")}", probability = 0.6 }}' for name in known]
    for name in ONLY_OTHERS:
        other = known["path.project_id"][0]
        lines.append(f'[[operations]]\ninclude-name = "{name}"\nparameters = {{ "path.project_id" = "{other}" }}')
    # What waits for its time to pass is asked not to: its bounds are tested where they are.
    lines.append(
        '[[operations]]\ninclude-name = "GET /v1/batches/{batch_id}/wait"\nparameters = { "query.timeout" = 1 }'
    )
    return "\n".join(lines) + "\n"
