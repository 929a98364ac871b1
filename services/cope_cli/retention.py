"""`cope retention`: what is stored, for how long, and what goes next. A dry run: it changes nothing."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cope_cli.address import find_address

_KINDS = {
    "files": "files that say nothing themselves, from their upload",
    "tasks": "batches' tasks with results and samples, from the batch's end",
    "live": "live calls, from their end",
    "events": "the event log",
    "deliveries": "webhook deliveries that are over",
}


def retention(
    context: typer.Context,
    project: Annotated[str | None, typer.Option(help="With --set: whose batches and live calls.")] = None,
    days: Annotated[int | None, typer.Option("--set", help="Days to keep them; 0: as the settings say.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """What goes when? (operator) For example: cope retention, or cope retention --project proj_01… --set 7"""
    client, console = find_address(*context.obj).client(admin=True), Console(highlight=False)
    if days is not None:
        if project is None:
            raise typer.BadParameter("--set needs --project: whose days?")
        body = {"cope": {"keep_days": days or None}}
        client.post(f"/organization/projects/{project}", body=body, cast_to=object)
    found: Any = client.get("/organization/retention", cast_to=object)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        return
    console.print(f"As of {_day(found['at'], hours=True)} UTC; the next pass follows within ten minutes.")
    console.print(
        f"{found['files']} files take {_size(found['stored_bytes'])}; {_size(found['shared_bytes'])} more if equal "
        f"ones did not share. Waiting to be deleted: {found['freed_blobs']} names."
    )
    console.print(_kept(found))
    for line in _exceptions(found):
        console.print(line)
    console.print(_partitions(found["partitions"]))


def _kept(found: dict[str, Any]) -> Table:
    due = {
        "files": f"{found['due_files']} files",
        "tasks": f"{found['due_batches']} batches, {found['due_tasks']} tasks",
        "live": f"{found['due_live']} calls",
        "events": "by partition",
        "deliveries": f"{found['due_deliveries']} deliveries",
    }
    oldest = {"files": "oldest_file_at", "tasks": "oldest_batch_at", "live": "oldest_live_at"}
    table = Table("kept", "days", "oldest", "goes next")
    for kind, about in _KINDS.items():
        days = found["keep_days"][kind]
        at = found[oldest[kind]] if kind in oldest else None
        table.add_row(about, "for ever" if days is None else f"{days:g}", _day(at), due[kind])
    return table


def _exceptions(found: dict[str, Any]) -> list[str]:
    lines = []
    if found["waiting_files"]:
        lines.append(f"{found['waiting_files']} files are over their time and wait until a batch has read them.")
    if found["doubted_batches"]:
        lines.append(
            f"{found['doubted_batches']} batches are over their time and kept: money of theirs is unconfirmed "
            "(cope reconcile)."
        )
    return lines


def _partitions(parts: list[dict[str, Any]]) -> Table:
    table = Table("partition", "bytes", "until", "goes")
    for part in parts:
        goes = "held: something in it must be kept" if part["held"] else _day(part["goes_at"])
        table.add_row(part["name"], _size(part["bytes"]), _day(part["until"]), goes)
    return table


def _day(at: str | None, *, hours: bool = False) -> str:
    return "-" if at is None else at[:16].replace("T", " ") if hours else at[:10]


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
