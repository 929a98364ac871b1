"""`cope spend` and `cope receipt`: where the money went, whether the books are right, what is in doubt."""

import contextlib
import csv
import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from openai import OpenAI
from rich.console import Console
from rich.table import Table

from cope.core.money import NanoUSD, format_usd
from cope.core.redaction import inert_cell
from cope_cli.address import Address, find_address
from cope_cli.plain import stream

FAILED = 1
STDOUT = "-"
_FIELDS = {
    "project": ("project_id",),
    "key": ("api_key_id",),
    "batch": ("batch_id",),
    "model": ("model",),
    "stage": ("stage",),
    "step": ("step",),
    "day": ("day",),
    "line_item": (),
}

AllProjects = Annotated[bool, typer.Option("--all-projects", help="Every project (operator).")]
Project = Annotated[str | None, typer.Option(help="A project's id (operator); else the key's own.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


class By(StrEnum):
    """What a table is told by."""

    PROJECT = "project"
    BATCH = "batch"
    MODEL = "model"
    STAGE = "stage"
    STEP = "step"
    DAY = "day"
    KEY = "key"
    LINE_ITEM = "line_item"


def spend(
    context: typer.Context,
    by: Annotated[By, typer.Option(help="What to tell the money apart by.")] = By.MODEL,
    month: Annotated[str | None, typer.Option(help="Such as 2026-11; this month by default.")] = None,
    project: Project = None,
    all_projects: AllProjects = False,
    csv_file: Annotated[str | None, typer.Option("--csv", help="Write the table as CSV to a file, or - .")] = None,
    ledger: Annotated[str | None, typer.Option(help="Write every row of the ledger as CSV to a file, or - .")] = None,
    unconfirmed: Annotated[bool, typer.Option("--unconfirmed", help="What was sent and never confirmed.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Are the budgets what the ledger adds up to?")] = False,
    as_json: Json = False,
) -> None:
    """Show where a month's money went, for example: cope spend --by batch --month 2026-11"""
    address, admin = reporter(context, project, everywhere=all_projects or by is By.PROJECT)
    client, query = address.client(admin=admin), {"project_id": project} if project and not all_projects else {}
    month = month or f"{datetime.now(UTC):%Y-%m}"
    if check:
        _check(client, query, as_json=as_json)
    elif unconfirmed:
        _unconfirmed(client, query, as_json=as_json)
    elif ledger is not None:
        with _opened(ledger) as out:
            for piece in stream(address, "/organization/ledger.csv", {**query, "month": month}, admin=admin):
                out.write(piece)
    else:
        _table(client, query, by, month, csv_file, as_json=as_json)


def receipt(
    context: typer.Context,
    batch: Annotated[str | None, typer.Argument(help="A batch; without it the project's month.")] = None,
    month: Annotated[str | None, typer.Option(help="Such as 2026-11; this month by default.")] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Print what a batch or a project's month has cost, for example: cope receipt batch_01…"""
    address, admin = reporter(context, project, everywhere=False)
    client = address.client(admin=admin and batch is None)
    month = month or f"{datetime.now(UTC):%Y-%m}"
    path = f"/batches/{batch}/receipt" if batch else f"/organization/projects/{project or 'me'}/receipts/{month}"
    if as_json:
        _print_json(client.get(path, cast_to=object))
    else:
        sys.stdout.write(client.get(path, cast_to=str, options={"headers": {"Accept": "text/plain"}}))


def reporter(context: typer.Context, project: str | None, *, everywhere: bool) -> tuple[Address, bool]:
    """The service, and whether to ask as the operator: for a named project, for all, or where no other key is known."""
    address: Address = find_address(*context.obj)
    return address, everywhere or project is not None or not address.api_key


# ---- the table -----------------------------------------------------------------------------------------------------


def _table(client: OpenAI, query: dict[str, str], by: By, month: str, csv_file: str | None, *, as_json: bool) -> None:
    asked = {
        **query,
        "month": month,
        "group_by": by.value,
        "bucket_width": "1d" if by is By.DAY else "1mo",
        "limit": "31",
    }
    page: Any = client.get("/organization/costs", cast_to=object, options={"params": asked})
    if as_json:
        _print_json(page)
        return
    rows = [_row(by, bucket, result) for bucket in page["data"] for result in bucket["results"]]
    rows.sort(key=lambda row: row["day"] if by is By.DAY else -row["amount_nanousd"])
    if csv_file is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=[by.value, *_NUMBERS])
        writer.writeheader()
        writer.writerows({**row, by.value: inert_cell(str(row[by.value] or ""))} for row in rows)
        with _opened(csv_file) as out:
            out.write(text.getvalue().encode())
        return
    total = NanoUSD(sum(row["amount_nanousd"] for row in rows))
    table = Table(by.value, "kind", "calls", "prompt", "output", "USD", title=f"{month} ({page['cope']['time_zone']})")
    for row in rows:
        tokens = (f"{row[name]:,}" for name in ("calls", "prompt_tokens", "completion_tokens"))
        table.add_row(str(row[by.value] or "none"), row["kind"], *tokens, row["amount_usd"])
    table.add_section()
    table.add_row("total", "", "", "", "", format_usd(total))
    console = Console(highlight=False)
    console.print(table)
    apart = page["cope"]
    if apart["reserved_nanousd"] or apart["unconfirmed_nanousd"]:
        console.print(f"Beside it: reserved ${apart['reserved_usd']} · unconfirmed ${apart['unconfirmed_usd']}")


_NUMBERS = (
    "kind",
    "steps",
    "calls",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "amount_usd",
    "amount_nanousd",
)


def _row(by: By, bucket: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    told = {**result, **result["cope"], "day": bucket["cope"]["day"]}
    name = next((told[field] for field in _FIELDS[by.value]), told["line_item"])
    return {by.value: name, **{number: told[number] for number in _NUMBERS}}


# ---- checks --------------------------------------------------------------------------------------------------------


def _check(client: OpenAI, query: dict[str, str], *, as_json: bool) -> None:
    found: Any = client.get("/organization/ledger_check", cast_to=object, options={"params": query})
    if as_json:
        _print_json(found)
    elif not found["difference_nanousd"]:
        sys.stdout.write("The budgets are exactly what the ledger adds up to.\n")
    else:
        sys.stdout.write(f"The budgets differ from the ledger by {found['difference_nanousd']} nano-dollars:\n")
        for row in found["rows"]:
            sums = ", ".join(f"{name} {row[f'{name}_nanousd']:+d}" for name in _SUMS if row[f"{name}_nanousd"])
            sys.stdout.write(f"  {row['project_id']} {row['scope']} {row['month'] or ''}: {sums}\n")
    if found["difference_nanousd"]:
        raise typer.Exit(FAILED)


_SUMS = ("spent", "reserved", "unconfirmed", "overrun")


def _unconfirmed(client: OpenAI, query: dict[str, str], *, as_json: bool) -> None:
    page: Any = client.get("/organization/unconfirmed", cast_to=object, options={"params": query})
    if as_json:
        _print_json(page)
        return
    console = Console(highlight=False)
    table = Table("age", "reserve USD", "model", "request id", "batch")
    for item in page["data"]:
        table.add_row(
            _age(item["age_s"]),
            item["reserved_usd"],
            item["model"],
            item["request_id"],
            item["batch_id"] or "live call",
        )
    if page["data"]:
        console.print(table)
    told = page["cope"]
    ages = " · ".join(f"{g['age']}: {g['attempts']} (${g['reserved_usd']})" for g in told["by_age"] if g["attempts"])
    console.print(f"{told['attempts']} unconfirmed, ${told['unconfirmed_usd']}" + (f" · {ages}" if ages else ""))
    if page["has_more"]:
        console.print(f"Shown are the {len(page['data'])} oldest.")


def _age(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


# ---- files ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(target: str) -> Iterator[IO[bytes]]:
    if target == STDOUT:
        yield sys.stdout.buffer
        return
    with Path(target).open("wb") as out:
        yield out


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
