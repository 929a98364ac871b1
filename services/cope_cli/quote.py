"""`cope quote`: what a file will cost, before a cent is spent on it."""

import json
import shlex
import tempfile
from pathlib import Path
from typing import Any

from openai import OpenAI
from rich.console import Console

from cope_cli.lines import batch_lines
from cope_cli.show import watch


def quote(
    console: Console,
    client: OpenAI,
    file: Path,
    *,
    policy: str,
    window: str,
    pilot_lines: int | None,
    cope: dict[str, Any],
) -> dict[str, Any]:
    """Upload FILE, run its pilot and wait: the dry run's last state. Raises `BadInput`."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as lines:
        for line in batch_lines(file, policy):
            lines.write(line + "\n")
        lines.flush()
        uploaded = client.files.create(file=Path(lines.name), purpose="batch")
    asked: bool | dict[str, int] = True if pilot_lines is None else {"pilot_lines": pilot_lines}
    batch = client.batches.create(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window=window,  # type: ignore[arg-type]
        extra_body={"cope": {**cope, "dry_run": asked}},
    )
    return watch(console, client, batch.id)


def print_quote(console: Console, batch: dict[str, Any], base_url: str) -> None:
    """The quote in a few lines, and the command that submits the file for real."""
    told = batch["cope"]["quote"]
    if told is None:
        return
    pilot = told["pilot"]
    low, high = pilot["accepted_share_stage1_interval"]
    console.print(f"{told['lines']} lines, prices of {told['price_version'] or 'none: free'}", soft_wrap=True)
    console.print(f"  never more than  ${told['max_usd']}")
    console.print(f"  9 times in 10    ${told['p90_usd']} or less")
    console.print(f"  expected         ${told['expected_usd']}")
    if pilot["lines"]:
        share = pilot["accepted_share_stage1"]
        console.print(
            f"pilot: {pilot['lines']} lines tried on the small model, {100 * share:.0f} % accepted in Stage 1 "
            f"(95 % interval {100 * low:.0f} to {100 * high:.0f} %)",
            soft_wrap=True,
        )
    for note in told["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if told["max_usd"] != "0.00":
        console.print(
            "The maximum counts each call once; a call that is repeated, as after a crash, adds up to "
            f"${told['each_repeated_call_usd']}.",
            soft_wrap=True,
        )
    console.print("To submit the same file, capped at the maximum:")
    body = shlex.quote(json.dumps(told["submit"]["at_max"], ensure_ascii=False))
    console.print(
        f'curl {base_url.rstrip("/")}/batches -H "Authorization: Bearer $COPE_API_KEY" -d {body}',
        markup=False,
        soft_wrap=True,
    )
