"""`cope`: submit batches, watch them, read results, see why a task escalated, manage money and keys.

Exit codes: 0 done · 1 the batch or line failed · 2 refused or wrongly called · 3 the service can't be reached · 4 `cope
wait` gave up.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import openai
import typer
from openai import OpenAI
from rich.console import Console

from cope_cli.address import Address, NoAddress, find_address
from cope_cli.alerts import register
from cope_cli.audit import audit
from cope_cli.backup import register as register_backup
from cope_cli.budget import budget
from cope_cli.calibrate import calibrate, read_policy_file
from cope_cli.cascade_flags import Cache, P1Star, StopFlag, Waves, cascade_block
from cope_cli.doctor import doctor
from cope_cli.events import events
from cope_cli.follow import results, wait
from cope_cli.keys import keys
from cope_cli.life_cycle import cancellable, submit_stream
from cope_cli.life_cycle import register as register_life_cycle
from cope_cli.lines import BadInput, batch_lines
from cope_cli.options import Options, options_of
from cope_cli.prices import prices
from cope_cli.quote import print_quote, quote
from cope_cli.reconcile import reconcile
from cope_cli.retention import retention
from cope_cli.show import batches_table, summary, task_story, watch
from cope_cli.spend import receipt, spend
from cope_cli.train_scorer import train_scorer
from cope_cli.webhooks import webhooks

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(prices, name="prices")
app.add_typer(webhooks, name="webhooks")
app.add_typer(keys, name="keys")
app.command()(budget)
app.command()(audit)
app.command()(calibrate)
app.command()(doctor)
app.command()(events)
app.command()(retention)
app.command()(train_scorer)
FAILED, REFUSED, UNREACHABLE = 1, 2, 3
register(app)
register_backup(app)
register_life_cycle(app)

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@app.callback()
def options(
    context: typer.Context,
    base_url: Annotated[str | None, typer.Option(help="The API, ending in /v1.")] = None,
    api_key: Annotated[str | None, typer.Option(help="A project's key.")] = None,
    admin_key: Annotated[str | None, typer.Option(help="The operator's key.")] = None,
) -> None:
    """Where the service is; by default COPE_BASE_URL and COPE_API_KEY, else the local stack of this directory."""
    context.obj = (base_url, api_key, admin_key)


@app.command()
def submit(
    context: typer.Context,
    file: Path,
    policy: Annotated[str, typer.Option(help="A policy or a configured model, such as cope@0.75,0.5.")] = "cope",
    policy_file: Annotated[Path | None, typer.Option(help="What `cope calibrate` wrote.")] = None,
    kind: Annotated[str | None, typer.Option(help="math, choice, exact, code, open or action.")] = None,
    store: Annotated[str | None, typer.Option(help="full, answers or none.")] = None,
    window: Annotated[str, typer.Option(help="Completion window, 1h to 7d, or none.")] = "24h",
    webhook_url: Annotated[str | None, typer.Option(help="Told when the batch ends.")] = None,
    max_cost: Annotated[str | None, typer.Option(help="What the whole batch may cost, in USD.")] = None,
    on_budget: Annotated[str | None, typer.Option(help="When the money is gone: hold, best_vote or fail.")] = None,
    option: Options = None,
    waves: Waves = None,
    stop: StopFlag = None,
    p1_star: P1Star = None,
    cache: Cache = None,
    follow: Annotated[bool, typer.Option("--watch", help="Show progress until it ends.")] = False,
    as_json: Json = False,
) -> None:
    """Submit FILE.jsonl, FILE.csv or - (lines as they come), for example: cope submit problems.csv --watch"""
    client = _address(context).client()
    given = {"kind": kind, "store": store, "webhook_url": webhook_url, "max_cost_usd": max_cost, "on_budget": on_budget}
    block = {name: value for name, value in given.items() if value is not None}
    block |= cascade_block(options_of(option, policy), policy, waves=waves, stop=stop, p1_star=p1_star, cache=cache)
    if policy_file is not None:
        block = {**read_policy_file(policy_file), **block}
    if str(file) == "-":
        begun = submit_stream(client, policy=policy, window=window, block=block)
        _end(_console(), watch(_console(), client, str(begun["id"])) if follow else begun, as_json=as_json)
        return
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as lines:
        for line in batch_lines(file, policy):
            lines.write(line + "\n")
        lines.flush()
        uploaded = client.files.create(file=Path(lines.name), purpose="batch")
    batch = client.batches.create(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window=window,  # type: ignore[arg-type]
        extra_body={"cope": block} if block else None,
    ).to_dict()
    _end(_console(), watch(_console(), client, str(batch["id"])) if follow else batch, as_json=as_json)


@app.command(name="quote")
def quote_command(
    context: typer.Context,
    file: Path,
    policy: Annotated[str, typer.Option(help="A policy or a configured model, such as cope@0.75,0.5.")] = "cope",
    kind: Annotated[str | None, typer.Option(help="math, choice, exact, code, open or action.")] = None,
    window: Annotated[str, typer.Option(help="Completion window, 1h to 7d, or none.")] = "24h",
    pilot_lines: Annotated[int | None, typer.Option(help="Lines tried on the small model, 0 to 2000.")] = None,
    option: Options = None,
    waves: Waves = None,
    stop: StopFlag = None,
    p1_star: P1Star = None,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Say what FILE will cost, and spend nothing: cope quote problems.csv --policy cope"""
    block = cascade_block(options_of(option, policy), policy, waves=waves, stop=stop, p1_star=p1_star, cache=cache)
    client, block = _address(context).client(), block | ({} if kind is None else {"kind": kind})
    batch = quote(_console(), client, file, policy=policy, window=window, pilot_lines=pilot_lines, cope=block)
    if batch["cope"]["quote"] is not None:
        if as_json:
            _print_json(batch)
        else:
            print_quote(_console(), batch, str(client.base_url))
        raise typer.Exit(0 if batch["status"] == "completed" else FAILED)
    _end(_console(), batch, as_json=as_json)


@app.command(name="watch")
def watch_command(context: typer.Context, batch: str, as_json: Json = False) -> None:
    """Show a batch's progress until it ends, for example: cope watch batch_01…"""
    _end(_console(), watch(_console(), _address(context).client(), batch), as_json=as_json)


@app.command()
def show(context: typer.Context, task: str, as_json: Json = False) -> None:
    """Tell a task's whole story: plans, samples, votes, why it escalated. For example: cope show task_01…"""
    found = _get(_address(context).client(), f"/tasks/{task}")
    if as_json:
        _print_json(found)
    else:
        task_story(_console(), found)


@app.command()
def batches(context: typer.Context, limit: int = 20, as_json: Json = False) -> None:
    """List batches, newest first."""
    page = _get(_address(context).client(), f"/batches?limit={limit}")
    if as_json:
        _print_json(page)
    else:
        _console().print(batches_table(page["data"]))


@app.command()
def cancel(
    context: typer.Context,
    batch: Annotated[str | None, typer.Argument(help="A batch's id.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every batch of the project that has not ended.")] = False,
    as_json: Json = False,
) -> None:
    """Cancel a batch; finished lines are kept: cope cancel batch_01…, or cope cancel --all"""
    if (batch is None) is not every:
        _fail("name a batch, or say --all", REFUSED)
    client = _address(context).client()
    for one in [batch] if batch is not None else cancellable(client):
        found = client.batches.cancel(one).to_dict()
        _print_json(found) if as_json else _console().print(summary(found))


@app.command()
def projects(
    context: typer.Context, create: Annotated[str | None, typer.Option(help="Name of a new project.")] = None
) -> None:
    """List projects, or make one: cope projects --create team-a (operator; prints JSON)."""
    client = _address(context).client(admin=True)
    path = "/organization/projects"
    _print_json(_get(client, path) if create is None else client.post(path, body={"name": create}, cast_to=object))


for command in (spend, receipt, reconcile, results, wait):
    app.command()(command)


def _address(context: typer.Context) -> Address:
    return find_address(*context.obj)


def _console() -> Console:
    return Console(highlight=False)


def _get(client: OpenAI, path: str) -> Any:
    return client.get(path, cast_to=object)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _end(console: Console, batch: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print_json(batch)
    else:
        console.print(batch["id"], soft_wrap=True)
        console.print(summary(batch), soft_wrap=True)
        for error in ((batch.get("errors") or {}).get("data") or [])[:10]:
            console.print(f"line {error['line']}: {error['message']}", markup=False, soft_wrap=True)
    if batch["status"] in {"failed", "expired", "cancelled"} or batch["request_counts"]["failed"]:
        raise typer.Exit(FAILED)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"cope: {message}\n")
    raise typer.Exit(code)


def run() -> None:
    """The entry point: what goes wrong becomes one line and an exit code."""
    try:
        app()
    except (NoAddress, BadInput) as wrong:
        sys.stderr.write(f"cope: {wrong}\n")
        raise SystemExit(REFUSED) from None
    except openai.APIConnectionError as away:
        sys.stderr.write(f"cope: the service can't be reached at {away.request.url}\n")
        raise SystemExit(UNREACHABLE) from None
    except openai.APIStatusError as refused:
        sys.stderr.write(f"cope: {refused.message}\n")
        raise SystemExit(REFUSED if refused.status_code < 500 else UNREACHABLE) from None


if __name__ == "__main__":
    run()
