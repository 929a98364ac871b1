"""COPE as its own provider: one project's escalations go through the Batch API of another project, at half its price.

The same stack is both: the customer's large model is the stack's own address, and what is sent there is a batch of
plain calls to the reference large model.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from openai import OpenAI

from cope_local.children import free_port
from cope_local.stack import REFERENCE_LARGE, REFERENCE_SMALL, Stack, weights_folder

pytestmark = [pytest.mark.integration, pytest.mark.e2e, pytest.mark.timeout(300)]

_LINES = 16
_MODELS = """
[[model]]
name = "small"
served_name = "{small}"
base_url = "http://127.0.0.1:{small_port}/v1"
tier = "small"
context_length = 1024
prompt_set = "reference"

[[model]]
name = "plain"
served_name = "{large}"
base_url = "http://127.0.0.1:{large_port}/v1"
tier = "paid"
context_length = 1024
prompt_set = "reference"
price_id = "gpt-4o-2024-08-06"

[[model]]
name = "gathered"
served_name = "plain"
base_url = "{own}"
api_key_env = "OWN_KEY"
tier = "paid"
context_length = 1024
prompt_set = "reference"
price_id = "gpt-4o-2024-08-06"
batch_tier = true
batch_min = 4
batch_max_wait_s = 1
batch_turnaround_s = 3600
batch_poll_s = 0.5
"""


@pytest.fixture(scope="module")
def stack(scratch: Path) -> Iterator[Stack]:
    folder = scratch / "own-tier"
    folder.mkdir()
    ports = {"small": free_port(), "large": free_port()}
    servers = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cope_reference",
                "--model",
                f"{name}={weights_folder() / side}",
                "--port",
                str(port),
            ]
        )
        for (side, port), name in zip(ports.items(), (REFERENCE_SMALL, REFERENCE_LARGE), strict=True)
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")}
    environment |= {
        "COPE_EMBEDDED_ONLY": "1",
        "COPE_LEASE_S": "3",
        "COPE_SWEEP_S": "0.25",
        "COPE_MODELS_FILE": str(folder / "models.toml"),
    }
    environment.pop("DATABASE_URL", None)
    port = free_port()
    running = Stack(folder / "stack", port=port, environment=environment)
    running._environment["OWN_KEY"] = running.secrets.api_key
    (folder / "models.toml").write_text(
        _MODELS.format(
            small=REFERENCE_SMALL,
            large=REFERENCE_LARGE,
            small_port=ports["small"],
            large_port=ports["large"],
            own=running.base_url,
        )
    )
    over = threading.Event()
    try:
        running.start()
        watcher = threading.Thread(target=running.run_until, args=(over.is_set,))
        watcher.start()
        yield running
        over.set()
        watcher.join()
    finally:
        running.stop()
        for server in servers:
            server.terminate()
            server.wait()


def customer(stack: Stack) -> OpenAI:
    """A client of a second project."""
    with OpenAI(base_url=stack.base_url, api_key=stack.secrets.admin_key, max_retries=5) as admin:
        project = admin.post("/organization/projects", body={"name": "customer"}, cast_to=object)
        assert isinstance(project, dict)
        account = admin.post(
            f"/organization/projects/{project['id']}/service_accounts", body={"name": "tests"}, cast_to=object
        )
        assert isinstance(account, dict)
    return OpenAI(base_url=stack.base_url, api_key=account["api_key"]["value"], max_retries=5)


def test_escalations_travel_through_our_own_batch_api_and_cost_half(stack: Stack) -> None:
    lines = (weights_folder().parent / "sample_problems.jsonl").read_text().splitlines()[:_LINES]
    requests = [
        {
            "custom_id": f"line-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "cope", "messages": [{"role": "user", "content": json.loads(line)["problem"]}]},
        }
        for number, line in enumerate(lines)
    ]
    with customer(stack) as client:
        file = client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, requests)).encode()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_body={"cope": {"policy": "cope", "large": "gathered", "tau1": "1", "tau2": "1"}},
        )
        submitted: set[str] = set()
        deadline = time.monotonic() + 200
        while batch.status not in {"completed", "failed", "expired", "cancelled"}:
            assert time.monotonic() < deadline, batch.model_dump_json(indent=1)
            page: Any = client.get(f"/batches/{batch.id}/tasks?status=submitted&limit=100", cast_to=object)
            seen = [task["provider_batch"] for task in page["data"]]
            submitted |= {one["id"] for one in seen if one is not None and one["id"] is not None}
            time.sleep(0.2)
            batch = client.batches.retrieve(batch.id)
        assert batch.output_file_id is not None
        output = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert len(output) == _LINES
    steps = [step for line in output for step in line["response"]["body"]["cope"]["steps"]]
    paid = [step for step in steps if step["model"] == "gathered"]
    assert len(paid) > 4

    with psycopg.connect(stack._database_url("cope_worker", stack.secrets.worker)) as conn:
        rows = conn.execute(
            "SELECT model, count(*), sum(cost)::bigint FROM attempts WHERE state = 'settled' GROUP BY model"
        ).fetchall()
        open_ = conn.execute("SELECT count(*) FROM attempts WHERE state <> 'settled'").fetchone()
        ended = conn.execute(
            "SELECT count(*), count(*) FILTER (WHERE state <> 'ended') FROM provider_batches"
        ).fetchone()
    counts = {model: (count, cost) for model, count, cost in rows}
    assert open_ == (0,)
    assert ended is not None
    assert ended[0] >= 1
    assert ended[1] == 0
    assert submitted  # seen with the provider's own id while they waited
    # What the customer paid for the gathered calls is half of what the provider charged for the very same calls.
    assert counts["gathered"][0] == counts["plain"][0] == len(paid)
    assert 2 * counts["gathered"][1] - counts["plain"][1] in range(2 * len(paid) + 1)
