"""What people look at: a batch on one line, a bar while it runs, a task's whole story."""

import time
from typing import Any

from openai import OpenAI
from rich import markup
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cope.core.redaction import printable

TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_POLL_S = 0.5
_LONGEST_TEXT = 2000


def watch(console: Console, client: OpenAI, batch_id: str) -> dict[str, Any]:
    """Show progress until the batch ends; its last state. Interrupting stops watching, not the batch."""
    columns = (TextColumn(batch_id[:14] + "…"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("validating", total=None)
        while True:
            batch = client.batches.retrieve(batch_id).to_dict()
            counts: Any = batch["request_counts"]
            if counts["total"]:
                progress.update(bar, total=counts["total"], completed=counts["completed"] + counts["failed"])
            progress.update(bar, description=summary(batch))
            if batch["status"] in TERMINAL:
                return batch
            time.sleep(_POLL_S)


def summary(batch: dict[str, Any]) -> str:
    """Status, counts, stages, spend, hold and ETA in one line."""
    counts, cope = batch["request_counts"], batch.get("cope") or {}
    parts = [f"{batch['status']} {counts['completed'] + counts['failed']}/{counts['total']}"]
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    parts += [f"S{stage}:{count}" for stage, count in sorted((cope.get("by_stage") or {}).items())]
    parts.append(f"${cope.get('spent_usd', '0')}")
    if cope.get("open"):
        parts.append("open for more lines")
    if cope.get("hold"):
        parts.append(f"held: {cope['hold']['reason']}")
    parts += _eta(cope.get("eta"))
    if cope.get("outcome") == "all_failed":
        parts.append("EVERY LINE FAILED")
    return " · ".join(parts)


def _eta(eta: dict[str, Any] | None) -> list[str]:
    """How long it will take, at least as likely as not and 9 times in 10, and what it waits for."""
    if eta is None:
        return []
    parts = []
    if eta["p50"] is not None:
        parts.append(f"ETA {_span(eta['p50'])} (90 %: {_span(eta['p90'])})")
    if eta["limited_by"] is not None:
        parts.append(f"limited by {eta['limited_by'].replace('_', ' ')}")
    return parts


def _span(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def batches_table(batches: list[dict[str, Any]]) -> Table:
    """One row a batch."""
    table = Table("batch", "status", "done", "spent", "outcome")
    for batch in batches:
        counts, cope = batch["request_counts"], batch["cope"]
        done = f"{counts['completed'] + counts['failed']}/{counts['total']}"
        outcome = "dry run" if cope.get("dry_run") else cope["outcome"] or ""
        table.add_row(batch["id"], batch["status"], done, f"${cope['spent_usd']}", outcome)
    return table


def task_story(console: Console, task: dict[str, Any]) -> None:
    """Every step of a task: why it was taken, its plans, answers and votes, and how it ended."""
    console.print(f"[bold]{task['id']}[/bold]  {task['state']}  {escape(task['custom_id'] or 'live call')}")
    for role, text in task["request"]["m"]:
        console.print(f"[dim]{role}:[/dim] {escape(text[:_LONGEST_TEXT])}")
    for step in task["steps"]:
        cost = step["cost_nanousd"] / 1e9
        console.rule(f"Stage {step['stage']} · {step['name']} · {step['model']} · ${cost:.6f}", align="left")
        console.print(f"why: {escape(step['reason'])}")
        if step.get("reused_from"):
            console.print(f"taken over from {step['reused_from']}, at no cost")
        if step["stopped_early"]:
            console.print(f"stopped early: {escape(step['stopped_early'])}")
        console.print(_samples(step))
    if task["error"]:
        console.print(f"[red]{task['error']['code']}[/red]: {escape(task['error']['message'])}")
    elif task["result"]:
        block = task["result"]["cope"]
        console.rule("result", align="left")
        console.print(f"{escape(str(block['answer']))}   ({escape(block['reason'])}; stage {block['stage']})")


def escape(text: str) -> str:
    """A caller's or model's text, with nothing in it that the terminal or rich would obey."""
    return markup.escape(printable(text))


def _samples(step: dict[str, Any]) -> Table:
    table = Table("#", "status", "plan", "answer", "solution")
    for sample in step["samples"]:
        solution = sample["solution"] or sample["error"] or ""
        table.add_row(
            str(sample["index"]),
            sample["status"],
            escape(sample["plan"] or ""),
            escape(sample["answer"] or ""),
            escape(solution[:_LONGEST_TEXT]),
        )
    return table
