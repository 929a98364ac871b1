"""From a user's file to batch lines, streamed: JSONL of batch lines or of problems, or CSV with a problem column."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_TEXT_COLUMNS = ("problem", "prompt", "question")
_ID_COLUMNS = ("custom_id", "id")


class BadInput(Exception):
    """The file can't become a batch. The message names the line."""


def batch_lines(path: Path, model: str) -> Iterator[str]:
    """Batch lines of a ``.jsonl`` or ``.csv`` file. A line that is a batch line already passes through unchanged.

    Raises `BadInput`.
    """
    try:
        if path.suffix.lower() == ".csv":
            yield from _from_csv(path, model)
        else:
            yield from _from_jsonl(path, model)
    except (OSError, UnicodeDecodeError) as wrong:
        raise BadInput(f"{path}: {wrong}") from None


def _from_jsonl(path: Path, model: str) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from jsonl_lines(file, str(path), model)


def jsonl_lines(texts: Iterable[str], name: str, model: str) -> Iterator[str]:
    """As `batch_lines`, of JSONL text line by line; `name` is what a refusal calls it."""
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as wrong:
            raise BadInput(f"{name}, line {number}: not JSON ({wrong.msg})") from None
        if isinstance(row, dict) and "body" in row:
            yield text.strip()
        elif isinstance(row, dict):
            yield _line(row, number, model, name)
        else:
            raise BadInput(f"{name}, line {number}: not an object")


def _from_csv(path: Path, model: str) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            yield _line(row, number, model, str(path))


def _line(row: dict[str, Any], number: int, model: str, name: str) -> str:
    problem = next((row[column] for column in _TEXT_COLUMNS if row.get(column)), None)
    if not isinstance(problem, str):
        raise BadInput(f"{name}, line {number}: needs a field `problem` (or `prompt`), or a whole batch line")
    own = next((row[column] for column in _ID_COLUMNS if row.get(column) not in (None, "")), number)
    body = {"model": model, "messages": [{"role": "user", "content": problem}]}
    return json.dumps(
        {"custom_id": str(own), "method": "POST", "url": "/v1/chat/completions", "body": body}, ensure_ascii=False
    )
