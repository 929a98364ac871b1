"""A running service of an earlier version, upgraded under load: its schema is moved on while its API and workers work,
then workers of this version join them in the middle of the same batch."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from openai import OpenAI

from cope.adapters.postgres.migrate import SCHEMA, upgrade
from cope.core.money import parse_usd
from cope_local.children import free_port
from cope_local.stack import weights_folder

pytestmark = [pytest.mark.integration, pytest.mark.e2e, pytest.mark.timeout(400)]

BEFORE, ITS_SCHEMA = "fea440f", "0010"
_ROOT = Path(__file__).resolve().parents[2]
_LINES = 64


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the earlier version, out of this repository's own history."""
    known = subprocess.run(["git", "cat-file", "-e", BEFORE], cwd=_ROOT, capture_output=True, check=False)
    if known.returncode:
        pytest.skip(f"no history here: the earlier version {BEFORE} can't be laid out, so no upgrade was tried")
    tree = tmp_path_factory.mktemp("earlier")
    archive = subprocess.run(["git", "archive", BEFORE], cwd=_ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
    return tree


@pytest.fixture(scope="module")
def running(earlier: Path, scratch: Path) -> Iterator[dict[str, Any]]:
    """The earlier version's whole stack: what its `stack.json` says."""
    data = scratch / "upgraded"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")}
    environment.pop("DATABASE_URL", None)
    # The editable install leads to this tree; what is named here comes before it.
    environment |= {
        "PYTHONPATH": f"{earlier / 'shared'}:{earlier / 'services'}",
        "COPE_EMBEDDED_ONLY": "1",
        "COPE_LEASE_S": "3",
        "COPE_SWEEP_S": "0.25",
    }
    command = [sys.executable, "-m", "cope_local", "up", "--data-dir", str(data), "--port", str(free_port())]
    with (scratch / "upgraded.log").open("wb") as log:
        stack = subprocess.Popen(command, cwd=earlier, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while not (data / "stack.json").exists():
            assert stack.poll() is None, (scratch / "upgraded.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield json.loads((data / "stack.json").read_text())
    finally:
        stack.terminate()
        stack.wait(60)


def submit(client: OpenAI, model: str) -> str:
    sample = [json.loads(line) for line in (weights_folder().parent / "sample_problems.jsonl").read_text().splitlines()]
    lines = []
    for number in range(_LINES):
        messages = [{"role": "user", "content": sample[number % len(sample)]["problem"]}]
        body = {"model": model, "messages": messages}
        lines.append({"custom_id": f"{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})
    file = client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h").id


def signal_all(leaders: list[int], sig: signal.Signals) -> None:
    """Each leads a session of its own, with the worker's children in it."""
    for leader in leaders:
        os.killpg(leader, sig)


def finished(client: OpenAI, batch_id: str) -> int:
    counts = client.batches.retrieve(batch_id).request_counts
    return 0 if counts is None else counts.completed + counts.failed


def until(client: OpenAI, batch_id: str, most: int) -> None:
    deadline = time.monotonic() + 240
    while True:
        batch = client.batches.retrieve(batch_id)
        counts = batch.request_counts
        if batch.status == "completed" or (counts is not None and counts.completed + counts.failed >= most):
            return
        assert time.monotonic() < deadline, batch.model_dump_json(indent=1)
        time.sleep(0.1)


def new_workers(running: dict[str, Any], log: Path) -> "subprocess.Popen[bytes]":
    """One of this version, for every queue, with the settings of the earlier one's."""
    taken = Path(f"/proc/{running['pids']['worker-small']}/environ").read_bytes().split(b"\0")
    environment = dict(one.decode().split("=", 1) for one in taken if b"=" in one)
    del environment["PYTHONPATH"]
    command = [sys.executable, "-m", "cope_worker", "--queues", "small,large,upkeep,webhooks", "--processes", "1"]
    with log.open("wb") as out:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)


def test_a_running_batch_goes_through_an_upgrade_with_old_and_new_workers_side_by_side(
    running: dict[str, Any], scratch: Path
):
    owner = str(running["postgres_url"])
    with OpenAI(base_url=running["base_url"], api_key=running["api_key"], max_retries=5) as client:
        first = submit(client, "cope")
        until(client, first, _LINES // 8)
        with psycopg.connect(owner) as conn:
            assert conn.execute("SELECT version_num FROM alembic_version").fetchone() == (ITS_SCHEMA,)

        upgrade(owner)
        second = submit(client, "cope")  # by the earlier API, under the new schema
        until(client, first, _LINES // 4)
        worker = new_workers(running, scratch / "new-worker.log")
        try:
            # Only the new one works for a while, longer than a lease; then the old ones again, their leases lost.
            old = [running["pids"][f"worker-{name}"] for name in ("small", "large", "upkeep")]
            signal_all(old, signal.SIGSTOP)
            try:
                time.sleep(4)
                until(client, first, finished(client, first) + 8)
            finally:
                signal_all(old, signal.SIGCONT)
            for batch_id in (first, second):
                until(client, batch_id, _LINES + 1)
            assert worker.poll() is None, (scratch / "new-worker.log").read_text()
        finally:
            worker.terminate()
            worker.wait(60)

        spent: dict[str, int] = {}
        shown: dict[tuple[str, str, str], int] = {}
        for batch_id in (first, second):
            batch = client.batches.retrieve(batch_id)
            assert batch.request_counts is not None
            assert (batch.request_counts.completed, batch.request_counts.failed) == (_LINES, 0)
            output = client.files.content(str(batch.output_file_id)).text.splitlines()
            blocks = [json.loads(line)["response"]["body"]["cope"] for line in output]
            assert len(blocks) == _LINES
            # A batch keeps the policy and the prompts that it was accepted with.
            assert {(block["policy"], block["prompt_version"]) for block in blocks} == {
                (blocks[0]["policy"], blocks[0]["prompt_version"])
            }
            assert batch.model_extra is not None
            spent[batch_id] = parse_usd(batch.model_extra["cope"]["spent_usd"])
            for line, block in zip(map(json.loads, output), blocks, strict=True):
                for step in block["steps"]:
                    shown[batch_id, line["custom_id"], step["name"]] = step["cost_nanousd"]

    superuser = owner.replace("cope_owner", "cope_worker").replace(
        owner.partition("cope_owner:")[2].partition("@")[0], worker_password(scratch / "upgraded")
    )
    with psycopg.connect(superuser) as conn:
        assert conn.execute("SELECT version_num FROM alembic_version").fetchone() == (SCHEMA,)
        claimers = conn.execute("SELECT count(*) FROM steps").fetchone()
        twice = conn.execute(
            "SELECT count(*) FROM (SELECT task_id, name FROM steps GROUP BY 1, 2 HAVING count(*) > 1) AS t"
        ).fetchone()
        reserved = conn.execute("SELECT coalesce(sum(reserved), 0) FROM budgets").fetchone()
        calls: dict[tuple[str, str, str], list[int]] = {}
        for batch_id, line_id, step, cost in conn.execute(
            "SELECT a.batch_id, t.custom_id, a.step, a.cost FROM attempts a JOIN tasks t ON t.id = a.task_id"
            " WHERE a.cost IS NOT NULL"
        ):
            calls.setdefault((batch_id, line_id, step), []).append(cost)
    assert claimers is not None
    assert claimers[0] >= 2 * _LINES
    assert (twice, reserved) == ((0,), (0,))
    # A call that stood still on a stopped worker was made again by the new one, and both are paid: the batch is charged
    # for every call, its steps show the one answer that each of them kept.
    for batch_id in (first, second):
        assert spent[batch_id] == sum(sum(costs) for place, costs in calls.items() if place[0] == batch_id)
    assert {place: cost for place, cost in shown.items() if cost not in calls.get(place, [0])} == {}
    assert calls.keys() <= shown.keys()


def worker_password(data: Path) -> str:
    return str(json.loads((data / "secrets.json").read_text())["worker"])
