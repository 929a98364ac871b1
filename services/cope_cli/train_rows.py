"""The rows that `cope train-scorer` reads: labelled files, and results beside their problems and golds."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cope.adapters.answer_helper import grade_all
from cope.core.answers import Keyed, quick_key
from cope.core.problem import Kind, Message
from cope.core.scorer_rows import BadRow, Row, conversation_of, labelled_row, result_row, with_labels
from cope_cli.lines import BadInput, batch_lines

Tell = Callable[[str], None]
_AT_ONCE = 500


def labelled_rows(paths: Sequence[Path]) -> list[Row]:
    """The rows of labelled JSONL files. Raises `BadInput` naming file and line."""
    rows: list[Row] = []
    for path in paths:
        for number, data in _jsonl(path):
            try:
                rows.append(labelled_row(data))
            except BadRow as wrong:
                raise BadInput(f"{path}, line {number}: {wrong}") from None
    return rows


def result_rows(results: Sequence[Path], problems: Path, labels: Path) -> tuple[list[Row], dict[str, int]]:
    """The rows of batches' output files, and how many lines were left out for what reason. Raises `BadInput`."""
    golds, asked = _golds(labels), _conversations(problems)
    rows: list[Row] = []
    skipped: dict[str, int] = {}
    for path in results:
        for number, line in _jsonl(path):
            custom_id = str(line.get("custom_id"))
            found: Row | str
            if custom_id not in golds:
                found = f"have no answer in {labels}"
            elif custom_id not in asked:
                found = f"have no problem in {problems}"
            else:
                found = _result(path, number, line, asked[custom_id], golds[custom_id])
            if isinstance(found, str):
                skipped[found] = skipped.get(found, 0) + 1
            else:
                rows.append(found)
    if not rows:
        told = "; ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "the files are empty"
        raise BadInput(f"no line of the results can be trained on: {told}")
    return rows, skipped


def graded(rows: Sequence[Row], tell: Tell) -> list[Row]:
    """The rows with every gold answer compared: right where the keys are equal, or the grader finds them equal.

    Each different comparison is made once; hostile answers cost a killed helper, not this process. Order is kept.
    """
    verdicts: dict[tuple[Kind, str, str], bool] = {}
    hard: dict[tuple[Kind, str, str], None] = {}
    for place in map(_place, rows):
        if place is not None:
            kind, gold, answer = place
            first, second = quick_key(kind, gold), quick_key(kind, answer)
            if isinstance(first, Keyed) and first == second:
                verdicts[place] = True
            else:
                hard[place] = None
    for kind in Kind:
        pairs = [place for place in hard if place[0] is kind]
        for start in range(0, len(pairs), _AT_ONCE):
            tell(f"comparing answers of kind {kind.value}: {start} of {len(pairs)}")
            part = pairs[start : start + _AT_ONCE]
            verdicts |= zip(part, grade_all(kind, [(gold, answer) for _, gold, answer in part]), strict=True)
    ungraded = [row for row in rows if row.gold is not None]
    places = [_place(row) for row in ungraded]
    labelled = with_labels(ungraded, (place is not None and verdicts[place] for place in places))
    return [row if row.gold is None else next(labelled) for row in rows]


def _place(row: Row) -> tuple[Kind, str, str] | None:
    if row.gold is None or not row.sample.answer:
        return None
    return row.problem.kind, row.gold, row.sample.answer


def _result(path: Path, number: int, line: Mapping[str, Any], asked: tuple[Message, ...], gold: str) -> Row | str:
    try:
        return result_row(line, asked, gold)
    except (KeyError, TypeError, ValueError, AttributeError, BadRow) as wrong:
        raise BadInput(f"{path}, line {number}: not a line of a batch's output file ({wrong!r})") from None


def _golds(path: Path) -> dict[str, str]:
    golds: dict[str, str] = {}
    for number, row in _jsonl(path):
        if "correct" in row:
            raise BadInput(
                f"{path}, line {number}: `correct` can't say whose answer is right, for several models answered: give "
                "`answer`, the right one"
            )
        if "custom_id" not in row or isinstance(row.get("answer"), bool | list | dict | None):
            raise BadInput(f"{path}, line {number}: needs `custom_id`, and `answer` as a text or a number")
        golds[str(row["custom_id"])] = str(row["answer"])
    return golds


def _conversations(path: Path) -> dict[str, tuple[Message, ...]]:
    asked: dict[str, tuple[Message, ...]] = {}
    for number, text in enumerate(batch_lines(path, "any"), 1):
        try:
            line = json.loads(text)
            asked[str(line.get("custom_id"))] = conversation_of(line["body"])
        except (BadRow, TypeError, AttributeError) as wrong:
            raise BadInput(f"{path}, problem {number}: {wrong}") from None
    return asked


def _jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    try:
                        row = json.loads(text)
                    except (ValueError, RecursionError):
                        raise BadInput(f"{path}, line {number}: not JSON") from None
                    if not isinstance(row, dict):
                        raise BadInput(f"{path}, line {number}: not a JSON object")
                    yield number, row
    except (OSError, UnicodeDecodeError) as wrong:
        raise BadInput(f"{path}: {wrong}") from None
