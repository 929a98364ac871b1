"""The demo: a sample batch through all three stages on a stack of its own, with the unmodified openai client."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from openai import OpenAI
from openai.types import Batch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cope_local.children import free_port
from cope_local.sink import WebhookSink
from cope_local.stack import Stack, weights_folder

_POLICIES = ("cope", "large", "small-majority")
_TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_WEBHOOK_TIMEOUT_S = 15.0
_BATCH_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one batch. `stages` counts accepted answers by stage."""

    policy: str
    total: int
    lines: int
    right: int
    stages: Counter[int]
    spent: Decimal
    webhook: bool

    @property
    def complete(self) -> bool:
        """Whether every line came back in exactly one of the two files."""
        return self.lines == self.total


def run_demo(count: int | None) -> int:
    """Run it and print the table; 0 if every line came back and every webhook was delivered."""
    console = Console()
    problems = [json.loads(line) for line in _sample().read_text().splitlines()][:count]
    data_dir = Path(".cope/demo")
    with _stack(console, data_dir) as stack:
        sink = WebhookSink(stack.secrets.webhook_secret)
        client = OpenAI(base_url=stack.base_url, api_key=stack.secrets.api_key, max_retries=5)
        try:
            outcomes = [_run(console, stack, client, sink, policy, problems) for policy in _POLICIES]
        finally:
            sink.close()
            client.close()
    _print(console, outcomes)
    return 0 if all(outcome.complete and outcome.webhook for outcome in outcomes) else 1


def _sample() -> Path:
    return weights_folder().parent / "sample_problems.jsonl"


@contextmanager
def _stack(console: Console, data_dir: Path) -> Iterator[Stack]:
    shutil.rmtree(data_dir, ignore_errors=True)
    began = time.monotonic()
    with console.status("starting Postgres, Redis, the reference models, the API and the workers"):
        stack = Stack(data_dir, port=free_port())
        stack.start()
    console.print(f"The stack is up at {stack.base_url} ({time.monotonic() - began:.0f} s).")
    try:
        yield stack
    finally:
        with console.status("stopping"):
            stack.stop()


def _run(
    console: Console, stack: Stack, client: OpenAI, sink: WebhookSink, policy: str, problems: list[dict[str, Any]]
) -> Outcome:
    lines = [
        {
            "custom_id": problem["id"],
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": policy, "messages": [{"role": "user", "content": problem["problem"]}]},
        }
        for problem in problems
    ]
    data = "\n".join(json.dumps(line) for line in lines).encode()
    uploaded = client.files.create(file=(f"{policy}.jsonl", data), purpose="batch")
    batch = client.batches.create(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"cope": {"kind": "math", "webhook_url": sink.url}},
    )
    batch = _watch(console, stack, client, policy, batch)
    output, errors = _lines(client, batch.output_file_id), _lines(client, batch.error_file_id)
    answers = {line["custom_id"]: line["response"]["body"]["cope"] for line in output}
    return Outcome(
        policy=policy,
        total=len(problems),
        lines=len(output) + len(errors),
        right=sum(answers.get(p["id"], {}).get("answer") == str(p["answer"]) for p in problems),
        stages=Counter(answer["stage"] for answer in answers.values()),
        spent=Decimal(_cope(batch)["spent_usd"]),
        webhook=_delivered(sink, batch.id),
    )


def _watch(console: Console, stack: Stack, client: OpenAI, policy: str, batch: Batch) -> Batch:
    columns = (
        TextColumn(f"{policy:15}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} done · {task.description}"),
        TimeElapsedColumn(),
    )
    deadline = time.monotonic() + _BATCH_TIMEOUT_S
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("validating", total=None)
        while True:
            batch = client.batches.retrieve(batch.id)
            counts, cope = batch.request_counts, _cope(batch)
            if counts is not None and counts.total:
                progress.update(bar, total=counts.total, completed=counts.completed + counts.failed)
            progress.update(bar, description=_progress(cope))
            if batch.status in _TERMINAL or time.monotonic() > deadline:
                return batch
            stack.watch()
            time.sleep(0.3)


def _progress(cope: dict[str, Any]) -> str:
    stages = " ".join(f"S{stage}:{count}" for stage, count in sorted(cope["by_stage"].items()))
    eta = "" if not cope["eta"] or cope["eta"]["p50"] is None else f" · ETA {cope['eta']['p50']} s"
    return f"{stages or 'no stage yet'} · ${cope['spent_usd']}{eta}"


def _cope(batch: Batch) -> dict[str, Any]:
    return dict((batch.model_extra or {})["cope"])


def _lines(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def _delivered(sink: WebhookSink, batch_id: str) -> bool:
    deadline = time.monotonic() + _WEBHOOK_TIMEOUT_S
    while ("batch.completed", batch_id) not in sink.received:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _print(console: Console, outcomes: list[Outcome]) -> None:
    table = Table(title="The same problems, three ways")
    for column in ("policy", "right", "S1", "S2", "S3", "API spend", "of large", "webhook"):
        table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    large = next(outcome.spent for outcome in outcomes if outcome.policy == "large")
    for o in outcomes:
        table.add_row(
            o.policy,
            f"{o.right}/{o.total}",
            *(str(o.stages[stage]) if o.policy == "cope" else "" for stage in (1, 2, 3)),
            f"${o.spent:.5f}",
            f"{100 * o.spent / large:.0f} %" if large else "",
            "received" if o.webhook else "MISSING",
        )
    console.print(table)
    console.print(
        "Two tiny models, trained for this project, prove the machinery, not the paper's figures; prices are GPT-4o's."
    )
    for o in outcomes:
        if not o.complete:
            console.print(f"[red]{o.policy}: {o.lines} lines came back of {o.total}[/red]")
