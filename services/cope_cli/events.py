"""`cope events`: the project's event log, as it is or as it grows."""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from typing import Annotated, Any

import typer

from cope_cli.address import Address, NoAddress, find_address

REFUSED, UNREACHABLE = 2, 3
_RETRY_S = 3.0
_SILENCE_S = 45


def events(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until interrupted.")] = False,
    batch: Annotated[str | None, typer.Option(help="Only this batch's.")] = None,
    types: Annotated[str | None, typer.Option(help="Only these, such as 'batch.*,task.failed'.")] = None,
    after: Annotated[
        str | None, typer.Option(help="An offset, `beginning` or `end`; from the beginning by default.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One CloudEvent as JSON a line.")] = False,
) -> None:
    """Every state change in order. For example: cope events --follow --batch batch_01… --types 'task.*'"""
    address = find_address(*context.obj)
    query = {name: value for name, value in (("batch_id", batch), ("types", types)) if value is not None}
    found = _follow(address, query, after) if follow else _pages(address, query, after)
    shown = 0
    try:
        for event in found:
            sys.stdout.write((json.dumps(event, ensure_ascii=False) if as_json else _line(event)) + "\n")
            sys.stdout.flush()
            shown += 1
            if limit is not None and shown >= limit:
                return
    except KeyboardInterrupt:
        return


def _pages(address: Address, query: dict[str, str], after: str | None) -> Iterator[dict[str, Any]]:
    client, place = address.client(), after
    while True:
        asked = {**query, "limit": "1000"} | ({} if place is None else {"after": place})
        page: Any = client.get(f"/events?{urllib.parse.urlencode(asked)}", cast_to=object)
        yield from page["data"]
        if not page["has_more"]:
            return
        place = page["next_after"]


def _follow(address: Address, query: dict[str, str], after: str | None) -> Iterator[dict[str, Any]]:
    """Over one stream after another: one that breaks is taken up where it broke."""
    place, told = after, False
    while True:
        try:
            for offset, type_, data in _frames(address, query, place):
                told = False
                place = offset or place
                if type_ == "cope.gap":
                    sys.stderr.write(f"cope: events {data['from']} to {data['to']} are no longer kept\n")
                elif type_ == "error":
                    sys.stderr.write(f"cope: {data['error']['message']}\n")
                    raise typer.Exit(REFUSED)
                elif type_ is not None:
                    yield data
        except urllib.error.HTTPError as refused:
            with refused:
                if refused.code < 500:
                    sys.stderr.write(f"cope: {_message(refused)}\n")
                    raise typer.Exit(REFUSED) from None
        except (urllib.error.URLError, HTTPException, OSError) as away:
            if not told:
                sys.stderr.write(f"cope: the service is away ({away}); trying again\n")
                told = True
        time.sleep(_RETRY_S)


def _frames(
    address: Address, query: dict[str, str], place: str | None
) -> Iterator[tuple[str | None, str | None, dict[str, Any]]]:
    """Server-sent events: (id, event, data). One without an event only says where to go on."""
    asked = query | ({} if place is None else {"after": place})
    url = f"{address.base_url.rstrip('/')}/events?{urllib.parse.urlencode(asked)}"
    if not url.startswith(("http://", "https://")):
        raise NoAddress(f"{address.base_url} is no address of a service")
    request = urllib.request.Request(url)  # noqa: S310 - checked
    request.add_header("Authorization", f"Bearer {address.api_key}")
    request.add_header("Accept", "text/event-stream")
    fields: dict[str, str] = {}
    with urllib.request.urlopen(request, timeout=_SILENCE_S) as answer:  # noqa: S310 - checked
        for raw in answer:
            line = raw.decode().rstrip("\r\n")
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
                continue
            if "id" in fields or "event" in fields:
                yield fields.get("id"), fields.get("event"), json.loads(fields.get("data", "{}"))
            fields = {}


def _line(event: dict[str, Any]) -> str:
    said = " ".join(f"{name}={value}" for name, value in event["data"].items() if name != "id")
    return f"{event['offset']:>8}  {event['time'][:19]}Z  {event['type']:<24} {event['subject']}  {said}".rstrip()


def _message(refused: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(refused.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the service answered {refused.code}"
