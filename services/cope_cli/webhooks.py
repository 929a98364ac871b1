"""`cope webhooks`: endpoints, their secrets, what was sent to them and sending it again."""

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from openai import OpenAI
from rich.console import Console
from rich.table import Table

from cope_cli.address import find_address
from cope_cli.lines import BadInput

webhooks = typer.Typer(no_args_is_help=True, help="Webhook endpoints, deliveries and sending them again.")
_PATH = "/webhook_endpoints"
_FAILED = 1
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Events = Annotated[list[str] | None, typer.Option("--event", help="An event type; may be repeated.")]
AtOnce = Annotated[int | None, typer.Option("--concurrency", help="Messages under way at once, 1 to 64.")]
Since = Annotated[str | None, typer.Option(help="How long ago (90m, 12h, 2d) or 2026-11-25T08:00 (UTC).")]
Until = Annotated[str | None, typer.Option(help="The same; not included.")]


@webhooks.command(name="list")
def list_endpoints(context: typer.Context, as_json: Json = False) -> None:
    """List the project's endpoints and how they do."""
    client = _client(context)
    found = list(_pages(client, _PATH, {}))
    if as_json:
        _print_json(found)
        return
    table = Table("id", "name", "url", "events", "state")
    for one in found:
        table.add_row(one["id"], one["name"], one["url"], ", ".join(one["event_types"]), _state(one["cope"]))
    Console(highlight=False).print(table)


@webhooks.command()
def add(
    context: typer.Context,
    url: str,
    name: Annotated[str, typer.Option(help="For people.")] = "cope",
    event: Events = None,
    concurrency: AtOnce = None,
) -> None:
    """Make an endpoint (prints JSON; its secret is shown once): cope webhooks add https://example.com/hook"""
    body = {"name": name, "url": url, **_given(event, concurrency)}
    _print_json(_client(context).post(_PATH, body=body, cast_to=object))


@webhooks.command()
def update(
    context: typer.Context,
    endpoint: str,
    url: Annotated[str | None, typer.Option(help="Another address; enables a disabled endpoint.")] = None,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    event: Events = None,
    concurrency: AtOnce = None,
    enable: Annotated[bool | None, typer.Option("--enable/--disable", help="Tell it things again, or no more.")] = None,
) -> None:
    """Change an endpoint (prints JSON): cope webhooks update we_01… --enable"""
    given = {"url": url, "name": name}
    body: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    body |= _given(event, concurrency)
    if enable is not None:
        body["cope"] = {**body.get("cope", {}), "disabled": not enable}
    if not body:
        raise BadInput("say what to change: --url, --name, --event, --concurrency, --enable or --disable")
    _print_json(_client(context).post(f"{_PATH}/{endpoint}", body=body, cast_to=object))


@webhooks.command()
def delete(context: typer.Context, endpoint: str) -> None:
    """Delete an endpoint: nothing more is sent to it."""
    _print_json(_client(context).delete(f"{_PATH}/{endpoint}", cast_to=object))


@webhooks.command()
def rotate(
    context: typer.Context,
    endpoint: str,
    keep_old: Annotated[bool, typer.Option("--keep-old", help="The old secret signs too for 24 hours.")] = False,
) -> None:
    """Make a new secret, shown once (prints JSON): cope webhooks rotate we_01… --keep-old"""
    body = {"keep_old_secret_active_for_24_hours": keep_old}
    _print_json(_client(context).post(f"{_PATH}/{endpoint}/rotate_secret", body=body, cast_to=object))


@webhooks.command(name="test")
def sample(
    context: typer.Context,
    endpoint: str,
    event: Annotated[str, typer.Option(help="The event type to send a sample of.")] = "batch.completed",
    as_json: Json = False,
) -> None:
    """Send a sample now and say what the endpoint answers."""
    found: Any = _client(context).post(f"{_PATH}/{endpoint}/test", body={"event_type": event}, cast_to=object)
    if as_json:
        _print_json(found)
    else:
        sys.stdout.write(f"{found['status_code']} after {found['cope']['took_ms']} ms\n")
    if not 200 <= found["status_code"] < 300:
        raise typer.Exit(_FAILED)


@webhooks.command()
def types(context: typer.Context) -> None:
    """List the events that an endpoint can ask for."""
    found: Any = _client(context).get("/webhook_event_types", cast_to=object)
    sys.stdout.write("".join(f"{one}\n" for one in found["data"]))


@webhooks.command()
def deliveries(
    context: typer.Context,
    endpoint: Annotated[str | None, typer.Argument(help="One endpoint's; all without it.")] = None,
    status: Annotated[str | None, typer.Option(help="pending, delivered or dead.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List what was sent, newest first: cope webhooks deliveries we_01… --status dead"""
    path = "/webhook_deliveries" if endpoint is None else f"{_PATH}/{endpoint}/deliveries"
    asked = {"status": status, "since": _moment(since), "until": _moment(until)}
    query = {name: str(value) for name, value in asked.items() if value is not None}
    found: list[dict[str, Any]] = []
    for one in _pages(_client(context), path, query):
        if len(found) == limit:
            break
        found.append(one)
    if as_json:
        _print_json(found)
        return
    table = Table("id", "made", "event", "status", "attempts", "last answer", "next")
    for one in found:
        last, due = one["last_attempt"], one["next_attempt_at"]
        answer = "" if last is None else f"{last['status_code'] or last['error']} · {last['latency_ms']} ms"
        made = _clock(one["created_at"])
        table.add_row(
            one["id"], made, one["event_type"], one["status"], str(one["attempts"]), answer, due and _clock(due)
        )
    Console(highlight=False).print(table)


@webhooks.command()
def delivery(context: typer.Context, delivery: str) -> None:
    """Show one delivery with its request and every answer (prints JSON)."""
    _print_json(_client(context).get(f"/webhook_deliveries/{delivery}", cast_to=object))


@webhooks.command()
def redeliver(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="A delivery (whd_…), or an endpoint (we_…) with --since.")],
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what was delivered.")] = False,
    as_json: Json = False,
) -> None:
    """Send again what failed, under its old ids: cope webhooks redeliver we_01… --since 2d"""
    client = _client(context)
    if target.startswith("whd_"):
        found: Any = client.post(f"/webhook_deliveries/{target}/redeliver", cast_to=object)
        _print_json(found) if as_json else sys.stdout.write(f"{target} is due again\n")
        return
    start = _moment(since)
    if start is None:
        raise BadInput("say since when: --since 2d, or name a delivery (whd_…)")
    body: dict[str, Any] = {"since": start, "only_failed": not everything}
    if until is not None:
        body["until"] = _moment(until)
    ids: list[str] = []
    while True:
        page: Any = client.post(f"{_PATH}/{target}/redeliver", body=body, cast_to=object)
        ids += page["delivery_ids"]
        if not page["has_more"]:
            break
        body["after"] = page["last_id"]
    _print_json(ids) if as_json else sys.stdout.write(f"{len(ids)} deliveries are due again\n")


def _pages(client: OpenAI, path: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
    after: dict[str, str] = {}
    while True:
        asked = {**query, **after, "limit": "100"}
        page: Any = client.get(path, cast_to=object, options={"params": asked})
        yield from page["data"]
        if not page["has_more"]:
            return
        after = {"after": page["last_id"]}


def _given(event: list[str] | None, concurrency: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {"event_types": event} if event else {}
    return body if concurrency is None else {**body, "cope": {"concurrency": concurrency}}


def _state(own: dict[str, Any]) -> str:
    if own["disabled_at"] is not None:
        return f"disabled ({own['disabled_reason']}) since {_clock(own['disabled_at'])}"
    failing = own["failing"]
    if failing is None:
        return "well"
    return f"failing since {_clock(failing['since'])}: {failing['last_status_code'] or failing['last_error']}"


def _moment(text: str | None) -> int | None:
    """Unix seconds of ``2d`` ago or of a date. Raises `BadInput`."""
    if text is None:
        return None
    ago = re.fullmatch(r"([0-9]{1,5})([mhd])", text)
    if ago is not None:
        return int((datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).timestamp())
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{text!r} is no time: 90m, 12h, 2d (ago) or 2026-11-25T08:00 (UTC)") from None
    return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())


def _clock(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


def _client(context: typer.Context) -> OpenAI:
    return find_address(*context.obj).client()


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
