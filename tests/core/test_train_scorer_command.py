"""`cope train-scorer` on files: what it writes, what it prints, what it refuses. It needs no service."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cope.catalog import load_scorers
from cope_cli.lines import BadInput
from cope_cli.train_scorer import train_scorer
from tests.core.scorer_rows import labelled

RECORDED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "recorded_gsm8k_200.jsonl"
app = typer.Typer()
app.command()(train_scorer)


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Rows whose answers somebody else has compared: that takes a second each time."""
    return written(tmp_path / "rows.jsonl", [judged(row) for row in labelled(120)])


def judged(row: dict[str, Any]) -> dict[str, Any]:
    correct = re.search(rf"\b{row['gold']}\D*$", row["text"]) is not None
    return {key: value for key, value in row.items() if key != "gold"} | {"correct": correct}


def test_a_scorer_is_written_that_the_service_reads_and_a_table_of_what_each_budget_buys(rows: Path, tmp_path: Path):
    out = tmp_path / "scorers" / "sums.json"
    out.parent.mkdir()
    asked = (rows, "--models", "s,l", "--name", "sums", "--out", out, "--budget-usd", "0.0000006")
    code, table, said = run(*asked, "--compare-usd", "0.000001", "--compare-usd", "0")
    scorer = load_scorers(out.parent)["sums"]
    trained = json.loads(out.read_text())["trained"]

    assert code == 0
    assert scorer.models == ("s", "l")
    assert scorer.version in said
    assert "-o scorer=sums" in said
    assert "On 30 tasks" in table
    assert "l alone" in table
    assert [row["budget"] for row in trained["budgets"]] == [
        "$0.0000006 per task",
        "$0.000001 per task",
        "$0 per task",
    ]
    kept = trained["budgets"][0]
    assert kept["fit"]["mean_cost_nanousd"] <= 600
    assert Fraction(kept["thresholds"]["s"]) == scorer.tiers[0].threshold
    assert sum(kept["test"]["answered_by"].values()) == pytest.approx(1)
    assert trained["training_rows"] == {"s": 60}
    assert trained["inputs"][0]["file"] == "rows.jsonl"
    assert [path.name for path in out.parent.iterdir()] == ["sums.json"]


def test_equal_rows_and_seeds_write_equal_files_and_both_spellings_of_a_budget_are_one(rows: Path, tmp_path: Path):
    asked = (rows, "--models", "s,l", "--name", "sums", "--json", "--out", tmp_path / "sums.json")
    first = json.loads(run(*asked, "--budget-usd", "0.0000006")[1])
    again = json.loads(run(*asked, "--budget-usd", "0.0000006")[1])
    million = json.loads(run(*asked, "--budget-usd-per-million", "0.6")[1])

    assert first == again
    assert million["version"] == first["version"]


def test_batches_results_teach_beside_their_problems_and_golds(tmp_path: Path):
    data = labelled(120)
    problems = [{"custom_id": str(i), "problem": row["problem"]} for i, row in enumerate(data[::2])]
    golds = [{"custom_id": str(i), "answer": row["gold"]} for i, row in enumerate(data[::2])]
    cost = {"s": 0, "l": 1000}
    given = [
        written(tmp_path / f"{model}.jsonl", [line(str(i), row, cost[model]) for i, row in enumerate(data[at::2])])
        for at, model in enumerate("sl")
    ]
    code, report, _ = run(
        *("--results", given[0], "--results", given[1]),
        *("--problems", written(tmp_path / "problems.jsonl", problems)),
        *("--labels", written(tmp_path / "gold.jsonl", golds[1:])),
        *("--models", "s,l", "--name", "sums", "--budget-usd", "0.0000006", "--out", tmp_path / "o.json", "--json"),
    )

    assert code == 0
    assert json.loads(report)["skipped"] == {f"have no answer in {tmp_path / 'gold.jsonl'}": 2}
    assert json.loads(report)["budgets"][0]["fit"]["tasks"] == 29


def line(custom_id: str, row: dict[str, Any], cost: int) -> dict[str, Any]:
    step = {"name": "solve", "stage": 1, "role": "executor", "model": row["model"], "n": 1, "cost_nanousd": cost}
    answer = row["text"].rstrip(".}").replace("{", " ").split()[-1]
    cope = {"policy": "plan-execute", "kind": "math", "stage": 1, "answer": answer, "steps": [step]}
    choice = {"message": {"content": row["text"]}, "finish_reason": "stop"}
    return {"custom_id": custom_id, "response": {"body": {"choices": [choice], "cope": cope}}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--models", "s,l"), "--budget-usd"),
        (("--models", "s,l", "--budget-usd", "1", "--budget-usd-per-million", "1"), "give one of --budget-usd"),
        (("--models", "s,l", "--budget-usd", "dear"), "not an amount"),
        (("--models", "s", "--budget-usd", "1"), "two different models"),
        (("--models", "s,gpt", "--budget-usd", "1"), "No row is of model 'gpt'"),
        (("--models", "s,l", "--budget-usd", "1", "--fit-share", "0.9"), "leave something to train on"),
        (("--models", "s,l", "--budget-usd", "1", "--test-share", "0.01"), "1 problems to report on"),
        (("--models", "l,s", "--budget-usd", "0"), "1000 nano-dollars per task is the least"),
        (("--models", "s,l", "--budget-usd", "1", "--problems", "p.jsonl"), "belong together"),
    ],
)
def test_what_can_not_be_done_is_refused_and_nothing_is_written(
    rows: Path, tmp_path: Path, options: tuple[str, ...], said: str
):
    out = tmp_path / "sums.json"
    code, _, stderr = run(rows, *options, "--name", "sums", "--out", out)

    assert code == 2
    assert said in stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


def test_a_row_that_can_not_be_read_is_refused_with_its_file_and_line(tmp_path: Path):
    bad = written(tmp_path / "bad.jsonl", [labelled(1)[0], {"problem": "?", "model": "s", "text": "5", "gold": "5"}])

    with pytest.raises(BadInput, match=r"bad\.jsonl, line 2: give one of `cost_nanousd`"):
        run(bad, "--models", "s,l", "--name", "sums", "--budget-usd", "1", "--out", tmp_path / "o.json")


def test_a_scorer_learns_from_recorded_answers_of_real_models(tmp_path: Path):
    if not RECORDED.exists():
        pytest.skip("recorded_gsm8k_200.jsonl is not here")
    found = []
    for text in RECORDED.read_text(encoding="utf-8").splitlines():
        row = json.loads(text)
        small = [s for s in row["samples"] if s["model"] == "llama-2-13b" and s["prompt_style"] == "pot2"][:3]
        large = next(s for s in row["samples"] if s["model"] == "gpt-4" and s["decode"].startswith("greedy"))
        for sample, cost in [(one, 0) for one in small] + [(large, 2_000_000)]:
            kept = {key: sample[key] for key in ("model", "text", "answer", "correct")}
            found.append({**kept, "problem": row["problem"], "cost_nanousd": cost})
    asked = ("--models", "llama-2-13b,gpt-4", "--name", "gsm8k", "--out", tmp_path / "o.json", "--json")
    code, report, _ = run(written(tmp_path / "r.jsonl", found), *asked, "--budget-usd", "0.0012")
    told = json.loads(report)
    (kept,), alone = told["budgets"], told["each_alone"]

    assert code == 0
    assert (kept["fit"]["tasks"], kept["test"]["tasks"]) == (50, 50)
    assert kept["fit"]["mean_cost_nanousd"] <= 1_200_000
    # Between the two models in both: better than the small one alone, cheaper than the large one.
    assert alone["llama-2-13b"]["accuracy"] < kept["test"]["accuracy"] <= alone["gpt-4"]["accuracy"]
    assert kept["test"]["mean_cost_nanousd"] < 2_000_000


def test_an_interruption_leaves_the_scorer_that_was_there_and_no_half_of_a_new_one(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "sums.json"
    out.write_text("the one before")
    monkeypatch.setattr("os.fsync", interrupted)
    code, _, _ = run(rows, "--models", "s,l", "--name", "sums", "--out", out, "--budget-usd", "1")

    assert code != 0
    assert out.read_text() == "the one before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "sums.json"]
