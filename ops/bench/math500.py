"""A foreign benchmark through the whole service: ``python ops/bench/math500.py MATH500.jsonl``.

The reference pair answers hardly any of these: the point is that a batch of real problems runs to its end. Checked are
that every line comes back exactly once, and that the batch's `spent_usd` is the sum of its tasks' steps to the
nano-dollar, failed tasks included. The file has one JSON object with `problem` and `answer` a line.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from openai import OpenAI

from cope.core.money import parse_usd
from cope_local.children import free_port
from cope_local.stack import Stack


def run(client: OpenAI, problems: list[dict[str, Any]]) -> str:
    """Submit, wait, compare; a line that tells the outcome. Raises `SystemExit` where something was lost."""
    lines = [
        {
            "custom_id": f"line-{i}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "cope", "messages": [{"role": "user", "content": problem["problem"]}]},
        }
        for i, problem in enumerate(problems)
    ]
    began = time.monotonic()
    file = client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    while batch.status not in {"completed", "failed", "expired", "cancelled"}:
        time.sleep(1)
        batch = client.batches.retrieve(batch.id)
    seconds = time.monotonic() - began
    output, errors = (
        [json.loads(line) for line in client.files.content(file_id).text.splitlines()] if file_id else []
        for file_id in (batch.output_file_id, batch.error_file_id)
    )
    if sorted(line["custom_id"] for line in output + errors) != sorted(line["custom_id"] for line in lines):
        raise SystemExit("lines were lost or doubled")
    cope = (batch.model_extra or {})["cope"]
    spent, steps = parse_usd(cope["spent_usd"]), sum(costs(client, batch.id))
    if spent != steps:
        raise SystemExit(f"spent {spent} nano-dollars, and the steps' sum is {steps}")
    codes = Counter(line["response"]["body"]["error"]["code"] for line in errors)
    stages = Counter(line["response"]["body"]["cope"]["stage"] for line in output)
    return (
        f"{len(lines)} lines in {seconds:.0f} s: {len(output)} answered (by stage {dict(sorted(stages.items()))}), "
        f"{len(errors)} failed {dict(codes)}; spent {spent} nano-dollars, the sum of all steps"
    )


def costs(client: OpenAI, batch_id: str) -> list[int]:
    """The cost of every step of every task of the batch, in nano-dollars."""
    found: list[int] = []
    after = ""
    while True:
        page: Any = client.get(f"/batches/{batch_id}/tasks?limit=100{after}", cast_to=object)
        found += [step["cost_nanousd"] for task in page["data"] for step in task["steps"]]
        if not page["has_more"]:
            return found
        after = f"&after={page['last_id']}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--lines", type=int, help="only the first so many")
    arguments = parser.parse_args()
    problems = [json.loads(line) for line in arguments.file.read_text().splitlines()][: arguments.lines]
    with tempfile.TemporaryDirectory(prefix="cope-bench-") as folder:
        Path(folder).chmod(0o755)
        stack = Stack(Path(folder) / "stack", port=free_port())
        stack.start()
        try:
            print(run(OpenAI(base_url=stack.base_url, api_key=stack.secrets.api_key, timeout=600), problems))
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
