"""Do quotes hold on the real service? ``python ops/campaigns/quotes.py [--trials 50] [--lines 30] [--pilot 15]``.

Starts a stack of its own with the reference pair. Each trial makes a file of fresh held-out stories, of a difficulty of
its own, and a few problems that neither model knows. It is quoted twice, in a project that was just made (nothing is
known of it) and in one that has run the trials before; then it is really run in the latter, and what it cost is held
against both quotes. Prints a line a trial, and at the end how many quotes held.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from openai import OpenAI

from cope_local.children import free_port
from cope_local.stack import Stack

sys.path.insert(0, str(Path(__file__).parents[1] / "reference_pair"))
import problems

_TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True)
class Trial:
    """One file: what was quoted in a new project, and in one with a past; what it then cost. USD."""

    new: dict[str, Any]
    old: dict[str, Any]
    spent: Decimal

    def held(self, quote: dict[str, Any], what: str = "p90_usd") -> bool:
        return self.spent <= Decimal(quote[what])


def make_file(rng: random.Random, lines: int) -> bytes:
    """A file around a difficulty of its own, with up to a fifth of problems of another form."""
    hardest = rng.randint(2, max(problems.LEVELS))
    strange = rng.choice((0.0, 0.0, 0.05, 0.2))
    texts = [
        f"What is {rng.randint(11, 99)} times {rng.randint(11, 99)} minus {rng.randint(11, 99)}?"
        if rng.random() < strange
        else problems.make(rng, rng.randint(1, hardest), held_out=True).text
        for _ in range(lines)
    ]
    return "\n".join(
        json.dumps(
            {
                "custom_id": f"line-{i}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "cope", "messages": [{"role": "user", "content": text}]},
            }
        )
        for i, text in enumerate(texts)
    ).encode()


def run_batch(client: OpenAI, data: bytes, **cope: Any) -> dict[str, Any]:
    """Submit, wait; the batch's `cope` block. Raises `SystemExit` where it did not complete."""
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"cope": {"kind": "math", **cope}},
    )
    while batch.status not in _TERMINAL:
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    if batch.status != "completed":
        raise SystemExit(batch.model_dump_json(indent=1))
    return dict((batch.model_extra or {})["cope"])


def new_client(stack: Stack, admin: OpenAI, name: str) -> OpenAI:
    """A key of a new project without a cap."""
    project: Any = admin.post("/organization/projects", body={"name": name}, cast_to=object)
    path = f"/organization/projects/{project['id']}"
    admin.delete(f"{path}/spend_limit", cast_to=object)
    key: Any = admin.post(f"{path}/service_accounts", body={"name": "trial"}, cast_to=object)
    return OpenAI(base_url=stack.base_url, api_key=key["api_key"]["value"], max_retries=5)


def campaign(stack: Stack, *, trials: int, lines: int, pilot: int) -> None:
    """Run all trials and print them."""
    admin = OpenAI(base_url=stack.base_url, api_key=stack.secrets.admin_key, max_retries=5)
    veteran = new_client(stack, admin, "veteran")
    run_batch(veteran, make_file(random.Random("past"), 240))
    done: list[Trial] = []
    for number in range(trials):
        data = make_file(random.Random(f"trial {number}"), lines)
        with new_client(stack, admin, f"trial {number}") as newcomer:
            asked = {"pilot_lines": pilot}
            new, old = (run_batch(client, data, dry_run=asked)["quote"] for client in (newcomer, veteran))
        trial = Trial(new, old, Decimal(run_batch(veteran, data)["spent_usd"]))
        done.append(trial)
        print(
            f"{number:3} spent {trial.spent:.6f} · new: expected {new['expected_usd']} p90 {new['p90_usd']} "
            f"{'held' if trial.held(new) else 'BROKEN'} · with a past: expected {old['expected_usd']} "
            f"p90 {old['p90_usd']} {'held' if trial.held(old) else 'BROKEN'} · max {old['max_usd']}",
            flush=True,
        )
    report(done)


def report(done: list[Trial]) -> None:
    """How many held, and how far above the truth the quotes lay in all."""
    spent = sum(trial.spent for trial in done)
    for name, quotes in (("new project", [t.new for t in done]), ("with a past", [t.old for t in done])):
        held = sum(trial.held(quote) for trial, quote in zip(done, quotes, strict=True))
        under = sum(trial.held(quote, "max_usd") for trial, quote in zip(done, quotes, strict=True))
        ratios = " ".join(
            f"{what} {sum(Decimal(quote[f'{what}_usd']) for quote in quotes) / spent:.2f}"
            for what in ("expected", "p90", "max")
        )
        print(f"{name}: p90 held in {held} of {len(done)}, the maximum in {under}; sums over the sum spent: {ratios}")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--lines", type=int, default=30)
    parser.add_argument("--pilot", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cope-quotes-") as folder:
        Path(folder).chmod(0o755)
        stack = Stack(Path(folder) / "stack", port=free_port())
        stack.start()
        try:
            campaign(stack, trials=arguments.trials, lines=arguments.lines, pilot=arguments.pilot)
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
