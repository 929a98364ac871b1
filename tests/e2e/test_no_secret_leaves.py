"""Known secrets in, everything that comes out searched for them: logs, tables, messages, Flower, answers, webhooks.

One stack beside a provider that repeats the key it was called with, in every way it can, and a receiver of webhooks
that repeats what it was sent. Servers are killed on the way: connection errors like to tell where they were going.
"""

import base64
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from openai import OpenAI
from psycopg import sql

from cope.adapters.celery_wakeup import JOB, make_celery
from cope_local.children import free_port
from cope_local.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.e2e, pytest.mark.timeout(180)]

LARGE_KEY, SMALL_KEY = "canary-of-the-large-models-key", "canary-of-the-small-models-key"
MAY_HOLD = {"secrets.json", "stack.json", "redis.conf"}
"""Files that are there to hold secrets: readable by their owner only, which is looked at too."""


class Gossip(BaseHTTPRequestHandler):
    """Repeats the key: in a refusal, in what is no JSON, in headers, and to whoever asks for another thing."""

    protocol_version = "HTTP/1.1"
    malformed_once = True

    def do_POST(self) -> None:
        key = self.headers.get("authorization", "")
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        status, told = 200, json.dumps(_completion(json.loads(body)["model"])) if "/chat/" in self.path else body
        if "/chat/" not in self.path:
            status, told = 500, f"{dict(self.headers)} {told}"  # a webhook: everything back, and once more please
        elif "reject me" in body:
            status = 400
            told = json.dumps({"error": {"message": f"Bad request with {key}.", "type": "invalid", "code": key}})
        elif "refuse me" in body:
            status = 401
            told = json.dumps({"error": {"message": f"Incorrect API key provided: {key.removeprefix('Bearer ')}."}})
        elif "garble me" in body and Gossip.malformed_once:
            Gossip.malformed_once = False
            told = f"<html>{key}</html>"
        data = told.encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("x-your-key", key)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _completion(model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": "It is \\boxed{5}."}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
    }


@pytest.fixture(scope="module")
def gossip() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Gossip) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def stack(scratch: Path, gossip: str) -> Iterator[Stack]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")}
    environment.pop("DATABASE_URL", None)
    for side, key in (("SMALL", SMALL_KEY), ("LARGE", LARGE_KEY)):
        environment |= {
            f"COPE_{side}_BASE_URL": f"{gossip}/v1",
            f"COPE_{side}_MODEL": side,
            f"COPE_{side}_API_KEY": key,
        }
    environment |= {
        "COPE_EMBEDDED_ONLY": "1",
        "COPE_LARGE_PRICE": "gpt-4o-2024-08-06",
        "COPE_LEASE_S": "3",
        "COPE_SWEEP_S": "0.25",
    }
    running = Stack(scratch / "canaries", port=free_port(), environment=environment)
    running.start()
    over = threading.Event()

    def watch() -> None:
        # What it has started again ends with this thread, so the whole stack is stopped from here, in order.
        running.run_until(over.is_set)
        running.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield running
    over.set()
    watcher.join()


@pytest.fixture(scope="module")
def seen(stack: Stack, gossip: str, scratch: Path) -> dict[str, str]:
    """Everything that came out of a life with failures, by where it came out."""
    broker = f"redis://:{stack.secrets.redis}@127.0.0.1:{stack.ports.redis}/0"
    out: dict[str, str] = {}
    messages: list[str] = []
    listening = threading.Event()
    listener = threading.Thread(target=_listen, args=(broker, messages, listening), daemon=True)
    listener.start()
    assert listening.wait(10)
    with OpenAI(base_url=stack.base_url, api_key=stack.secrets.api_key, max_retries=5) as client:
        hook: Any = client.post("/webhook_endpoints", body={"url": f"{gossip}/hook", "name": "h"}, cast_to=object)
        rotating: Any = _as_admin(stack, "POST", f"{_keys(stack)}/service_accounts", {"name": "second"})
        rotated: Any = _as_admin(stack, "POST", f"{_keys(stack)}/api_keys/{rotating['id']}/rotate", {})
        batch = _submit(client, ["2 + 3?", "reject me", "garble me"], webhook_url=f"{gossip}/hook")
        _poison(broker, scratch / "poisoned")
        batch = _ended(client, batch)
        out["the batch"] = batch.model_dump_json()
        for file in (batch.output_file_id, batch.error_file_id):
            out[f"file {file}"] = client.files.content(str(file)).text
        out["tasks"] = json.dumps(client.get(f"/batches/{batch.id}/tasks", cast_to=object))
        out |= _flower(stack)
        pids: Any = stack.description()["pids"]
        os.killpg(pids["redis"], signal.SIGKILL)
        os.kill(pids["postgres"], signal.SIGKILL)
        again = _ended(client, _submit(client, ["2 + 3?"]))
        assert again.status == "completed"
        refused = _submit(client, ["refuse me"])
        deadline = time.monotonic() + 20
        while not refused.model_extra["cope"]["hold"]:
            assert time.monotonic() < deadline, refused
            time.sleep(0.1)
            refused = client.batches.retrieve(refused.id)
        out["a refused batch"] = refused.model_dump_json()
        out["its tasks"] = json.dumps(client.get(f"/batches/{refused.id}/tasks", cast_to=object))
        for path, key in (("/files/nothing", stack.secrets.api_key), ("/files", f"{stack.secrets.api_key}x")):
            out[f"error of {path}"] = _error(stack, path, key)
    out["messages"] = "\n".join(messages)
    out["tables"] = _tables(stack)
    out["command lines"] = _command_lines(stack)
    out["_secrets"] = json.dumps(
        [hook["signing_secret"], rotating["api_key"]["value"], rotated["api_key"]["value"], LARGE_KEY, SMALL_KEY]
    )
    out["_poisoned"] = str((scratch / "poisoned").exists())
    return out


def test_no_secret_is_in_anything_that_came_out(stack: Stack, seen: dict[str, str]) -> None:
    secrets: dict[str, str] = asdict(stack.secrets)
    secrets |= {f"made {at}": value for at, value in enumerate(json.loads(seen["_secrets"]))}
    assert len(secrets) == 15
    places = {name: text for name, text in seen.items() if not name.startswith("_")}
    places |= _files(stack)
    assert {
        "the batch",
        "tables",
        "messages",
        "flower /workers",
        "logs/api.log",
        "logs/worker-large.log",
    } <= places.keys()
    for name, secret in secrets.items():
        for form in (secret, base64.b64encode(secret.encode()).decode().rstrip("=")):
            assert [place for place, text in places.items() if form in text] == [], name


def test_the_provider_did_repeat_the_key_and_it_was_blotted_out(stack: Stack, seen: dict[str, str]) -> None:
    assert "Bad request with" in seen["tasks"]
    assert "[secret]" in seen["tasks"]
    assert JOB in seen["messages"]


def test_a_pickled_message_is_refused_unread_and_the_worker_goes_on(stack: Stack, seen: dict[str, str]) -> None:
    assert seen["_poisoned"] == "False"
    assert "Refusing to deserialize" in _logs(stack)


def test_files_that_hold_secrets_are_their_owners_alone(stack: Stack, seen: dict[str, str]) -> None:
    found = {path.name: path.stat().st_mode & 0o777 for path in stack.data_dir.rglob("*") if path.name in MAY_HOLD}
    assert found == dict.fromkeys(MAY_HOLD, 0o600)


# ---- what happens ----------------------------------------------------------------------------------------------------


class _Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self._folder,)


def _poison(broker: str, folder: Path) -> None:
    app = make_celery(broker)
    for queue in ("small", "large", "upkeep", "webhooks"):
        app.send_task(JOB, args=[_Bomb(folder)], serializer="pickle", queue=queue)
    app.close()


def _listen(broker: str, messages: list[str], listening: threading.Event) -> None:
    try:
        with redis.Redis.from_url(broker) as client, client.monitor() as monitor:
            listening.set()
            messages.extend(str(told["command"]) for told in monitor.listen())
    except (redis.RedisError, OSError):
        return  # it is killed on the way


def _submit(client: OpenAI, asks: list[str], **cope: object) -> Any:
    lines = [
        {
            "custom_id": f"line-{at}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "large", "messages": [{"role": "user", "content": ask}]},
        }
        for at, ask in enumerate(asks)
    ]
    file = client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", extra_body={"cope": cope}
    )


def _ended(client: OpenAI, batch: Any) -> Any:
    deadline = time.monotonic() + 60
    while batch.status not in {"completed", "failed", "expired", "cancelled"}:
        assert time.monotonic() < deadline, batch
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    return batch


def _as_admin(stack: Stack, method: str, path: str, body: object) -> Any:
    request = urllib.request.Request(f"{stack.base_url}{path}", json.dumps(body).encode(), method=method)
    request.add_header("authorization", f"Bearer {stack.secrets.admin_key}")
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def _keys(stack: Stack) -> str:
    request = urllib.request.Request(f"{stack.base_url}/organization/projects")
    request.add_header("authorization", f"Bearer {stack.secrets.admin_key}")
    with urllib.request.urlopen(request) as answer:
        return f"/organization/projects/{json.loads(answer.read())['data'][0]['id']}"


def _error(stack: Stack, path: str, key: str) -> str:
    request = urllib.request.Request(f"{stack.base_url}{path}")
    request.add_header("authorization", f"Bearer {key}")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    with refused.value as answer:
        return f"{answer.headers} {answer.read().decode()}"


# ---- what is looked at -----------------------------------------------------------------------------------------------


def _flower(stack: Stack) -> dict[str, str]:
    base, told = f"http://127.0.0.1:{stack.ports.flower}", {}
    login = base64.b64encode(f"cope:{stack.secrets.flower}".encode()).decode()

    def page(path: str) -> str:
        request = urllib.request.Request(base + path)
        request.add_header("authorization", f"Basic {login}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())

    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{base}/api/workers")
    workers = json.loads(page("/api/workers?refresh=1"))
    assert workers
    paths = ["/", "/workers", "/broker", "/tasks", "/metrics", "/api/workers", "/api/tasks", "/api/queues/length"]
    for path in [*paths, *(f"/worker/{name}" for name in workers)]:
        told[f"flower {path}"] = page(path)
    return told


def _tables(stack: Stack) -> str:
    url = f"postgresql://postgres:{stack.secrets.postgres}@127.0.0.1:{stack.ports.postgres}/cope"
    rows: list[str] = []
    with psycopg.connect(url) as conn:
        for (table,) in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
            query = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))
            rows += [f"{table} {row}" for (row,) in conn.execute(query).fetchall()]
    return "\n".join(rows)


def _command_lines(stack: Stack) -> str:
    """Of every process that belongs to the stack: any user of the machine can read them."""
    pids: Any = stack.description()["pids"]
    groups = {str(pid) for pid in pids.values()}
    told = subprocess.run(["ps", "-eo", "pgid=,args="], capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in told.splitlines() if line.split()[0] in groups)


def _logs(stack: Stack) -> str:
    return "\n".join(path.read_text(errors="replace") for path in (stack.data_dir / "logs").iterdir())


def _files(stack: Stack) -> dict[str, str]:
    """Every file of the data directory, the databases' own included: what is at rest there is hashed or sealed."""
    found = {}
    for path in stack.data_dir.rglob("*"):
        if path.is_file() and path.name not in MAY_HOLD:
            found[str(path.relative_to(stack.data_dir))] = path.read_bytes().decode("latin-1")
    return found
