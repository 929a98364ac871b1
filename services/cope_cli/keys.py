"""`cope keys`: a project's API keys, for the operator. Secrets are printed once, when they are made."""

import json
import re
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

import typer
from openai import OpenAI

from cope_cli.address import find_address

REFUSED = 2
keys = typer.Typer(no_args_is_help=True, help="A project's API keys: list, create, rotate, revoke (operator).")

_UNITS = {"m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"([0-9]{1,6})([mhd])", re.ASCII)
Project = Annotated[str, typer.Argument(help="The project's id.")]
Key = Annotated[str, typer.Argument(help="The key's id, key_…")]
Expires = Annotated[str | None, typer.Option("--expires", help="90d, 12h, or a moment such as 2027-01-31T00:00:00Z.")]


@keys.command(name="list")
def list_keys(context: typer.Context, project: Project) -> None:
    """List keys with their scopes, expiry and last use, for example: cope keys list proj_01…"""
    _print(_client(context).get(_path(project), cast_to=object))


@keys.command()
def create(
    context: typer.Context,
    project: Project,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, submit, files, webhooks or spend; may be repeated. Without any, the key may do all."),
    ] = None,
    expires: Expires = None,
) -> None:
    """Make a key; its secret is shown once: cope keys create proj_01… --name ci --scope read --scope submit"""
    own: dict[str, Any] = {"scopes": scope} if scope else {}
    if expires is not None:
        own["expires_at"] = moment(expires, now=time.time())
    body = {"name": name, **({"cope": own} if own else {})}
    path = f"/organization/projects/{project}/service_accounts"
    _print(_client(context).post(path, body=body, cast_to=object))


@keys.command()
def rotate(
    context: typer.Context,
    project: Project,
    key: Key,
    overlap: Annotated[
        str, typer.Option(help="How long the present secret works on: 30m, at most 7d; 0m ends it.")
    ] = "24h",
    expires: Expires = None,
) -> None:
    """Give a key a new secret, shown once; id, scopes and caps stay: cope keys rotate proj_01… key_01… --overlap 24h"""
    body: dict[str, Any] = {"overlap_seconds": _span(overlap)}
    if expires is not None:
        body["expires_at"] = moment(expires, now=time.time())
    # Not repeated by itself: each answer holds a secret that the next one makes useless.
    client = _client(context).with_options(max_retries=0)
    _print(client.post(f"{_path(project)}/{key}/rotate", body=body, cast_to=object))


@keys.command()
def revoke(context: typer.Context, project: Project, key: Key) -> None:
    """Revoke a key, everywhere within a second: cope keys revoke proj_01… key_01…"""
    _print(_client(context).delete(f"{_path(project)}/{key}", cast_to=object))


def moment(text: str, *, now: float) -> int:
    """Unix seconds of a span from `now` (``90d``) or of a moment in ISO 8601 (UTC where no zone is given)."""
    if _SPAN.fullmatch(text):
        return int(now) + _span(text)
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        _refuse(f"--expires {text}: a span such as 90d or 12h, or a moment such as 2027-01-31T00:00:00Z")
    return int((told.replace(tzinfo=UTC) if told.tzinfo is None else told).timestamp())


def _span(text: str) -> int:
    found = _SPAN.fullmatch(text)
    if found is None:
        _refuse(f"{text} is no span of time: write 30m, 24h or 90d")
    return int(found[1]) * _UNITS[found[2]]


def _client(context: typer.Context) -> OpenAI:
    return find_address(*context.obj).client(admin=True)


def _path(project: str) -> str:
    return f"/organization/projects/{project}/api_keys"


def _print(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"cope: {message}\n")
    raise typer.Exit(REFUSED)
