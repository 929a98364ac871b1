"""`cope retry`, `cope append`, `cope seal` and `cope submit -`: batches that begin, grow and go on by other ways."""

import json
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from openai import OpenAI
from rich.console import Console

from cope_cli.address import find_address
from cope_cli.lines import BadInput, batch_lines, jsonl_lines
from cope_cli.show import summary, watch

FAILED = 1
_LINES_AT_ONCE, _BYTES_AT_ONCE, _LONGEST_WAIT_S = 500, 4 * 1024 * 1024, 0.5
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
_Batch = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (retry, append, seal):
        app.command()(command)


def retry(
    context: typer.Context,
    batch: str,
    failed: Annotated[bool, typer.Option("--failed", help="Lines that failed.")] = False,
    expired: Annotated[bool, typer.Option("--expired", help="Lines whose time ran out.")] = False,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Lines that were cancelled.")] = False,
    held: Annotated[bool, typer.Option("--held", help="Lines that wait; they leave the batch.")] = False,
    degraded: Annotated[bool, typer.Option("--degraded", help="Lines answered by the small model for money.")] = False,
    custom_id: Annotated[list[str] | None, typer.Option(help="Only this line; may be repeated.")] = None,
    policy: Annotated[str | None, typer.Option(help="Another policy for all of them.")] = None,
    max_cost: Annotated[str | None, typer.Option(help="What the retry may cost, in USD.")] = None,
    on_budget: Annotated[str | None, typer.Option(help="When the money is gone: hold, best_vote or fail.")] = None,
    webhook_url: Annotated[str | None, typer.Option(help="Told when the retry ends.")] = None,
    window: Annotated[str | None, typer.Option(help="Completion window, 1h to 7d.")] = None,
    follow: Annotated[bool, typer.Option("--watch", help="Show progress until it ends.")] = False,
    as_json: Json = False,
) -> None:
    """Take up a batch's lines again, by default all without an answer: cope retry batch_01… --failed --watch"""
    chosen = {"failed": failed, "expired": expired, "cancelled": cancelled, "held": held, "degraded": degraded}
    block = {"policy": policy, "max_cost_usd": max_cost, "on_budget": on_budget, "webhook_url": webhook_url}
    cope = {key: value for key, value in block.items() if value is not None}
    told: dict[str, object] = {"custom_ids": custom_id, "completion_window": window}
    body = {key: value for key, value in told.items() if value}
    if any(chosen.values()):
        body["lines"] = [name for name, wanted in chosen.items() if wanted]
    if cope:
        body["cope"] = cope
    client = _client(context)
    made = _post(client, f"/batches/{batch}/retry", body)
    _end(watch(Console(highlight=False), client, made["id"]) if follow else made, as_json=as_json)


def append(
    context: typer.Context,
    batch: str,
    file: Path,
    policy: Annotated[str, typer.Option(help="For lines that name none.")] = "cope",
    as_json: Json = False,
) -> None:
    """Add the lines of FILE (.jsonl, .csv or -) to an open batch: cope append batch_01… more.jsonl"""
    client = _client(context)
    lines = jsonl_lines(sys.stdin, "standard input", policy) if str(file) == "-" else batch_lines(file, policy)
    _append_all(client, batch, lines)
    _end(client.batches.retrieve(batch).to_dict(), as_json=as_json)


def seal(context: typer.Context, batch: str, as_json: Json = False) -> None:
    """Say that an open batch gets no more lines; it ends once those it has do: cope seal batch_01…"""
    _end(_post(_client(context), f"/batches/{batch}/seal", {}), as_json=as_json)


def cancellable(client: OpenAI) -> list[str]:
    """The project's batches that have not ended, newest first."""
    return [batch.id for batch in client.batches.list(limit=100) if batch.status in {"validating", "in_progress"}]


def submit_stream(client: OpenAI, *, policy: str, window: str, block: dict[str, Any]) -> _Batch:
    """A batch of the lines of standard input, which begin while the others still come; sealed at their end.

    Raises `BadInput`, which names the batch that then stays open.
    """
    body = {
        "endpoint": "/v1/chat/completions",
        "completion_window": window,
        "cope": {**block, "open": True},
    }
    batch_id = str(_post(client, "/batches", body)["id"])
    try:
        _append_all(client, batch_id, jsonl_lines(sys.stdin, "standard input", policy))
    except BadInput as wrong:
        raise BadInput(f"{wrong}; {batch_id} is open with the lines before: cope append, seal or cancel it") from None
    return _post(client, f"/batches/{batch_id}/seal", {})


def _append_all(client: OpenAI, batch_id: str, lines: Iterator[str]) -> None:
    for page in _pages(lines):
        _post(client, f"/batches/{batch_id}/requests", {"requests": [json.loads(line) for line in page]})


def _pages(lines: Iterator[str]) -> Iterator[list[str]]:
    """Lines as they come, in pages: a line waits at most half a second for others."""
    coming: queue.Queue[str | Exception | None] = queue.Queue(maxsize=2 * _LINES_AT_ONCE)

    def read() -> None:
        try:
            for line in lines:
                coming.put(line)
        except Exception as wrong:
            coming.put(wrong)
        else:
            coming.put(None)

    threading.Thread(target=read, daemon=True).start()
    page: list[str] = []
    size = 0
    while True:
        try:
            line = coming.get(timeout=_LONGEST_WAIT_S if page else None)
        except queue.Empty:
            line = ""
        if isinstance(line, str) and line:
            page.append(line)
            size += len(line.encode())
        full = len(page) >= _LINES_AT_ONCE or size >= _BYTES_AT_ONCE
        if page and (full or not line or isinstance(line, Exception)):
            yield page
            page, size = [], 0
        if line is None:
            return
        if isinstance(line, Exception):
            raise line


def _client(context: typer.Context) -> OpenAI:
    return find_address(*context.obj).client()


def _post(client: OpenAI, path: str, body: dict[str, Any]) -> _Batch:
    return client.post(path, body=body, cast_to=dict[str, Any])


def _end(batch: _Batch, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(batch, indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(f"{batch['id']}\n{summary(batch)}\n")
    if batch["status"] in {"failed", "expired", "cancelled"}:
        raise typer.Exit(FAILED)
