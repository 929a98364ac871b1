"""The whole service beside a bare asyncio script: ``python ops/bench/whole_service.py [--problems 120] [--rounds 5]``.

Both run the same COPE (same decisions, prompts, seeds and calls in flight, no early stopping) over the same problems
on the same reference servers, in turns; seeds make all arms draw the same samples, and what the servers counted is
printed to show it. The script comes in two forms: one request a sample, the very calls that the service makes, and
one request with `n=8` where samples share a prompt, which spares calls and can't stop one sample early.

Time is from the first upload byte to the batch's end, and from start to the last answer. While the service runs, the
small worker's child is measured: its proportional set size (PSS) with up to 64 calls in flight.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from openai import AsyncOpenAI, DefaultAioHttpClient, OpenAI

from cope.core.answers.model import AnswerKey
from cope.core.budget import output_limit
from cope.core.history import FinishedStep, Sample, SampleStatus
from cope.core.ids import TaskId
from cope.core.models import ModelEntry
from cope.core.plans import GoalPlan
from cope.core.policies.registry import next_decision
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.problem import Kind, Message, Problem
from cope.core.prompts import REFERENCE, render_executor, render_goal_planner, render_guideline_planner
from cope.core.stages import Call, Step, StopRule, Tier
from cope.core.task import TaskSpec
from cope_local.children import free_port
from cope_local.stack import Stack, weights_folder

SMALL, LARGE = "cope-reference-small", "cope-reference-large"
SMALL_CALLS, LARGE_CALLS = 64, 32
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Servers:
    """The two model servers' addresses, ending in ``/v1``."""

    small: str
    large: str

    def counted(self) -> dict[str, float]:
        """What both have counted so far: requests and generated tokens."""
        total: dict[str, float] = {}
        for base in (self.small, self.large):
            with urllib.request.urlopen(base.removesuffix("/v1") + "/metrics", timeout=10) as answer:
                for line in answer.read().decode().splitlines():
                    if line and not line.startswith("#"):
                        name, _, value = line.rpartition(" ")
                        total[name.partition("{")[0]] = total.get(name.partition("{")[0], 0.0) + float(value)
        return total


# ---- the script that a good engineer would write --------------------------------------------------------------------


class Script:
    """COPE over the openai client and two semaphores, and nothing else."""

    def __init__(self, servers: Servers, *, grouped: bool) -> None:
        self._clients = {
            Tier.SMALL: AsyncOpenAI(base_url=servers.small, api_key="none", http_client=DefaultAioHttpClient()),
            Tier.LARGE: AsyncOpenAI(base_url=servers.large, api_key="none", http_client=DefaultAioHttpClient()),
        }
        self._gates = {Tier.SMALL: asyncio.Semaphore(SMALL_CALLS), Tier.LARGE: asyncio.Semaphore(LARGE_CALLS)}
        self._entries = {
            tier: ModelEntry(name, name, "", tier, "reference", 1024)
            for tier, name in ((Tier.SMALL, SMALL), (Tier.LARGE, LARGE))
        }
        self._grouped = grouped

    async def solve(self, spec: TaskSpec) -> str | None:
        """One task to its end; its answer."""
        history: tuple[FinishedStep, ...] = ()
        while isinstance(step := next_decision(spec, history), Step):
            history = (*history, await self._step(spec, step))
        return history[-1].samples[0].answer

    async def _step(self, spec: TaskSpec, step: Step) -> FinishedStep:
        plans: list[str | None] = [None] * step.n
        texts: list[str | None] = [None] * step.n
        if step.planner is not None and self._grouped and step.executor is not None:
            plans = list(await self._ask(spec, step, step.planner, _plan_prompt(spec, step), 0, step.n))
        if step.executor is not None and step.planner is None and self._grouped:
            prompt = render_executor(REFERENCE, spec.problem, goal=step.goal, guideline=step.guideline)
            texts = list(await self._ask(spec, step, step.executor, prompt, 0, step.n))
        else:
            pairs = await asyncio.gather(*(self._chain(spec, step, i, plans[i]) for i in range(step.n)))
            plans, texts = [plan for plan, _ in pairs], [text for _, text in pairs]
        samples = tuple(_sample(i, plans[i], texts[i]) for i in range(step.n))
        return FinishedStep(
            step.name, step.stage, step.tier, step.model, step.n, samples, "", "", started_at=NOW, finished_at=NOW
        )

    async def _chain(self, spec: TaskSpec, step: Step, index: int, plan: str | None) -> tuple[str | None, str | None]:
        if step.planner is not None and plan is None:
            (plan,) = await self._ask(spec, step, step.planner, _plan_prompt(spec, step), index, 1)
        if step.executor is None:
            return plan, None
        goal = step.goal if plan is None else GoalPlan(plan)
        prompt = render_executor(REFERENCE, spec.problem, goal=goal, guideline=step.guideline)
        (text,) = await self._ask(spec, step, step.executor, prompt, index, 1)
        return plan, text

    async def _ask(
        self, spec: TaskSpec, step: Step, call: Call, prompt: tuple[Message, ...], index: int, n: int
    ) -> list[str]:
        async with self._gates[step.tier]:
            answer = await self._clients[step.tier].chat.completions.create(
                model=step.model,
                messages=[{"role": m.role, "content": m.content} for m in prompt],  # type: ignore[misc]
                temperature=call.temperature,
                max_tokens=output_limit(self._entries[step.tier], prompt, call.max_tokens),
                seed=(spec.seed + index) & 0x7FFFFFFF,
                n=n,
            )
        return [(choice.message.content or "").strip() for choice in answer.choices]

    async def aclose(self) -> None:
        """Close connections."""
        for client in self._clients.values():
            await client.close()


def _plan_prompt(spec: TaskSpec, step: Step) -> tuple[Message, ...]:
    render = render_goal_planner if step.tier is Tier.SMALL else render_guideline_planner
    return render(REFERENCE, spec.problem)


def _sample(index: int, plan: str | None, text: str | None) -> Sample:
    found = BOXED.findall(text or "")
    key = AnswerKey(found[-1]) if found else None
    return Sample(index, SampleStatus.FINISHED, plan=plan, solution=text, answer=found[-1] if found else None, key=key)


def script_seconds(servers: Servers, problems: list[str], *, grouped: bool) -> float:
    """Seconds from start to the last answer."""

    async def run() -> float:
        script = Script(servers, grouped=grouped)
        policy = PolicySpec(PolicyName.COPE, SMALL, LARGE, stop=StopRule.OFF)
        specs = [
            TaskSpec(TaskId(f"task_{i}"), Problem(Kind.MATH, (Message("user", text),)), policy, "cope", seed=1000 * i)
            for i, text in enumerate(problems)
        ]
        began = time.perf_counter()
        await asyncio.gather(*map(script.solve, specs))
        seconds = time.perf_counter() - began
        await script.aclose()
        return seconds

    return asyncio.run(run())


# ---- the service ----------------------------------------------------------------------------------------------------


def service_seconds(client: OpenAI, problems: list[str]) -> float:
    """Seconds from the first upload byte to `completed`, as a caller that polls four times a second sees it."""
    lines = [
        {
            "custom_id": f"line-{i}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "cope",
                "messages": [{"role": "user", "content": text}],
                "cope": {"seed": 1000 * i, "stop": "off"},
            },
        }
        for i, text in enumerate(problems)
    ]
    data = "\n".join(map(json.dumps, lines)).encode()
    began = time.perf_counter()
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    while batch.status not in {"completed", "failed", "expired", "cancelled"}:
        time.sleep(0.25)
        batch = client.batches.retrieve(batch.id)
    seconds = time.perf_counter() - began
    counts = batch.request_counts
    if batch.status != "completed" or counts is None or counts.completed != len(problems):
        raise SystemExit(f"the batch did not go well: {batch}")
    return seconds


class Memory:
    """The greatest PSS seen of a process's children, in KiB, looked at every quarter second."""

    def __init__(self, parent: int) -> None:
        self.peak = 0
        self._parent = parent
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.25):
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{self._parent}/task/{self._parent}/children").read_text().split()
                for child in children:
                    # A child of Celery's pool; the answer helpers are children of that child.
                    rollup = Path(f"/proc/{child}/smaps_rollup").read_text()
                    self.peak = max(self.peak, int(re.findall(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[0]))


@contextlib.contextmanager
def model_servers() -> Iterator[Servers]:
    """Both reference models, each in a process of its own."""
    children, bases = [], []
    for name in (SMALL, LARGE):
        port = free_port()
        folder = weights_folder() / name.rpartition("-")[2]
        command = [sys.executable, "-m", "cope_reference", "--model", f"{name}={folder}", "--port", str(port)]
        children.append(subprocess.Popen(command))
        bases.append(f"http://127.0.0.1:{port}/v1")
    try:
        for base in bases:
            _await(base.removesuffix("/v1") + "/health")
        yield Servers(*bases)
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


def _await(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"{url} does not answer")
        time.sleep(0.1)


MODELS = """
[[model]]
name = "{small_name}"
base_url = "{small}"
tier = "small"
context_length = 1024
prompt_set = "reference"
supports_seed = true

[[model]]
name = "{large_name}"
base_url = "{large}"
tier = "paid"
context_length = 1024
prompt_set = "reference"
supports_seed = true
price_id = "gpt-4o-2024-08-06"
concurrency = {calls}
"""


def problems_of(count: int) -> list[str]:
    """The demo's sample problems, in turn."""
    rows = (weights_folder().parent / "sample_problems.jsonl").read_text().splitlines()
    return [json.loads(rows[i % len(rows)])["problem"] for i in range(count)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    problems = problems_of(arguments.problems)
    with tempfile.TemporaryDirectory(prefix="cope-bench-") as folder, model_servers() as servers:
        Path(folder).chmod(0o755)
        models = Path(folder) / "models.toml"
        models.write_text(
            MODELS.format(
                small=servers.small, large=servers.large, small_name=SMALL, large_name=LARGE, calls=LARGE_CALLS
            )
        )
        environment = {**os.environ, "COPE_MODELS_FILE": str(models), "COPE_DEFAULT_CAP_USD": "unlimited"}
        stack = Stack(Path(folder) / "stack", port=free_port(), environment=environment)
        stack.start()
        try:
            client = OpenAI(base_url=stack.base_url, api_key=stack.secrets.api_key, timeout=600)
            pids = stack.description()["pids"]
            worker = int(pids["worker-small"])  # type: ignore[index]
            service_seconds(client, problems)  # warm: imports, prefixes, connections
            same, fewer, peak = [], [], 0
            for number in range(1, arguments.rounds + 1):
                before = servers.counted()
                with Memory(worker) as memory:
                    service = service_seconds(client, problems)
                between = servers.counted()
                single = script_seconds(servers, problems, grouped=False)
                after = servers.counted()
                grouped = script_seconds(servers, problems, grouped=True)
                peak = max(peak, memory.peak)
                same.append(single / service)
                fewer.append(grouped / service)
                print(
                    f"round {number}: service {service:.2f} s; script {single:.2f} s (same calls, {same[-1]:.3f}), "
                    f"{grouped:.2f} s (n=8, {fewer[-1]:.3f})",
                    flush=True,
                )
                for name in sorted(before):
                    if between[name] - before[name] or after[name] - between[name]:
                        print(f"    {name}: {between[name] - before[name]:.0f} | {after[name] - between[name]:.0f}")
        finally:
            stack.stop()
    print(f"{len(problems)} problems, {arguments.rounds} rounds; the service's throughput as a share of the script's:")
    for name, ratios in (("the same calls", same), ("n=8", fewer)):
        print(f"  {name}: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print(f"PSS of the small worker's child, up to {SMALL_CALLS} calls in flight: at most {peak / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
