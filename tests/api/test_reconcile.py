"""Reconciling over HTTP and on the command line: a dry run first, then for good."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.api.reports_place import ADMIN, Place, serving

HEADER = "request_id,provider_id,prompt_tokens,cached_tokens,completion_tokens,cost_usd"


def post(place: Place, query: str, body: bytes, *, secret: str = ADMIN, kind: str = "text/csv") -> tuple[int, Any]:
    request = urllib.request.Request(f"{place.url}/organization/reconcile{query}", data=body)
    request.add_header("authorization", f"Bearer {secret}")
    request.add_header("content-type", kind)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_file_is_tried_applied_and_then_agrees(tmp_path: Path) -> None:
    with serving() as place:
        project, _, _ = place.run(place.project("one"))
        doubt = place.run(place.doubtful(project, 900_000))
        _, settled = place.run(place.paid(project, 1_000))
        file = tmp_path / "usage.csv"
        file.write_text(
            f"{HEADER}\n{doubt},c1,20,0,10,\n{settled},c2,20,0,10,0.000002\nsomebody,c3,1,0,1,4.5\nbroken,c4,x,0,1,\n"
        )

        tried = place.cli("reconcile", str(file))
        applied = place.cli("reconcile", str(file), "--apply", "--json")
        corrected = place.cli("reconcile", str(file), "--apply", "--apply-differences", "--json")
        budget = place.run(place.world.budget(project))

    assert tried.exit_code == 1
    assert "Nothing was written" in tried.stdout
    assert "line 5: prompt_tokens 'x'" in tried.stdout
    told = json.loads(applied.stdout)
    assert (told["applied"], told["open"], told["others"]["billed_usd"]) == (True, True, "4.50")
    assert told["summary"]["settled"]["billed_nanousd"] == 20 * 2_500 + 10 * 10_000
    (different,) = [row for row in told["rows"] if row["verdict"] == "different"]
    assert (different["billed_nanousd"], different["booked_nanousd"], different["line"]) == (2_000, 1_000, 3)
    assert set(json.loads(corrected.stdout)["summary"]) == {"equal", "corrected"}
    assert (budget.spent, budget.unconfirmed, budget.overrun) == (151_000, 0, 1_000)


def test_a_complete_file_settles_what_it_leaves_out(tmp_path: Path) -> None:
    with serving() as place:
        project, _, _ = place.run(place.project("one"))
        place.run(place.doubtful(project, 900))
        file = tmp_path / "usage.csv"
        file.write_text(HEADER)
        span = ("--complete-from", "2026-11-01T00:00:00Z", "--complete-until", "2026-11-02T12:17:00+00:00")

        tried = place.cli("reconcile", str(file), *span)
        applied = place.cli("reconcile", str(file), *span, "--apply")
        budget = place.run(place.world.budget(project))

    assert (tried.exit_code, applied.exit_code) == (0, 0), tried.output
    assert "not_billed" in tried.stdout
    assert (budget.spent, budget.unconfirmed) == (0, 0)


@pytest.mark.parametrize(
    ("query", "body", "says"),
    [
        ("", b"", "file"),
        ("", b"a,b\n1,2\n", "file"),
        ("?apply=maybe", HEADER.encode(), "apply"),
        ("?complete_from=1", HEADER.encode(), "complete_until"),
        ("?complete_from=x&complete_until=y", HEADER.encode(), "complete_from"),
        ("?complete_from=2026-11-01T00:00:00&complete_until=2", HEADER.encode(), "complete_from"),
        ("?complete_from=1&complete_until=99999999999", HEADER.encode(), "complete_until"),
        ("?complete_from=2&complete_until=1", HEADER.encode(), "complete_until"),
    ],
)
def test_what_can_not_be_reconciled_is_refused_by_its_parameter(query: str, body: bytes, says: str) -> None:
    with serving() as place:
        status, told = post(place, query, body)

    assert status == 400
    assert told["error"]["param"] == says


def test_only_the_operator_may_reconcile_and_only_a_file_of_a_bearable_size(tmp_path: Path) -> None:
    with serving() as place:
        _, _, secret = place.run(place.project("one"))
        assert post(place, "", HEADER.encode(), secret=secret)[0] == 403
        assert post(place, "", b"{}", kind="application/json")[0] == 400
        assert post(place, "", HEADER.encode() + b"\n" * 600_000)[0] == 413
        missing = place.cli("reconcile", str(tmp_path / "none.csv"))

    assert missing.exit_code == 2
