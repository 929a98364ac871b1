"""`cope calibrate` on files: what it writes, and what it refuses. It needs no service."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cope_cli.calibrate import calibrate, read_policy_file
from cope_cli.lines import BadInput

app = typer.Typer()
app.command()(calibrate)


def row(custom_id: str, confidence: float, *, answer: str = "5", cost: int = 0) -> str:
    steps = [{"name": "stage1", "stage": 1, "model": "s", "n": 8, "confidence": confidence, "cost_nanousd": 0}]
    if cost:
        steps.append({"name": "stage2-plan", "stage": 2, "model": "l", "n": 1, "cost_nanousd": cost})
    cope = {"policy": "cope", "kind": "choice", "answer": answer, "steps": steps}
    return json.dumps({"custom_id": custom_id, "response": {"status_code": 200, "body": {"cope": cope}}})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "out.jsonl"
    rows = [row("a", 1.0), row("b", 0.875), row("c", 0.5, cost=400), row("d", 0.25, cost=600)]
    path.write_text("\n".join(rows) + "\n")
    return path


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_a_share_writes_a_policy_file_that_can_be_submitted_with(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    code, said = run(results, "--share", "0.5", "--out", out)

    assert code == 0
    assert "--policy-file" in said
    assert read_policy_file(out) == {"policy": "cope", "kind": "choice", "n": 8, "small": "s", "tau1": "7/8"}
    report = json.loads(out.read_text())["calibration"]
    assert report["rule"] == {"share": "0.5"}
    assert report["thresholds"]["default"] == {"accept_at": 0.875, "rows": 4, "accepted": 2, "large_share": 0.5}


def test_a_budget_reads_costs_from_the_results(results: Path) -> None:
    code, said = run(results, "--budget-usd", "0.00000015")

    assert code == 0
    assert json.loads(said)["cope"]["tau1"] == "1/2"


def test_an_error_bound_grades_the_results_against_known_answers(tmp_path: Path) -> None:
    results, labels = tmp_path / "out.jsonl", tmp_path / "gold.jsonl"
    results.write_text("\n".join(row(str(i), 1.0 if i < 150 else 0.25) for i in range(200)))
    golds = [{"custom_id": str(i), "answer": "5" if i < 150 else "6"} for i in range(200)]
    labels.write_text("\n".join(map(json.dumps, golds)))
    code, said = run(results, "--max-error", "0.05", "--labels", labels)

    assert code == 0
    made = json.loads(said)
    assert made["cope"]["tau1"] == "1"
    assert made["calibration"]["thresholds"]["default"]["errors"] == 0
    assert made["calibration"]["rule"] == {"max_error": "0.05", "confidence": "0.95"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give one of"),
        (("--share", "0.5", "--budget-usd", "1"), "give one of"),
        (("--max-error", "0.05"), "belong together"),
        (("--share", "2"), "not between 0 and 1"),
        (("--share", "0.5", "--labels", "x"), "belong together"),
    ],
)
def test_contradictory_options_are_refused(results: Path, arguments: tuple[str, ...], told: str) -> None:
    code, said = run(results, *arguments)

    assert code == 2
    assert told in said


def test_a_file_that_is_no_policy_file_is_refused(results: Path) -> None:
    with pytest.raises(BadInput, match="policy file"):
        read_policy_file(results)
