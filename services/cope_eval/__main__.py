"""`cope-eval`: play household games through a COPE service, one decision per request, and say what came of it.

Exit codes: 0 every game was played · 1 a request went unanswered; the same command goes on from there · 2 refused or
wrongly called.
"""

import json
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from openai import OpenAI
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cope.core.money import format_usd
from cope_eval.address import find_address
from cope_eval.alfworld_games import alfworld_games
from cope_eval.game import Games, NoGames
from cope_eval.journal import Journal, OtherRun
from cope_eval.own.make import OwnGames
from cope_eval.play import Diverged, play
from cope_eval.report import Summary, seconds_left, summarise
from cope_eval.service import Batches, Decider, Live, NotAnswered, Request

UNANSWERED, REFUSED = 1, 2
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


class Source(StrEnum):
    """Where the games come from."""

    OWN = "own"
    ALFWORLD = "alfworld"


@app.callback()
def _about() -> None:
    """So that `household` keeps its name while it is the only command."""


@app.command()
def household(
    games: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    seed: Annotated[int, typer.Option(help="Which games: equal seeds are equal games.")] = 0,
    model: Annotated[str, typer.Option(help="A policy, such as cope@0.75,0.5, small-majority or large.")] = "cope",
    max_steps: Annotated[int, typer.Option(min=1, help="Decisions of one game at most.")] = 30,
    batch: Annotated[bool, typer.Option("--batch", help="One batch per step instead of live requests.")] = False,
    at_once: Annotated[int, typer.Option(min=1, max=1000, help="Games under way at once, one step each.")] = 32,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Live requests at once.")] = 8,
    results: Annotated[Path | None, typer.Option(help="The results file; a run is taken up from it.")] = None,
    source: Annotated[Source, typer.Option(help="own: made here. alfworld: by its engine, an extra.")] = Source.OWN,
    game_files: Annotated[Path | None, typer.Option(help="Of alfworld: a folder of games.")] = None,
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="Of `cope`, as KEY=VALUE.")] = None,
    base_url: Annotated[str | None, typer.Option(help="The API, ending in /v1.")] = None,
    api_key: Annotated[str | None, typer.Option(help="A project's key.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Play household games: cope-eval household --games 50 --seed 1 --model cope"""
    try:
        chosen = _games(source, game_files, games=games, seed=seed)
        request = Request(model, _options(option))
        url, key = find_address(base_url, api_key)
        options = dict(request.options)
        run = {"games": chosen.name, "model": model, "options": options, "max_steps": max_steps, "at_once": at_once}
        path = results or Path(f"household-{source.value}-{seed}-{model.replace('/', '_')}.jsonl")
        journal = Journal.open(path, run)
    except (NoGames, OtherRun, OSError, ValueError) as wrong:
        _end(str(wrong), REFUSED)
    client = OpenAI(base_url=url, api_key=key, max_retries=2)
    decider: Decider = Live(client, request, concurrency=concurrency)
    if batch:
        decider = Batches(client, request, journal, sleep=time.sleep)
    console = Console(stderr=True)
    try:
        with _progress(console) as progress:
            tell = _teller(progress, journal, games=len(chosen), max_steps=max_steps)
            play(chosen, range(len(chosen)), decider, journal, max_steps=max_steps, at_once=at_once, tell=tell)
    except NotAnswered as error:
        _end(f"{error}\nThe same command goes on from {path}.", UNANSWERED)
    except (Diverged, NoGames) as error:
        _end(str(error), REFUSED)
    except KeyboardInterrupt:
        _end(f"stopped; the same command goes on from {path}.", UNANSWERED)
    finally:
        journal.close()
        client.close()
    _print(summarise(journal), path, as_json=as_json)


def run() -> None:
    """The entry point `cope-eval`."""
    app()


def _games(source: Source, folder: Path | None, *, games: int, seed: int) -> Games:
    if source is Source.OWN:
        if folder is not None:
            raise NoGames("--game-files belongs to --source alfworld.")
        return OwnGames(seed, games)
    return alfworld_games(folder, games=games, seed=seed)


def _options(given: list[str] | None) -> dict[str, Any]:
    """`KEY=VALUE` as the `cope` block has them. A value is JSON where it can be read so, else text; numbers with a
    point stay text, so that no digit of a threshold is lost. Raises `ValueError`."""
    block: dict[str, Any] = {}
    for one in given or []:
        key, equals, value = one.partition("=")
        if not equals or not key or key in block or key in {"kind", "actions"}:
            raise ValueError(f"--option {one!r}: give KEY=VALUE, each key once, and neither kind nor actions.")
        try:
            read = json.loads(value)
        except ValueError:
            read = value
        block[key] = value if isinstance(read, float) else read
    return block


def _progress(console: Console) -> Progress:
    columns = (BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} games · {task.description}"))
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)


def _teller(progress: Progress, journal: Journal, *, games: int, max_steps: int) -> Callable[[], None]:
    bar: TaskID = progress.add_task("beginning", total=games, completed=len(journal.results))
    began, before = time.monotonic(), summarise(journal).decisions

    def tell() -> None:
        so_far = summarise(journal)
        made, elapsed_s = so_far.decisions - before, time.monotonic() - began
        left = seconds_left(so_far, games=games, max_steps=max_steps, now_made=made, elapsed_s=elapsed_s)
        told = f"{so_far.won} won · {so_far.decisions} decisions · ${format_usd(so_far.spent)}{_told(left)}"
        progress.update(bar, completed=so_far.games, description=told)

    return tell


def _told(left_s: float | None) -> str:
    if left_s is None:
        return ""
    return f" · about {left_s / 60:.0f} min left" if left_s > 90 else f" · about {left_s:.0f} s left"


def _print(found: Summary, path: Path, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(found.as_json(), indent=1) + "\n")
        return
    table = Table(show_header=False)
    share = found.won / found.games if found.games else 0.0
    large = found.escalated / found.decisions if found.decisions else 0.0
    steps = "none" if found.mean_steps is None else f"{found.mean_steps:.1f}"
    stages = ", ".join(f"stage {stage}: {count}" for stage, count in sorted(found.by_stage.items()))
    for name, value in (
        ("games", str(found.games)),
        ("won", f"{found.won} ({100 * share:.1f} %, 95 % interval {100 * found.low:.1f} to {100 * found.high:.1f})"),
        ("steps of a game", steps),
        ("decisions", f"{found.decisions} ({stages})"),
        ("no admissible action", f"{found.invalid} decisions"),
        ("asked the large model", f"{found.escalated} decisions ({100 * large:.1f} %), {found.large_calls} calls"),
        ("spent", f"${format_usd(found.spent)}"),
        *((f"won of {kind}", f"{won} of {games}") for kind, (won, games) in sorted(found.by_kind.items())),
    ):
        table.add_row(name, value)
    Console().print(table)
    sys.stdout.write(f"Every decision is in {path}.\n")


def _end(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"cope-eval: {message}\n")
    raise typer.Exit(code)


if __name__ == "__main__":
    run()
