"""`cope results`: a batch's lines, while it runs or afterwards; and `cope wait`."""

import contextlib
import http.client
import json
import sys
import time
from collections.abc import Iterator
from typing import IO, Annotated, Any

import typer
from openai import OpenAI

from cope_cli.address import Address, find_address
from cope_cli.plain import answer
from cope_cli.show import TERMINAL, summary

FAILED, UNREACHABLE, STILL_RUNNING = 1, 3, 4
_LINES_AT_ONCE = "20000"
_PIECE = 64 * 1024
_POLL_S = 1.0
_TRIES = 8
_LONGEST_WAIT_S = 60


def results(
    context: typer.Context,
    batch: str,
    errors: Annotated[bool, typer.Option("--errors", help="The error file instead.")] = False,
    until_over: Annotated[
        bool, typer.Option("--follow", help="Lines as they end, of both kinds, to the last.")
    ] = False,
    now: Annotated[bool, typer.Option("--now", help="Lines that have ended by now, of both kinds.")] = False,
    after: Annotated[int, typer.Option(help="With --follow or --now: go on behind this offset.")] = 0,
    order: Annotated[str | None, typer.Option(help="With --follow or --now: completion or input.")] = None,
) -> None:
    """Write a batch's lines to standard output, for example: cope results batch_01… > out.jsonl

    With --follow while it runs: cope results batch_01… --follow >> out.jsonl
    """
    address = find_address(*context.obj)
    if until_over or now:
        follow(address, batch, after=after, order=order, until_over=until_over, out=sys.stdout.buffer)
        return
    client = address.client()
    found = client.batches.retrieve(batch)
    file_id = found.error_file_id if errors else found.output_file_id
    if file_id is None:
        if errors and found.status in TERMINAL:
            return
        sys.stderr.write(f"cope: batch {batch} is {found.status} and has no such file yet (--now, --follow)\n")
        raise typer.Exit(FAILED)
    with client.files.with_streaming_response.content(str(file_id)) as content:
        for chunk in content.iter_bytes():
            sys.stdout.buffer.write(chunk)


def follow(address: Address, batch: str, *, after: int, order: str | None, until_over: bool, out: IO[bytes]) -> None:
    """Whole lines, each once. An answer that breaks off is asked for again: it begins with the same lines, and those
    that were written are passed over."""
    written = tries = 0
    incomplete = True
    while incomplete:
        query = {"after": str(after), "limit": _LINES_AT_ONCE, **({} if order is None else {"order": order})}
        had = written
        try:
            with answer(address, f"/batches/{batch}/results", query) as lines:
                last, incomplete = int(lines.headers["X-Last-Line"]), lines.headers["X-Incomplete"] == "true"
                for number, line in enumerate(_whole_lines(lines)):
                    if number >= written:
                        _put(out, line)
                        written += 1
        except (typer.Exit, http.client.HTTPException) as broken:
            code = broken.exit_code if isinstance(broken, typer.Exit) else UNREACHABLE
            tries = 0 if written > had else tries + 1
            if code != UNREACHABLE or not until_over or tries >= _TRIES:
                if after or written:
                    sys.stderr.write(f"cope: to go on from here: --after {after}, without its first {written} lines\n")
                raise typer.Exit(code) from None
            incomplete = True
            time.sleep(_POLL_S)
            continue
        finally:
            with contextlib.suppress(BrokenPipeError):
                out.flush()
        came, after, written, tries = last > after, last, 0, 0
        if incomplete and not came:
            if not until_over:
                return
            time.sleep(_POLL_S)


def _put(out: IO[bytes], line: bytes) -> None:
    """A reader that has gone (``| head``) has what it wanted: not the service's failure."""
    try:
        out.write(line)
    except BrokenPipeError:
        raise SystemExit(0) from None


def _whole_lines(opened: http.client.HTTPResponse) -> Iterator[bytes]:
    """Lines with their ends. Raises `http.client.IncompleteRead` where the answer breaks off (its own `readline` would
    take that for the end)."""
    rest = b""
    while piece := opened.read(_PIECE):
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        for line in lines:
            yield line + b"\n"


def wait(
    context: typer.Context,
    batch: str,
    timeout: Annotated[int, typer.Option(help="Give up after so many seconds (exit code 4).")] = 7 * 86_400,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Wait until a batch is over: cope wait batch_01… && cope results batch_01… > out.jsonl"""
    found = wait_for(find_address(*context.obj).client(), batch, timeout)
    sys.stdout.write((json.dumps(found, indent=1, ensure_ascii=False) if as_json else summary(found)) + "\n")
    if found["status"] not in TERMINAL:
        raise typer.Exit(STILL_RUNNING)
    if found["status"] != "completed" or found["request_counts"]["failed"]:
        raise typer.Exit(FAILED)


def wait_for(client: OpenAI, batch: str, timeout_s: int) -> dict[str, Any]:
    """The batch once it is over, or as it is after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while True:
        left = max(0, round(until - time.monotonic()))
        path = f"/batches/{batch}/wait?timeout={min(left, _LONGEST_WAIT_S)}"
        found: Any = client.get(path, cast_to=object)
        if found["status"] in TERMINAL or not left:
            return dict(found)
