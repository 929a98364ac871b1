"""Sixteen workers against an exact provider: ``python -m ops.campaigns.limiter --minutes 11 --workers 16 --rpm 600``.

The provider is the paid-API simulator of the tests, a process with a true sliding window. The workers are real: a whole
local stack whose `cope_worker --queues large` has that many children, which claim from Postgres, reserve, call
and settle. With `--clients` the callers are plain processes instead, each a limiter and a client: for short windows.

Printed as JSON: refusals (must be 0), the share of R and T that was used (must be 0.97 of the one that binds), the most
that any window saw, and the claims that one granted call cost. `--flush` empties Redis half-way, in a run of its own:
then the most that any window was asked for may exceed the limit by one burst.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis
from openai import OpenAI
from tests.paid_api.process import PaidApi

from cope.adapters.openai_model import OpenAIModel
from cope.adapters.redis_limiter import RedisLimiter
from cope.core.errors import ModelError
from cope.core.limits import reports
from cope.core.limits.types import Ask, Pace, Wait
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.problem import Message
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.ports.model import ChatRequest
from cope_local.children import free_port, spawn, stop
from cope_local.redis import EmbeddedRedis
from cope_local.stack import Stack

BURST = 0.01
_QUESTION = "A farmer has {n} sheep and buys {m} more. How many are there now? Explain each step of your reasoning."
_OUTPUT = 256
_WARM_UP_S = 20.0


@dataclass(frozen=True)
class Plan:
    """What is run. `latency` is seconds, from and to."""

    seconds: float
    workers: int
    rpm: int | None
    tpm: int | None
    window_s: float
    latency: str
    rule: str
    flush: bool
    clients: bool


@dataclass(frozen=True)
class Result:
    """What came of it; shares are of what the limits allow in the measured seconds."""

    workers: str
    measured_s: float
    admitted: int
    refused: int
    used_requests: float | None
    used_tokens: float | None
    most_requests_in_a_window: int
    most_tokens_in_a_window: int
    overshoot: float
    claims_per_call: float | None

    @property
    def binding(self) -> float:
        """The share of the limit that binds."""
        return max(self.used_requests or 0.0, self.used_tokens or 0.0)


def run(plan: Plan, folder: Path) -> Result:
    """One run, from nothing to nothing."""
    provider = PaidApi(
        folder / "provider",
        rpm=plan.rpm,
        tpm=plan.tpm,
        window_s=plan.window_s,
        tpm_rule=plan.rule,
        latency_s=plan.latency,
    )
    with EmbeddedRedis(folder / "redis", password="only-here") as server, provider:
        callers = _Clients(plan, provider, server, folder) if plan.clients else _Workers(plan, provider, server, folder)
        try:
            callers.start()
            warm_up = min(_WARM_UP_S, plan.seconds / 4)
            _until_first_call(provider)
            time.sleep(warm_up)
            since = time.monotonic()
            if plan.flush:
                time.sleep(plan.seconds / 2)
                redis.Redis.from_url(server.url).flushall()
                time.sleep(plan.seconds / 2)
            else:
                time.sleep(plan.seconds)
            until = time.monotonic()
            claims = callers.claims_per_call()
        finally:
            callers.stop()
        return _result(plan, provider, since, until, claims)


def _until_first_call(provider: PaidApi) -> None:
    deadline = time.monotonic() + 120
    while provider.control()["admitted"] == 0:
        if time.monotonic() > deadline:
            raise RuntimeError("no call reached the provider within two minutes")
        time.sleep(0.2)


def _result(plan: Plan, provider: PaidApi, since: float, until: float, claims: float | None) -> Result:
    books = provider.books
    used = books.used(since, until)
    moments = books.window_usage(window_s=plan.window_s)
    asked = books.window_usage(window_s=plan.window_s, with_refused=True)
    most_asked = max(moment.requests for moment in asked)
    most_tokens = max(moment.tokens for moment in moments)
    over = max(
        most_asked / plan.rpm - 1 if plan.rpm else 0.0,
        most_tokens / plan.tpm - 1 if plan.tpm else 0.0,
        0.0,
    )
    return Result(
        workers=f"{plan.workers} {'clients' if plan.clients else 'worker children of a whole stack'}",
        measured_s=round(until - since, 1),
        admitted=len(moments),
        refused=books.refused_by_limits(),
        used_requests=None if used.requests is None else round(used.requests, 4),
        used_tokens=None if used.tokens is None else round(used.tokens, 4),
        most_requests_in_a_window=most_asked,
        most_tokens_in_a_window=most_tokens,
        overshoot=round(over, 4),
        claims_per_call=None if claims is None else round(claims, 3),
    )


# ---- the real workers ------------------------------------------------------------------------------------------------


class _Workers:
    """A stack whose large queue is drained by many children, and a batch that is more than they can do."""

    def __init__(self, plan: Plan, provider: PaidApi, server: EmbeddedRedis, folder: Path) -> None:
        self._plan = plan
        self._provider = provider
        models = folder / "models.toml"
        limits = "".join(f"{name} = {n}\n" for name, n in (("rpm", plan.rpm), ("tpm", plan.tpm)) if n is not None)
        models.write_text(
            f'[[model]]\nname = "small"\nbase_url = "http://127.0.0.1:9/v1"\ntier = "small"\ncontext_length = 32768\n\n'
            f'[[model]]\nname = "paid"\nbase_url = "{provider.base_url}"\ntier = "paid"\ncontext_length = 32768\n'
            f'price_id = "gpt-4o-2024-08-06"\nconcurrency = 256\n{limits}'
            f'tpm_counts = "{"limit" if plan.rule == "reserve" else "used"}"\n'
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")}
        environment.pop("DATABASE_URL", None)
        environment |= {
            "COPE_EMBEDDED_ONLY": "1",
            "COPE_BROKER_URL": server.url,
            "COPE_MODELS_FILE": str(models),
            "COPE_LARGE_PROCESSES": str(plan.workers),
            "COPE_LARGE_CONCURRENCY": "32",
            "COPE_DEFAULT_CAP_USD": "unlimited",
        }
        self._stack = Stack(folder / "stack", port=free_port(), environment=environment)

    def start(self) -> None:
        """Up, and a batch submitted."""
        self._stack.start()
        plan = self._plan
        a_minute = min(plan.rpm or 10**9, (plan.tpm or 10**9) // 300)
        count = int(a_minute * (plan.seconds + 90) / 60 * 1.2) + 100
        lines = [_line(number) for number in range(count)]
        with OpenAI(base_url=self._stack.base_url, api_key=self._stack.secrets.api_key) as client:
            file = client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
            client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

    def claims_per_call(self) -> float:
        """Every claim raises a task's fence by one; every call under way or made had one grant."""
        password, port = self._stack.secrets.worker, self._stack.ports.postgres
        with psycopg.connect(f"postgresql://cope_worker:{password}@127.0.0.1:{port}/cope") as conn:
            row = conn.execute("SELECT sum(fence) FROM tasks").fetchone()
        assert row is not None
        return int(row[0] or 0) / max(1, self._provider.control()["admitted"])

    def stop(self) -> None:
        """Down; paid calls under way end first."""
        self._stack.stop()


def _line(number: int) -> str:
    content = _QUESTION.format(n=number, m=number % 17)
    body = {"model": "paid", "messages": [{"role": "user", "content": content}], "max_tokens": _OUTPUT}
    return json.dumps({"custom_id": f"l{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})


# ---- plain clients ---------------------------------------------------------------------------------------------------


class _Clients:
    """Processes with nothing but a limiter and a client."""

    def __init__(self, plan: Plan, provider: PaidApi, server: EmbeddedRedis, folder: Path) -> None:
        self._orders = {**asdict(plan), "base_url": provider.base_url, "redis": server.url}
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """All at once."""
        for number in range(int(self._orders["workers"])):
            order = json.dumps({**self._orders, "seed": number})
            command = [sys.executable, "-m", "ops.campaigns.limiter", "--as-client", order]
            log = self._folder / f"client-{number}.log"
            root = Path(__file__).resolve().parents[2]
            self._processes.append(spawn(command, log=log, env=dict(os.environ), cwd=root))

    def claims_per_call(self) -> None:
        """They claim nothing."""

    def stop(self) -> None:
        """In the middle of what they do."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            stop(process, 15, 5)


async def _client(order: dict[str, Any]) -> None:
    entry = ModelEntry(
        "paid",
        "paid",
        order["base_url"],
        Tier.LARGE,
        "instruct",
        32_768,
        price_id="p",
        api_key="none",
        rpm=order["rpm"],
        tpm=order["tpm"],
        tpm_counts="limit" if order["rule"] == "reserve" else "used",
    )
    catalog = ModelCatalog({"paid": entry}, "paid", "paid", BUILT_IN)
    window = order["window_s"]
    pace = Pace(window)
    limiter, model = RedisLimiter(order["redis"], catalog, pace=pace), OpenAIModel()
    await asyncio.gather(*(_caller(limiter, model, entry, f"{order['seed']}-{n}") for n in range(8)))


async def _caller(limiter: RedisLimiter, model: OpenAIModel, entry: ModelEntry, name: str) -> None:
    rng, number = random.Random(name), 0
    while True:
        text = _QUESTION.format(n=rng.randrange(1000), m=number)
        tokens = len(text) // 4 + 8 + _OUTPUT
        answer = await limiter.acquire("paid", Ask(tokens))
        if isinstance(answer, Wait):
            await asyncio.sleep(answer.seconds)
            continue
        await asyncio.sleep(answer.wait_s)
        began, number = time.monotonic(), number + 1
        try:
            said = await model.chat(ChatRequest(entry, (Message("user", text),), 0.0, _OUTPUT, f"{name}-{number:06d}"))
            report = reports.of_answer(said.usage, said.hints, took_s=time.monotonic() - began)
        except ModelError as error:
            report = reports.of_error(error, jitter=rng.random())
        await limiter.give_back(answer, report)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=11.0)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--rpm", type=int)
    parser.add_argument("--tpm", type=int)
    parser.add_argument("--window-s", type=float, default=60.0, help="only with --clients")
    parser.add_argument("--latency-s", default="0.3:3.0", help="how long the provider takes")
    parser.add_argument("--tpm-rule", choices=("reserve", "correct"), default="reserve")
    parser.add_argument("--flush", action="store_true", help="empty Redis half-way")
    parser.add_argument("--clients", action="store_true", help="plain processes instead of a whole stack")
    parser.add_argument("--as-client", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_client:
        asyncio.run(_client(json.loads(given.as_client)))
        return
    if given.rpm is None and given.tpm is None:
        parser.error("give --rpm, --tpm or both")
    plan = Plan(
        given.minutes * 60,
        given.workers,
        given.rpm,
        given.tpm,
        given.window_s if given.clients else 60.0,
        given.latency_s,
        given.tpm_rule,
        given.flush,
        given.clients,
    )
    with tempfile.TemporaryDirectory(prefix="cope-campaign-") as folder:
        Path(folder).chmod(0o755)
        result = run(plan, Path(folder))
    print(json.dumps({**asdict(plan), **asdict(result), "binding": result.binding}, indent=1))
    good = result.overshoot <= BURST if plan.flush else result.refused == 0 and result.binding >= 0.97
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
