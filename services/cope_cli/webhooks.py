"""`cope webhooks`: a project's endpoints, what became of the messages to them, and sending them again."""

import json
import sys
import time
from typing import Annotated, Any

import typer
from openai import OpenAI
from rich.console import Console
from rich.table import Table

from cope_cli.address import find_address

webhooks = typer.Typer(no_args_is_help=True, help="Webhook endpoints, their deliveries, and sending those again.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Events = Annotated[list[str] | None, typer.Option("--event", help="An event type; may be repeated.")]
_PATH = "/webhook_endpoints"
_HOUR_S = 3600


@webhooks.command(name="list")
def list_endpoints(context: typer.Context, as_json: Json = False) -> None:
    """The project's endpoints, and which of them fail."""
    found = _get(_client(context), _PATH + "?limit=100")
    if as_json:
        _print(found)
        return
    table = Table("id", "url", "events", "state")
    for one in found["data"]:
        own = one["cope"]
        failing = "failing" if own["failing_since"] else "well"
        state = f"disabled: {own['disabled_reason']}" if own["disabled_at"] else failing
        table.add_row(one["id"], one["url"], "\n".join(one["event_types"]), state)
    Console(highlight=False).print(table)


@webhooks.command()
def add(context: typer.Context, url: str, name: str = "webhook", event: Events = None) -> None:
    """Add an endpoint; its signing secret is printed once: cope webhooks add https://example.com/hook"""
    body = {"name": name, "url": url, **({"event_types": event} if event else {})}
    _print(_client(context).post(_PATH, body=body, cast_to=object))


@webhooks.command()
def update(
    context: typer.Context, endpoint: str, url: str | None = None, name: str | None = None, event: Events = None
) -> None:
    """Change an endpoint; one that was disabled is enabled again."""
    given = {"url": url, "name": name, "event_types": event or None}
    body = {key: value for key, value in given.items() if value is not None}
    _print(_client(context).post(f"{_PATH}/{endpoint}", body=body, cast_to=object))


@webhooks.command()
def rotate(
    context: typer.Context,
    endpoint: str,
    keep_old: Annotated[bool, typer.Option("--keep-old", help="The old secret signs too, for 24 hours.")] = False,
) -> None:
    """Make a new signing secret; it is printed once."""
    body = {"keep_old_secret_active_for_24_hours": keep_old}
    _print(_client(context).post(f"{_PATH}/{endpoint}/rotate_secret", body=body, cast_to=object))


@webhooks.command(name="test")
def send_test(context: typer.Context, endpoint: str, event: str = "batch.completed") -> None:
    """Send one signed message now, and say what was answered. Exit code 1: it was not taken."""
    found: Any = _client(context).post(f"{_PATH}/{endpoint}/test", body={"event_type": event}, cast_to=object)
    _print(found)
    if not found["success"]:
        raise typer.Exit(1)


@webhooks.command()
def delete(context: typer.Context, endpoint: str) -> None:
    """Delete an endpoint; it is told nothing more."""
    _print(_client(context).delete(f"{_PATH}/{endpoint}", cast_to=object))


@webhooks.command()
def deliveries(
    context: typer.Context,
    endpoint: Annotated[str | None, typer.Argument(help="Of one endpoint; without it, of all.")] = None,
    status: Annotated[str | None, typer.Option(help="pending, delivered or dead.")] = None,
    limit: int = 20,
    as_json: Json = False,
) -> None:
    """What became of the messages, newest first. One of them, with its attempts: cope webhooks delivery ID"""
    path = "/webhook_deliveries" if endpoint is None else f"{_PATH}/{endpoint}/deliveries"
    found = _get(_client(context), f"{path}?limit={limit}" + (f"&status={status}" if status else ""))
    if as_json:
        _print(found)
        return
    table = Table("id", "event", "status", "attempts", "last answer", "url")
    for one in found["data"]:
        last = one["last_error"] or one["last_status_code"] or ""
        table.add_row(one["id"], one["event_id"], one["status"], str(one["attempt_count"]), str(last), one["url"])
    Console(highlight=False).print(table)


@webhooks.command()
def delivery(context: typer.Context, delivery_id: str) -> None:
    """One message with every attempt and the head of its answer (prints JSON)."""
    _print(_get(_client(context), f"/webhook_deliveries/{delivery_id}"))


@webhooks.command()
def redeliver(
    context: typer.Context,
    endpoint: str,
    delivery_ids: Annotated[list[str] | None, typer.Argument(help="These; without them, by time.")] = None,
    hours: Annotated[float, typer.Option(help="Without ids: what was made in the last so many hours.")] = 24.0,
    everything: Annotated[bool, typer.Option("--all", help="Also what was delivered.")] = False,
) -> None:
    """Send messages again that failed: cope webhooks redeliver ENDPOINT --hours 48"""
    if delivery_ids:
        body: dict[str, object] = {"delivery_ids": delivery_ids}
    else:
        body = {"since": max(0, int(time.time() - hours * _HOUR_S)), "only_failed": not everything}
    _print(_client(context).post(f"{_PATH}/{endpoint}/redeliver", body=body, cast_to=object))


def _client(context: typer.Context) -> OpenAI:
    return find_address(*context.obj).client()


def _get(client: OpenAI, path: str) -> Any:
    return client.get(path, cast_to=object)


def _print(found: object) -> None:
    sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
