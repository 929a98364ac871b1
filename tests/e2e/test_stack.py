"""The whole service on real Postgres, Redis, Celery and the reference pair, through the unmodified openai client.

One stack for all tests of this file; each brings its own batch. What is killed here is killed with -9.
"""

import json
import os
import signal
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
from openai.types import Batch

from cope.adapters.postgres.money import ledger_difference
from cope_local.children import free_port
from cope_local.sink import WebhookSink
from cope_local.stack import Stack, weights_folder

pytestmark = [pytest.mark.integration, pytest.mark.e2e, pytest.mark.timeout(400)]

TERMINAL = {"completed", "failed", "expired", "cancelled"}


@pytest.fixture(scope="module")
def stack(scratch: Path) -> Iterator[Stack]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COPE_")},
        "COPE_EMBEDDED_ONLY": "1",
        "COPE_LEASE_S": "3",
        "COPE_SWEEP_S": "0.25",
    }
    environment.pop("DATABASE_URL", None)
    running = Stack(scratch / "stack", port=free_port(), environment=environment)
    running.start()
    over = threading.Event()
    watcher = threading.Thread(target=running.run_until, args=(over.is_set,))
    watcher.start()
    yield running
    over.set()
    watcher.join()
    running.stop()


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenAI]:
    with OpenAI(base_url=stack.base_url, api_key=stack.secrets.api_key, max_retries=5) as client:
        yield client


@pytest.fixture
def admin(stack: Stack) -> Iterator[OpenAI]:
    with OpenAI(base_url=stack.base_url, api_key=stack.secrets.admin_key, max_retries=5) as client:
        yield client


def problems(count: int) -> list[dict[str, Any]]:
    lines = (weights_folder().parent / "sample_problems.jsonl").read_text().splitlines()
    sample = [json.loads(line) for line in lines]
    return [{**sample[i % len(sample)], "id": f"line-{i}"} for i in range(count)]


def submit(client: OpenAI, count: int, *, model: str = "cope", **cope: object) -> Batch:
    lines = [
        {
            "custom_id": problem["id"],
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": [{"role": "user", "content": problem["problem"]}]},
        }
        for problem in problems(count)
    ]
    file = client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"cope": cope} if cope else None,
    )


def cope_of(batch: Batch) -> dict[str, Any]:
    assert batch.model_extra is not None
    return dict(batch.model_extra["cope"])


def wait(client: OpenAI, batch: Batch, *, timeout_s: float = 180) -> Batch:
    deadline = time.monotonic() + timeout_s
    while batch.status not in TERMINAL:
        assert time.monotonic() < deadline, batch.model_dump_json(indent=1)
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    return batch


def lines_of(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [] if file_id is None else [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def assert_whole(client: OpenAI, batch: Batch, count: int, *, extra_calls: bool = False) -> list[dict[str, Any]]:
    """Every line in exactly one file, and spend equal to the sum of the steps to the nano-dollar.

    After a kill a paid call may have been made again before its late answer was stored (`extra_calls`): it is spent all
    the same, beyond the steps, and the ledger's test below accounts for it.
    """
    output, errors = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert sorted(line["custom_id"] for line in output + errors) == sorted(f"line-{i}" for i in range(count))
    assert batch.request_counts is not None
    assert batch.request_counts.total == count == len(output) + len(errors)
    blocks = [line["response"]["body"]["cope"] for line in output]
    assert all(block["task_id"] for block in blocks)
    if not errors:
        nano = sum(step["cost_nanousd"] for block in blocks for step in block["steps"])
        spent, _, decimals = cope_of(batch)["spent_usd"].partition(".")
        whole = int(spent) * 10**9 + int(decimals.ljust(9, "0"))
        assert whole >= nano if extra_calls else whole == nano
    return output


def test_a_batch_goes_in_through_the_stock_client_and_comes_out_with_a_signed_webhook(stack: Stack, client: OpenAI):
    sink = WebhookSink(stack.secrets.webhook_secret)
    batch = wait(client, submit(client, 12, kind="math", webhook_url=sink.url, store="full"))

    assert batch.status == "completed"
    output = assert_whole(client, batch, 12)
    assert {line["response"]["body"]["cope"]["policy"] for line in output} == {"cope"}
    deadline = time.monotonic() + 20
    while not sink.received and time.monotonic() < deadline:
        time.sleep(0.1)
    sink.close()
    assert sink.received == [("batch.completed", batch.id)]
    task = client.get(f"/tasks/{output[0]['response']['body']['cope']['task_id']}", cast_to=object)
    assert isinstance(task, dict)
    # Early stopping may have aborted any one sample before its plan was there, never all of them.
    assert any(sample["plan"] for sample in task["steps"][0]["samples"])


def test_a_live_call_is_answered_whole_and_as_a_stream(client: OpenAI):
    ask: Any = {"model": "small-majority", "messages": [{"role": "user", "content": problems(1)[0]["problem"]}]}
    whole = client.chat.completions.create(**ask)
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))

    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).endswith("}")
    assert chunks[-1].usage is not None


def test_at_the_cap_paid_work_is_held_and_a_raise_finishes_it(stack: Stack, admin: OpenAI):
    project: Any = admin.post("/organization/projects", body={"name": "poor"}, cast_to=object)
    limit = f"/organization/projects/{project['id']}/spend_limit"
    admin.post(limit, body={"threshold_amount": 3}, cast_to=object)
    key: Any = admin.post(
        f"/organization/projects/{project['id']}/service_accounts", body={"name": "k"}, cast_to=object
    )
    with OpenAI(base_url=stack.base_url, api_key=key["api_key"]["value"], max_retries=5) as poor:
        batch = submit(poor, 20, model="large")
        deadline = time.monotonic() + 60
        while not (cope_of(batch)["hold"] and cope_of(batch)["reserved_usd"] == "0.00"):
            assert time.monotonic() < deadline, batch
            time.sleep(0.2)
            batch = poor.batches.retrieve(batch.id)
        assert cope_of(batch)["hold"]["reason"] == "budget"
        held: Any = admin.get(limit, cast_to=object)
        assert 0 < float(held["cope"]["spent_usd"]) <= 0.03
        admin.post(limit, body={"threshold_amount": 100}, cast_to=object)
        batch = wait(poor, batch)
        assert_whole(poor, batch, 20)


def test_killing_workers_and_redis_mid_batch_loses_no_line_and_doubles_none(stack: Stack, client: OpenAI):
    batch = submit(client, 40)
    pids: Any = stack.description()["pids"]
    for name in ("worker-small", "worker-large", "redis", "worker-upkeep"):
        time.sleep(1.0)
        os.killpg(pids[name], signal.SIGKILL)
    batch = wait(client, batch, timeout_s=240)

    assert batch.status == "completed"
    assert_whole(client, batch, 40, extra_calls=True)


def test_a_crash_of_postgres_mid_batch_is_survived(stack: Stack, client: OpenAI):
    batch = submit(client, 30)
    time.sleep(2.0)
    pids: Any = stack.description()["pids"]
    os.kill(pids["postgres"], signal.SIGKILL)
    batch = wait(client, batch, timeout_s=240)

    assert batch.status == "completed"
    assert_whole(client, batch, 30, extra_calls=True)


def test_a_cancelled_batch_keeps_its_finished_lines(client: OpenAI):
    batch = submit(client, 60)
    while not (batch.request_counts and batch.request_counts.completed):
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    client.batches.cancel(batch.id)
    batch = wait(client, batch)

    assert batch.status == "cancelled"
    output = assert_whole(client, batch, 60)
    assert output


def test_a_file_with_bad_lines_fails_as_a_whole_and_names_each_of_them(client: OpenAI):
    bad = b'{"custom_id": "a"}\nnot json\n'
    file = client.files.create(file=("bad.jsonl", bad), purpose="batch")
    batch = wait(
        client,
        client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"),
    )

    assert batch.status == "failed"
    assert batch.errors is not None
    assert [error.line for error in batch.errors.data or []] == [1, 2]


def test_the_command_line_submits_a_csv_watches_it_and_tells_a_tasks_story(stack: Stack, scratch: Path):
    rows = "id,problem\n" + "".join(f'{p["id"]},"{p["problem"]}"\n' for p in problems(3))
    (scratch / "problems.csv").write_text(rows)

    def cope(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cope_cli.main", "--base-url", stack.base_url]
        keys = ["--api-key", stack.secrets.api_key, "--admin-key", stack.secrets.admin_key]
        return subprocess.run([*command, *keys, *arguments], capture_output=True, text=True, check=False, timeout=180)

    ended = cope("submit", str(scratch / "problems.csv"), "--store", "full", "--watch", "--json")
    assert ended.returncode == 0, ended.stderr
    batch = json.loads(ended.stdout)
    lines = [json.loads(line) for line in cope("results", batch["id"]).stdout.splitlines()]
    assert sorted(line["custom_id"] for line in lines) == ["line-0", "line-1", "line-2"]
    story = cope("show", lines[0]["response"]["body"]["cope"]["task_id"]).stdout
    assert "Stage 1" in story
    assert "why:" in story
    assert "spent $" in cope("budget").stdout
    unknown = cope("show", "task_nothing")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)


def test_a_dry_run_quotes_for_nothing_and_the_batch_then_keeps_to_it(stack: Stack, client: OpenAI, scratch: Path):
    lines = [{"problem": p["problem"], "id": p["id"]} for p in problems(30)]
    (scratch / "problems.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = [sys.executable, "-m", "cope_cli.main", "--base-url", stack.base_url]
    command += ["--api-key", stack.secrets.api_key, "quote", str(scratch / "problems.jsonl"), "--pilot-lines", "20"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert told.returncode == 0, told.stderr
    assert "never more than" in told.stdout
    assert "20 lines tried on the small model" in told.stdout

    dry = submit(client, 30, dry_run={"pilot_lines": 20})
    pids: Any = stack.description()["pids"]
    for name in ("worker-small", "worker-upkeep"):
        os.killpg(pids[name], signal.SIGKILL)
        time.sleep(0.5)
    dry = wait(client, dry)
    quote = cope_of(dry)["quote"]
    assert (dry.status, cope_of(dry)["spent_usd"], dry.output_file_id) == ("completed", "0.00", None)
    assert (quote["lines"], quote["pilot"]["lines"]) == (30, 20)
    batch = wait(client, submit(client, 30))
    assert 0 < float(cope_of(batch)["spent_usd"]) <= float(quote["max_usd"])


def test_audits_survive_kills_ask_once_each_and_never_hold_their_batch_up(stack: Stack, admin: OpenAI):
    project: Any = admin.post(
        "/organization/projects", body={"name": "a", "cope": {"audit": {"share": "1", "cap_usd": "5"}}}, cast_to=object
    )
    assert project["cope"]["audit"] == {"share": "1", "cap_usd": "5.00"}
    key: Any = admin.post(
        f"/organization/projects/{project['id']}/service_accounts", body={"name": "k"}, cast_to=object
    )
    with OpenAI(base_url=stack.base_url, api_key=key["api_key"]["value"], max_retries=5) as client:
        batch = submit(client, 40)
        pids: Any = stack.description()["pids"]
        for name in ("worker-small", "worker-large"):
            time.sleep(1.5)
            os.killpg(pids[name], signal.SIGKILL)
        batch = wait(client, batch, timeout_s=240)
        output = assert_whole(client, batch, 40, extra_calls=True)
        blocks = [line["response"]["body"]["cope"] for line in output]
        confident = {block["task_id"] for block in blocks if block["stage"] < 3 and block["accepted"]}
        deadline = time.monotonic() + 120
        while cope_of(batch)["audit"]["pending"]:
            assert time.monotonic() < deadline, cope_of(batch)["audit"]
            time.sleep(0.5)
            batch = client.batches.retrieve(batch.id)
        found = cope_of(batch)["audit"]
        assert (found["accepted"], found["audited"]) == (len(confident), len(confident))
        assert found["agreed"] + found["disagreed"] + found["unparsable"] == len(confident)
        listed: Any = client.get(f"/audits?batch_id={batch.id}&limit=100", cast_to=object)
        assert {audit["task_id"] for audit in listed["data"]} == confident
        assert len(listed["data"]) == len(confident)
        command = [sys.executable, "-m", "cope_cli.main", "--base-url", stack.base_url]
        arguments = ["--api-key", key["api_key"]["value"], "audit", batch.id]
        told = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=60).stdout
        assert "Agreement is not correctness" in told
        assert f"Of {len(confident)} unescalated answers" in told


async def test_the_books_agree_with_the_ledger_after_everything_above(stack: Stack):
    superuser = f"postgresql://postgres:{stack.secrets.postgres}@127.0.0.1:{stack.ports.postgres}/cope"
    async with await psycopg.AsyncConnection.connect(superuser) as conn:
        assert await ledger_difference(conn) == []
        over = await conn.execute("SELECT count(*) FROM budgets WHERE spent + reserved + unconfirmed > ceiling")
        assert await over.fetchone() == (0,)
