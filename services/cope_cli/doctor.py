"""`cope doctor`: what a deployment lacks, and how to mend it."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cope_cli.address import find_address

FAILED = 1
_MARK = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Look at the database, broker, files, models, prices and books, and say what to mend (operator).

    No paid call is made. Exit code 1: something fails.
    """
    found: Any = find_address(*context.obj).client(admin=True).get("/organization/doctor", cast_to=object)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    else:
        table = Table("", "check", "finding", "what to do")
        for one in found["findings"]:
            table.add_row(_MARK[one["status"]], one["check"], one["message"], one["mend"] or "")
        Console(highlight=False).print(table)
    if found["status"] == "fail":
        raise typer.Exit(FAILED)
