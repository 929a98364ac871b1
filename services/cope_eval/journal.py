"""The results file: one JSON line for the run, each decision, each batch and each finished game, as they came.

A run that was cut off goes on where it stood: decisions are kept as soon as they are known, so that none is paid for
twice, and a batch that was under way is waited for again. A last line that was not written whole is dropped.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from cope_eval.dialogue import Decision


class OtherRun(Exception):
    """The file holds the results of another run. The message says in what it differs."""


@dataclass(frozen=True, slots=True)
class Result:
    """A finished game: `steps` are its decisions, `invalid` those without an admissible action."""

    game: int
    kind: str
    won: bool
    steps: int
    invalid: int


@dataclass
class Journal:
    """What a results file says so far, and the way to add to it. `waiting` is the batch that is not read yet."""

    path: Path
    decisions: dict[int, list[Decision]] = field(default_factory=dict)
    results: dict[int, Result] = field(default_factory=dict)
    waiting: str | None = None
    _file: IO[str] | None = None

    @classmethod
    def open(cls, path: Path, run: Mapping[str, object]) -> "Journal":
        """The journal of `run` (what decides its results), begun or taken up again. Raises `OtherRun`, `OSError`."""
        journal = cls(path)
        rows = _whole_rows(path)
        if rows:
            journal._check(rows[0], run)
        for row in rows[1:]:
            journal._read(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        journal._file = path.open("a", encoding="utf-8")
        if not rows:
            journal._write("run", dict(run))
        return journal

    def decided(self, game: int, decision: Decision) -> None:
        """A decision of a game; its number is its place."""
        self.decisions.setdefault(game, []).append(decision)
        self._write("decision", {"game": game, **asdict(decision)})

    def finished(self, result: Result) -> None:
        """A game that is over, won or not."""
        self.results[result.game] = result
        self._write("game", asdict(result))

    def submitted(self, batch: str | None) -> None:
        """The batch whose answers are to come; None once all of them have been kept."""
        self.waiting = batch
        self._write("batch", {"id": batch})

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _check(self, row: dict[str, Any], run: Mapping[str, object]) -> None:
        if row.get("type") != "run":
            raise OtherRun(f"{self.path} is no results file of this program: name another with --results")
        for key, value in run.items():
            if row.get(key) != value:
                raise OtherRun(
                    f"{self.path} holds a run with {key} {row.get(key)!r}, not {value!r}: name another file with "
                    "--results, or give the same options to go on with it"
                )

    def _read(self, row: dict[str, Any]) -> None:
        match row.pop("type", None):
            case "decision":
                self.decisions.setdefault(row.pop("game"), []).append(Decision(**row))
            case "game":
                self.results[row["game"]] = Result(**row)
            case "batch":
                self.waiting = row["id"]
            case other:
                raise OtherRun(f"{self.path} has a line of an unknown type {other!r}: name another with --results")

    def _write(self, type_: str, row: Mapping[str, object]) -> None:
        assert self._file is not None, "opened by Journal.open"
        self._file.write(json.dumps({"type": type_, **row}, ensure_ascii=False) + "\n")
        self._file.flush()


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, which is cut behind its last whole line; none where there is no file."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
    except ValueError:
        raise OtherRun(f"{path} is no results file of this program: name another with --results") from None
    if not all(isinstance(row, dict) for row in rows):
        raise OtherRun(f"{path} is no results file of this program: name another with --results")
    return rows
