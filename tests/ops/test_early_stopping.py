"""The report on early stopping: what it counts, and that it would notice a decision that differs."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from ops.bench.early_stopping import Played, compare, main, play, read

from cope.core.stages import StragglerRule

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def recorded(folder: Path, *votes: list[tuple[str | None, str]]) -> Path:
    path = folder / "recorded.jsonl"
    rows = [
        {"samples": [{"model": "m", "prompt_style": "p", "decode": "sample", "answer": a, "text": t} for a, t in vote]}
        for vote in votes
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_wave_that_decides_leaves_the_next_one_unwritten(tmp_path: Path):
    (vote,) = read(recorded(tmp_path, [("5", "xx"), ("5", "xxxx"), ("5", "x"), ("7", "x")]), 4)["m p"]

    played = play(vote, (2, 2), 2, StragglerRule.ARRIVED)

    assert played == Played((vote[0].sample, vote[1].sample), written=6, time=4)


def test_a_sample_that_is_cut_off_has_cost_what_it_had_written_by_then(tmp_path: Path):
    (vote,) = read(recorded(tmp_path, [("5", "xx"), ("5", "xxx"), ("5", "xxxx"), ("7", "xxxxxx")]), 4)["m p"]

    stopped = play(vote, (), 3, StragglerRule.ARRIVED)
    full = play(vote, (), 3, None)

    assert [s.index for s in stopped.ended] == [0, 1, 2]
    assert (stopped.written, stopped.time) == (2 + 3 + 4 + 4, 4)
    assert (full.written, full.time) == (2 + 3 + 4 + 6, 6)


def test_an_escalation_waits_for_the_rest_only_where_p1_star_is_drawn_among_all(tmp_path: Path):
    (vote,) = read(recorded(tmp_path, [("1", "x"), ("2", "x"), (None, "x"), ("4", "x")]), 4)["m p"]

    assert len(play(vote, (1, 1, 1, 1), 3, StragglerRule.ARRIVED).ended) == 3
    assert len(play(vote, (1, 1, 1, 1), 3, StragglerRule.FULL).ended) == 4


def test_the_report_ends_well_where_every_decision_is_the_full_votes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = recorded(tmp_path, [("5", "x")] * 4, [("1", "x"), ("2", "x"), ("3", "x"), (None, "x")])

    assert main([str(path), "--n", "4", "--tau", "3/4"]) == 0
    out = capsys.readouterr().out
    assert "| 0.75 | 50 % | arrived | 3+1 | +25.0 % | +25.0 % | +0.0 % | 2 of 2 |" in out
    assert "0 decisions differ" in out


def test_a_fifth_of_real_recorded_samples_is_saved_in_two_waves_and_no_decision_changes():
    path = DATA / "recorded_gsm8k_200.jsonl"
    if not path.exists():
        pytest.skip("recorded_gsm8k_200.jsonl is not here")
    for votes in read(path, 8).values():
        for tau in (Fraction(1, 2), Fraction(3, 4)):
            sums = compare(votes, 8, tau, (6, 2), StragglerRule.ARRIVED)
            assert sums.unlike == 0
            assert sums.samples <= 0.8 * 8 * len(votes)
