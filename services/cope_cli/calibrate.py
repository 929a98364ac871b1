"""`cope calibrate`: thresholds from a results file, written as a policy file to review, keep and submit with."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Never

import typer

from cope.adapters.answer_helper import grade_all
from cope.core.calibration import CannotCalibrate, Case, Choice, by_budget, by_error, by_share
from cope.core.calibration_rows import Rows, Unusable, policy_block, read_rows
from cope.core.confidence import parse_threshold
from cope.core.money import parse_usd
from cope.core.problem import Kind
from cope.core.theta import DEFAULT
from cope_cli.lines import BadInput

REFUSED = 2
Rule = Callable[[list[Case]], Choice]


def calibrate(
    results: Path,
    share: Annotated[str | None, typer.Option(help="Most tasks that may ask the large model: 0.4")] = None,
    budget_usd: Annotated[str | None, typer.Option(help="Mean cost per task, in USD: 0.0004")] = None,
    max_error: Annotated[str | None, typer.Option(help="Bound on the error among accepted answers: 0.05")] = None,
    confidence: Annotated[str, typer.Option(help="With --max-error: how surely the bound holds.")] = "0.95",
    labels: Annotated[
        Path | None, typer.Option(help="With --max-error: JSONL of custom_id and correct, or answer.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the policy file goes; standard output by default.")] = None,
) -> None:
    """Choose thresholds from a results file: cope calibrate out.jsonl --share 0.4 --out policy.json

    With labels, on rows kept for this alone: cope calibrate out.jsonl --max-error 0.05 --labels gold.jsonl
    """
    given = [name for name, value in (("share", share), ("budget-usd", budget_usd), ("max-error", max_error)) if value]
    if len(given) != 1:
        _refuse("give one of --share, --budget-usd and --max-error")
    if (labels is None) is (max_error is not None):
        _refuse("--labels and --max-error belong together: an error can only be bounded on rows with known answers")
    try:
        lines = list(_jsonl(results))
        rows = read_rows(lines, {} if labels is None else _labels(labels, lines))
        choices = _choices(rows, lambda parts: _rule(share, budget_usd, max_error, confidence, parts=parts))
    except (Unusable, CannotCalibrate) as wrong:
        _refuse(str(wrong))
    rule = {"share": share, "budget_usd": budget_usd, "max_error": max_error}
    report = {
        "rule": {name: value for name, value in rule.items() if value}
        | ({"confidence": confidence} if max_error else {}),
        "results_sha256": hashlib.sha256(results.read_bytes()).hexdigest(),
        "rows": len(rows.all),
        "skipped": rows.skipped,
        "thresholds": {name: _report(rows, choice) for name, choice in choices.items()},
    }
    text = json.dumps({"cope": policy_block(rows, choices), "calibration": report}, indent=1, ensure_ascii=False) + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")
        sys.stderr.write(f"cope: wrote {out}; use it with: cope submit FILE --policy-file {out}\n")


def read_policy_file(path: Path) -> dict[str, Any]:
    """The `cope` block of a policy file. Raises `BadInput`."""
    try:
        block = json.loads(path.read_text(encoding="utf-8"))["cope"]
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        raise BadInput(f"{path}: not a policy file (a JSON object with a `cope` block): {wrong}") from None
    if not isinstance(block, dict):
        raise BadInput(f"{path}: `cope` must be an object")
    return block


def _choices(rows: Rows, rule: Callable[[int], Rule]) -> dict[str, Choice]:
    own = rows.calibrated if rows.kind is Kind.OPEN else ()
    chosen = rule(len(own) + 1)
    return {DEFAULT: chosen(rows.all), **{name: chosen(rows.cases[name]) for name in own if name != DEFAULT}}


def _rule(share: str | None, budget_usd: str | None, max_error: str | None, confidence: str, *, parts: int) -> Rule:
    """`parts` thresholds are chosen at once: each takes its part of the doubt, so that all bounds hold together."""
    try:
        if share is not None:
            wanted = parse_threshold(share)
            return lambda cases: by_share(cases, wanted)
        if budget_usd is not None:
            budget = parse_usd(budget_usd)
            return lambda cases: by_budget(cases, budget)
        most, sure = parse_threshold(max_error or ""), parse_threshold(confidence)
    except ValueError as wrong:
        _refuse(str(wrong))
    if not (0 < most < 1 and 0 < sure < 1):
        _refuse("--max-error and --confidence lie between 0 and 1, and are neither")
    return lambda cases: by_error(cases, most, 1 - (1 - sure) / Fraction(parts))


def _report(rows: Rows, choice: Choice) -> dict[str, Any]:
    surety = float(choice.threshold)
    report: dict[str, Any] = {
        "accept_at": -surety if rows.kind is Kind.OPEN else surety,
        "rows": choice.rows,
        "accepted": choice.accepted,
        "large_share": round(float(choice.large_share), 6),
    }
    if choice.mean_cost is not None:
        report["mean_cost_nanousd"] = choice.mean_cost
    if choice.errors is not None:
        report |= {"errors": choice.errors, "error_bound": choice.error_bound}
    return report


def _labels(path: Path, lines: list[Mapping[str, Any]]) -> dict[str, bool]:
    """Whether Stage 1's answer is right, by custom id: as the file says, or by grading it against the file's answer."""
    known: dict[str, bool] = {}
    golds: dict[str, str] = {}
    for number, row in enumerate(_jsonl(path), 1):
        if "custom_id" not in row or not (isinstance(row.get("correct"), bool) or "answer" in row):
            raise BadInput(f"{path}, line {number}: needs `custom_id`, and `correct` (true or false) or `answer`")
        if isinstance(row.get("correct"), bool):
            known[str(row["custom_id"])] = row["correct"]
        else:
            golds[str(row["custom_id"])] = str(row["answer"])
    asked: dict[Kind, list[tuple[str, str, str]]] = {}
    for line in lines:
        cope = (((line.get("response") or {}).get("body") or {}).get("cope")) or {}
        custom_id = str(line.get("custom_id"))
        if custom_id in golds and cope:
            if cope["kind"] == Kind.OPEN.value:
                raise BadInput(f"{path}: kind `open` has no answer to compare: give `correct` for {custom_id!r}")
            asked.setdefault(Kind(cope["kind"]), []).append((custom_id, golds[custom_id], cope.get("answer") or ""))
    for kind, rows in asked.items():
        verdicts = grade_all(kind, [(gold, answer) for _, gold, answer in rows])
        known |= {custom_id: verdict for (custom_id, _, _), verdict in zip(rows, verdicts, strict=True)}
    return known


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    row = json.loads(text)
                    if not isinstance(row, dict):
                        raise BadInput(f"{path}, line {number}: not a JSON object")
                    yield row
    except (OSError, ValueError) as wrong:
        raise BadInput(f"{path}: {wrong}") from None


def _refuse(message: str) -> Never:
    sys.stderr.write(f"cope: {message}\n")
    raise typer.Exit(REFUSED)
