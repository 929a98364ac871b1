"""`cope train-scorer`: a scorer for policy `frugalgpt` from labelled answers, its thresholds fitted under a budget."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Never

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table

from cope.adapters.logistic import ScorerExtraMissing, logistic_fitter, need_scikit_learn
from cope.core.confidence import parse_threshold
from cope.core.money import NanoUSD, format_usd
from cope.core.scorer import Scorer, decode_scorer, encode_scorer
from cope.core.scorer_report import Budget, alone_report, budget_report, parse_budget
from cope.core.scorer_thresholds import MILLION, CannotFit, fit_thresholds
from cope.core.scorer_training import Trained, check_models, split, train, with_thresholds
from cope_cli.lines import BadInput
from cope_cli.train_rows import graded, labelled_rows, result_rows

REFUSED = 2


def train_scorer(
    models: Annotated[str, typer.Option(help="In the order in which they are asked: small-a,large-b")],
    name: Annotated[str, typer.Option(help="What requests call it: -o scorer=NAME")],
    out: Annotated[Path, typer.Option(help="The scorer's file, in a folder that is COPE_SCORERS_DIR.")],
    rows: Annotated[list[Path] | None, typer.Argument(help="JSONL of labelled answers.")] = None,
    results: Annotated[list[Path] | None, typer.Option(help="A batch's output file; may be repeated.")] = None,
    problems: Annotated[Path | None, typer.Option(help="With --results: the file that was submitted.")] = None,
    labels: Annotated[Path | None, typer.Option(help="With --results: JSONL of custom_id and answer.")] = None,
    budget_usd: Annotated[str | None, typer.Option(help="Mean cost per task, in USD: 0.0004")] = None,
    budget_usd_per_million: Annotated[str | None, typer.Option(help="The same per million tasks: 400")] = None,
    compare_usd: Annotated[list[str] | None, typer.Option(help="Another budget per task to show, repeatable.")] = None,
    fit_share: Annotated[str, typer.Option(help="Of the problems: thresholds are fitted on these.")] = "0.25",
    test_share: Annotated[str, typer.Option(help="Of the problems: the report is made on these.")] = "0.25",
    seed: Annotated[int, typer.Option(help="Draws the parts; equal seeds and rows give equal files.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
) -> None:
    """Train FrugalGPT's scorer: cope train-scorer rows.jsonl --models a,b --name s --budget-usd 0.0004 --out s.json

    Or from batches: --results a.jsonl --results b.jsonl --problems problems.jsonl --labels gold.jsonl
    """
    console = Console(stderr=True, highlight=False)
    try:
        need_scikit_learn()
        budgets = _budgets(budget_usd, budget_usd_per_million, compare_usd or [])
        asked = [model.strip() for model in models.split(",")]
        shares = parse_threshold(fit_share), parse_threshold(test_share)
        with console.status("reading rows") as status:
            trained, skipped = _trained(
                (rows or [], results or [], problems, labels), asked, name, seed, shares, status
            )
            status.update("fitting thresholds")
            scorer, report = _fitted(trained, budgets)
    except (ScorerExtraMissing, CannotFit, ValueError) as wrong:
        _refuse(str(wrong))
    report |= {
        "seed": seed,
        "fit_share": fit_share,
        "test_share": test_share,
        "training_rows": dict(trained.rows),
        "skipped": skipped,
        "incomplete_problems": trained.incomplete,
        "inputs": [_input(path) for path in [*(rows or []), *(results or []), problems, labels] if path],
    }
    _write(out, json.dumps({**encode_scorer(scorer), "trained": report}, indent=1, ensure_ascii=False) + "\n")
    if as_json:
        sys.stdout.write(json.dumps({"name": name, "version": scorer.version, **report}, ensure_ascii=False) + "\n")
    else:
        _show(Console(highlight=False), report)
    sys.stderr.write(
        f"cope: wrote {out} (version {scorer.version}); restart the service with its folder as COPE_SCORERS_DIR, then: "
        f"cope submit FILE --policy frugalgpt -o scorer={name}\n"
    )


def _trained(
    given: tuple[Sequence[Path], Sequence[Path], Path | None, Path | None],
    models: Sequence[str],
    name: str,
    seed: int,
    shares: tuple[Fraction, Fraction],
    status: Status,
) -> tuple[Trained, dict[str, int]]:
    files, results, problems, labels = given
    if not files and not results:
        raise ValueError("give a file of labelled rows, or --results with --problems and --labels")
    if bool(results) is not (problems is not None and labels is not None) or (problems is None) is not (labels is None):
        raise ValueError("--results, --problems and --labels belong together: an output file holds no problems")
    rows, skipped = labelled_rows(files), dict[str, int]()
    if results and problems is not None and labels is not None:
        found, skipped = result_rows(results, problems, labels)
        rows += found
    # Before the answers are compared, which may take minutes.
    check_models(rows, models)
    parts = split((row.group for row in rows), seed, *shares)
    rows = graded(rows, status.update)
    status.update(f"training on {len(rows)} rows")
    return train(rows, models, name, parts, logistic_fitter(seed)), skipped


def _fitted(trained: Trained, budgets: Sequence[Budget]) -> tuple[Scorer, dict[str, Any]]:
    """The scorer at the first budget, and what each budget gives. A compared budget that can't be kept is told."""
    fit = fit_thresholds(trained.fit, budgets[0].per_million)
    table = [budget_report(budgets[0], fit, trained)]
    for budget in budgets[1:]:
        try:
            table.append(budget_report(budget, fit_thresholds(trained.fit, budget.per_million), trained))
        except CannotFit as wrong:
            table.append({"budget": budget.told, "error": str(wrong)})
    scorer = with_thresholds(trained.scorer, fit.thresholds)
    # What is written is what is read: a name or a weight that the service would refuse is refused here.
    decode_scorer(encode_scorer(scorer))
    return scorer, {"budgets": table, "each_alone": alone_report(trained.test, scorer.models)}


def _budgets(per_task: str | None, per_million: str | None, compared: Sequence[str]) -> list[Budget]:
    if (per_task is None) is (per_million is None):
        raise ValueError("give one of --budget-usd (per task) and --budget-usd-per-million")
    first = parse_budget(per_task, 1) if per_task is not None else parse_budget(per_million or "", MILLION)
    return [first, *(parse_budget(text, 1) for text in compared)]


def _show(console: Console, report: dict[str, Any]) -> None:
    tasks = report["budgets"][0]["test"]["tasks"]
    table = Table(title=f"On {tasks} tasks that nothing was learned or chosen from")
    for column in ("budget", "thresholds", "right (95 %)", "cost per task", "answered by"):
        table.add_column(column)
    for row in report["budgets"]:
        if "error" in row:
            table.add_row(row["budget"], "none", "", "", row["error"])
            continue
        test = row["test"]
        table.add_row(
            row["budget"],
            "\n".join(f"{model}: {float(Fraction(t)):.6f}" for model, t in row["thresholds"].items())
            + ("" if row["exhaustive"] else "\n(of thinned ones)"),
            _accuracy(test),
            _usd(test),
            "\n".join(f"{model}: {100 * share:.0f} %" for model, share in test["answered_by"].items()),
        )
    for model, alone in report["each_alone"].items():
        table.add_row(f"{model} alone", "", _accuracy(alone), _usd(alone), "")
    console.print(table)


def _accuracy(found: dict[str, Any]) -> str:
    low, high = found["accuracy_interval"]
    return f"{100 * found['accuracy']:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


def _usd(found: dict[str, Any]) -> str:
    return f"${format_usd(NanoUSD(found['mean_cost_nanousd']))}"


def _write(path: Path, text: str) -> None:
    """All or nothing: whoever reads the folder meanwhile, or an interruption, finds the old file or the new one."""
    try:
        # The dot and the ending keep a half-written file from being read as a scorer.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as wrong:
        _refuse(f"{path}: {wrong}")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _input(path: Path) -> dict[str, str]:
    try:
        return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    except OSError as wrong:
        raise BadInput(f"{path}: {wrong}") from None


def _refuse(message: str) -> Never:
    sys.stderr.write(f"cope: {message}\n")
    raise typer.Exit(REFUSED)
