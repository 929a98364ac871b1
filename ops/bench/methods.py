"""The paper's methods side by side, each as a batch through the whole service.

``python -m ops.bench.methods [--only abc]`` runs them on the reference pair, on the demo's problems and the machine at
hand. ``python -m ops.bench.methods --recorded recorded_gsm8k_200.jsonl`` has recorded answers of real models
(llama-2-13b, gpt-4) said again by a server that they are asked through, and runs those that need few-shot examples,
which the reference pair does not understand; programs among the answers run in the sandbox.

The table is Markdown: right answers with Wilson's 95 % interval, where they came from, what they cost.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from openai import OpenAI
from ops.bench.replay import recording, replaying
from rich.console import Console
from rich.progress import Progress

from cope.core.audit import wilson
from cope_local.children import free_port
from cope_local.stack import REFERENCE_LARGE, REFERENCE_SMALL, Stack, weights_folder

Options = dict[str, Any]
PAIR: Mapping[str, Options] = {
    "small": {},
    "small-majority": {},
    "large": {},
    "cope": {},
    "cope-s2": {},
    "abc": {"tiers": [[REFERENCE_SMALL], [REFERENCE_LARGE]], "agreement": "0.75"},
    "plan-execute": {"planner": REFERENCE_LARGE, "executor": REFERENCE_SMALL, "plan": "guideline"},
    "large-plan": {},
    "small-guided": {},
}
"""What the reference pair can do. Of `abc`'s threshold 1 its own default, eight equal votes, would be the paper's."""

RECORDED: Mapping[str, Options] = {
    "small-majority": {"prompt_set": "pot1"},
    "large": {"prompt_set": "cot1"},
    "cascade-vote": {"prompt_sets": ["pot1", "pot2"]},
    "cascade-verify": {"prompt_sets": ["pot1", "pot2"]},
}
"""What was recorded: pot1 and pot2 by llama-2-13b, eight samples each; pot1 and cot1 by gpt-4, greedily."""
RECORDED_SMALL, RECORDED_LARGE = "llama-2-13b", "gpt-4"


@dataclass(frozen=True)
class Problem:
    """`answer` is what counts as right: a number."""

    id: str
    text: str
    answer: str


@dataclass(frozen=True)
class Outcome:
    """One method's batch. `stages` counts answers by the stage they came from."""

    policy: str
    right: int
    total: int
    stages: Counter[int]
    spent: Decimal
    seconds: float


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench.methods", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], metavar="POLICY", help="just this one; repeatable")
    parser.add_argument("--problems", type=int, help="how many of the problems (default all)")
    parser.add_argument("--recorded", type=Path, metavar="FILE", help="recorded answers, in place of the pair")
    given = parser.parse_args()
    methods = PAIR if given.recorded is None else RECORDED
    for name in given.only:
        if name not in methods:
            parser.error(f"{name!r} is none of {', '.join(methods)}")
    chosen = {name: options for name, options in methods.items() if name in (given.only or methods)}
    console = Console(stderr=True)
    if given.recorded is None:
        problems = sample_problems()[: given.problems]
        with stack({}) as (client, watch):
            outcomes = [run(console, client, watch, name, options, problems) for name, options in chosen.items()]
    else:
        rows = [json.loads(line) for line in given.recorded.read_text(encoding="utf-8").splitlines()][: given.problems]
        problems = [Problem(row["id"], row["problem"], row["answer"]) for row in rows]
        with recorded_models(rows) as base_url, stack(settings_for(base_url)) as (client, watch):
            outcomes = [run(console, client, watch, name, options, problems) for name, options in chosen.items()]
    sys.stdout.write(table(outcomes) + "\n")
    return 0


def sample_problems() -> list[Problem]:
    """The demo's."""
    lines = (weights_folder().parent / "sample_problems.jsonl").read_text(encoding="utf-8").splitlines()
    return [Problem(row["id"], row["problem"], str(row["answer"])) for row in map(json.loads, lines)]


def settings_for(base_url: str) -> dict[str, str]:
    """A stack whose two models are both the recording."""
    return {
        "COPE_SMALL_BASE_URL": base_url,
        "COPE_SMALL_MODEL": RECORDED_SMALL,
        "COPE_SMALL_API_KEY": "none",
        "COPE_SMALL_ABORT": "rid",
        "COPE_LARGE_BASE_URL": base_url,
        "COPE_LARGE_MODEL": RECORDED_LARGE,
        "COPE_LARGE_API_KEY": "none",
        "COPE_LARGE_PRICE": "gpt-4o-2024-08-06",
        "COPE_LARGE_CONCURRENCY": "32",
    }


@contextmanager
def recorded_models(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A server of the recording, in a thread of its own; its base URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="recorded models", daemon=True)
    thread.start()
    server = replaying([recording(row) for row in rows])
    try:
        _, base_url = asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(30)
        yield base_url
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@contextmanager
def stack(settings: Mapping[str, str]) -> Iterator[tuple[OpenAI, Stack]]:
    """Everything, in a folder that is gone afterwards, and a client of it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("COPE_") or "EMBEDDED" in name}
    with tempfile.TemporaryDirectory(prefix="cope-methods-") as folder:
        Path(folder).chmod(0o755)  # Postgres runs as another user where this one is root
        made = Stack(Path(folder) / "stack", port=free_port(), environment={**own, **settings})
        made.start()
        try:
            with OpenAI(base_url=made.base_url, api_key=made.secrets.api_key, max_retries=5) as client:
                yield client, made
        finally:
            made.stop()


def run(
    console: Console, client: OpenAI, watch: Stack, policy: str, options: Options, problems: Sequence[Problem]
) -> Outcome:
    """One batch of every problem under one policy."""
    lines = [
        {
            "custom_id": problem.id,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": policy, "messages": [{"role": "user", "content": problem.text}], "cope": options},
        }
        for problem in problems
    ]
    began = time.monotonic()
    file = client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
        extra_body={"cope": {"kind": "math"}},
    )  # fmt: skip
    with Progress(console=console) as progress:
        bar = progress.add_task(policy, total=len(problems))
        while batch.status not in {"completed", "failed", "expired", "cancelled"}:
            watch.watch()
            time.sleep(0.2)
            batch = client.batches.retrieve(batch.id)
            if batch.request_counts is not None:
                progress.update(bar, completed=batch.request_counts.completed + batch.request_counts.failed)
    seconds = time.monotonic() - began
    assert batch.model_extra is not None
    text = "" if batch.output_file_id is None else client.files.content(batch.output_file_id).text
    told = {line["custom_id"]: line["response"]["body"]["cope"] for line in map(json.loads, text.splitlines())}
    return Outcome(
        policy=policy,
        right=sum(same(told[p.id]["answer"], p.answer) for p in problems if p.id in told),
        total=len(problems),
        stages=Counter(block["stage"] for block in told.values()),
        spent=Decimal(batch.model_extra["cope"]["spent_usd"]),
        seconds=seconds,
    )


def same(answer: str | None, gold: str) -> bool:
    """Whether both are one number; of floats 12 digits, as programs compute them."""
    try:
        found, wanted = (f"{float(text.replace(',', '')):.12g}" for text in (answer or "", gold))
    except ValueError:
        return answer == gold
    return found == wanted


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown. `of large` only where `large` was run too."""
    large = next((one.spent for one in outcomes if one.policy == "large"), Decimal(0))
    rows = ["| policy | right | 95 % | stage 1 / 2 / 3 | API spend | of large | seconds |", "|---" * 7 + "|"]
    for one in outcomes:
        low, high = wilson(one.right, one.total)
        stages = " / ".join(str(one.stages[stage]) for stage in (1, 2, 3))
        share = f"{100 * one.spent / large:.0f} %" if large else ""
        rows.append(
            f"| `{one.policy}` | {one.right} of {one.total} | {100 * low:.1f}–{100 * high:.1f} | {stages} |"
            f" ${one.spent:.5f} | {share} | {one.seconds:.0f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    raise SystemExit(main())
