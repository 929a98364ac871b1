"""What is exported carries no formula, and what the ledger's texts came from were a provider and a caller."""

import csv
import io

import psycopg
import pytest

from tests.attacks.place import ADMIN, Attacked

pytestmark = pytest.mark.integration

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1"]


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_of_the_ledger_is_a_formula(attacked: Attacked, formula: str) -> None:
    with psycopg.connect(attacked.databases.superuser, autocommit=True) as conn:
        project = attacked.victim.attacker_project
        attempt = f"att_{FORMULAS.index(formula)}"
        conn.execute(
            "INSERT INTO attempts (id, task_id, project_id, step, model, state, month, price_version, request_id, "
            "reserved, cost, fence, flag, provider_id) VALUES (%s, 'task_x', %s, %s, %s, 'settled', '2026-11', %s, %s, "
            "5, 5, 1, %s, %s)",
            [attempt, project, *[formula] * 6],
        )
        conn.execute(
            "INSERT INTO ledger (project_id, month, attempt_id, kind, amount, freed, price_version) "
            "VALUES (%s, '2026-11', %s, 'settled', 5, 5, %s)",
            [project, attempt, formula],
        )
    try:
        answer = attacked.send("GET", f"/v1/organization/ledger.csv?month=2026-11&project_id={project}", key=ADMIN)
        assert answer.status == 200
        assert answer.headers["content-disposition"] == 'attachment; filename="ledger-2026-11.csv"'
        header, *rows = list(csv.reader(io.StringIO(answer.body.decode(), newline="")))
        mine = [row for row in rows if attempt in row]
        assert mine
        for row in mine:
            assert len(row) == len(header)
            assert [cell for cell in row if cell[:1] in {"=", "+", "-", "@", "\t", "\r", "\n"}] == []
            assert row.count(f"'{formula}") >= 4
    finally:
        with psycopg.connect(attacked.databases.superuser, autocommit=True) as conn:
            conn.execute("DELETE FROM ledger WHERE attempt_id = %s", [attempt])
            conn.execute("DELETE FROM attempts WHERE id = %s", [attempt])


@pytest.mark.parametrize(
    "file",
    [
        b"", b"\x00", b"\xff\xfe", b"request_id\n", b"request_id,cost_usd\n" + b",".join([b"x"] * 5000),
        b"request_id,cost_usd\n\"", b"request_id,request_id,cost_usd\n", b"request_id,cost_usd\n" + b'"' * 5000,
        b"request_id,cost_usd\nx,1e999999999\n", b"request_id,cost_usd\nx,-1\n", b"request_id,cost_usd\nx,NaN\n",
        b"request_id,cost_usd\nx\x00y,1\n", b"request_id,cost_usd\n=1+1,1\n", b"request_id,cost_usd\r\r\r\n",
        b"request_id,prompt_tokens,completion_tokens\nx," + b"9" * 5000 + b",1\n", b"a" * 150_000,
    ],
)  # fmt: skip
def test_no_usage_export_breaks_the_reconciliation(attacked: Attacked, file: bytes) -> None:
    before = attacked.rows()
    kind = [("content-type", "text/csv")]
    answer = attacked.send("POST", "/v1/organization/reconcile?apply=true", file, key=ADMIN, headers=kind)

    assert answer.status < 500, answer.body
    if answer.status >= 400:
        answer.refused()
    assert attacked.rows() == before
