"""Row-level security on every table, read from the server's own catalogue: a new table without it fails here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from cope.adapters.postgres.api_store import PostgresApiStore
from cope.adapters.postgres.database import Database, fetch
from tests.contracts.world import PostgresWorld
from tests.postgres.conftest import Place
from tests.postgres.test_row_security import fill

pytestmark = pytest.mark.integration

SHARED = {
    "policies": "the text of a policy under its hash: thresholds and model names, the same for all who use it",
    "prices": "the operator's price table",
    "alembic_version": "the schema's revision, for /ready",
    "upkeep_notes": "when upkeep did what, and its report for the operator: counts and ids",
    "restores": "that the store was restored, for the operator: moments, and ids of projects that wait",
}
"""What the API may read without row-level security, and why that shows nobody's work."""

ADAPTERS = Path(__file__).resolve().parents[2] / "shared/cope/adapters/postgres"
WITHOUT_ROWS = {
    *("ping", "count_prices", "list_prices", "add_prices"),
    *("restore_notice", "note_reconciled", "release_restore", "facts", "retention_report"),
}
"""Methods of the API's store that name no project, because they read or write `SHARED` tables only."""

_TABLES = """
SELECT c.relname AS name, c.relkind::text AS kind, c.relispartition AS part, c.relrowsecurity AS enabled,
  c.relforcerowsecurity AS forced, pg_get_userbyid(c.relowner) AS owner,
  EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'project_id') AS of_project,
  has_table_privilege('cope_api', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
    OR has_any_column_privilege('cope_api', c.oid, 'SELECT, INSERT, UPDATE') AS reachable,
  c.reloptions::text AS options
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1
"""


@pytest.fixture
def catalogue(place: Place) -> list[dict[str, object]]:
    with psycopg.connect(place.superuser, row_factory=psycopg.rows.dict_row) as conn:
        return conn.execute(_TABLES).fetchall()


def test_whatever_the_api_can_reach_is_under_forced_row_level_security(catalogue: list[dict[str, object]]) -> None:
    reached = [table for table in catalogue if table["reachable"]]
    assert len(reached) > 15
    bare = {str(table["name"]) for table in reached if not (table["enabled"] and table["forced"])}
    assert bare == SHARED.keys(), "force row-level security in the migration, or say in SHARED why it shows nothing"


def test_every_table_with_a_project_is_under_it_too_or_out_of_reach(catalogue: list[dict[str, object]]) -> None:
    bare = {str(t["name"]): t for t in catalogue if t["of_project"] and not (t["enabled"] and t["forced"])}
    # The ledger's months are reached through the ledger alone, whose rules then hold.
    assert {name for name, table in bare.items() if not table["part"]} == set()
    assert {name for name, table in bare.items() if table["reachable"]} == set()


def test_no_view_goes_around_the_rules(catalogue: list[dict[str, object]]) -> None:
    views = [table for table in catalogue if table["kind"] in {"v", "m", "f"}]
    assert [view["name"] for view in views if "security_invoker=true" not in str(view["options"])] == []


def test_every_rule_asks_what_the_transaction_said_and_fails_closed(place: Place) -> None:
    with psycopg.connect(place.superuser) as conn:
        rules = conn.execute(
            "SELECT tablename, policyname, permissive, roles::text, coalesce(qual, '') || coalesce(with_check, '')"
            " FROM pg_policies WHERE schemaname = 'public'"
        ).fetchall()
    assert len(rules) > 15
    for table, policy, permissive, roles, rule in rules:
        assert (permissive, roles) == ("PERMISSIVE", "{public}"), (table, policy)
        # With `true` a setting that was never made is NULL, which is not true: no row, instead of an error to catch.
        asks = "current_setting('cope." in rule and ", true)" in rule
        through = "FROM tasks" in rule or "FROM provider_lines" in rule  # tables that are under such rules themselves
        assert asks or through, (table, policy, rule)


def test_the_apis_role_is_nobody(place: Place, catalogue: list[dict[str, object]]) -> None:
    assert {str(table["owner"]) for table in catalogue} == {"cope_owner"}
    with psycopg.connect(place.superuser) as conn:
        role = conn.execute(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,"
            " (SELECT count(*) FROM pg_auth_members WHERE member = r.oid) FROM pg_roles r WHERE rolname = 'cope_api'"
        ).fetchone()
        definers = conn.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef"
            " AND has_function_privilege('cope_api', oid, 'EXECUTE')"
        ).fetchall()
        rights = conn.execute(
            "SELECT has_schema_privilege('cope_api', 'public', 'CREATE'),"
            " has_database_privilege('cope_api', current_database(), 'CREATE, TEMPORARY')"
        ).fetchone()
    assert role == (False, False, False, False, False, 0)
    assert definers == []
    assert rights == (False, False)


async def test_a_connection_without_a_project_sees_and_changes_nothing(world: PostgresWorld, place: Place) -> None:
    project = await fill(world)
    with psycopg.connect(place.superuser, autocommit=True) as conn:
        conn.execute("INSERT INTO batch_errors VALUES ('batch_x', 'some_code', %s, 1)", [project])
        names = [name for (name,) in conn.execute(_REACHABLE).fetchall()]
        empty = {name for name in names if not _count(conn, name)}
    # Every one of them has rows, so that an empty answer below says something; a new table is filled in `fill`.
    assert empty - SHARED.keys() == set(), "give `fill` in test_row_security.py a row for it"
    with psycopg.connect(place.api, autocommit=True) as conn:
        seen = {name: _count(conn, name) for name in names if name not in SHARED}
        assert seen == dict.fromkeys(seen, 0)
        for name in seen:
            for right, statement in (("DELETE", "DELETE FROM {}"), ("UPDATE", "UPDATE {} SET {} = {}")):
                if not _may(conn, name, right):
                    continue
                column = sql.Identifier(_column(conn, name) if right == "UPDATE" else "")
                query = sql.SQL(statement).format(*[sql.Identifier(name), column, column][: statement.count("{}")])
                assert conn.execute(query).rowcount == 0, (name, right)


_REACHABLE = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
  AND has_table_privilege('cope_api', oid, 'SELECT') AND relname <> 'alembic_version' ORDER BY 1
"""


def _count(conn: psycopg.Connection, table: str) -> int:
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


def _may(conn: psycopg.Connection, table: str, right: str) -> bool:
    row = conn.execute("SELECT has_table_privilege(%s, %s)", [table, right]).fetchone()
    return row is not None and bool(row[0])


def _column(conn: psycopg.Connection, table: str) -> str:
    row = conn.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
        " AND attidentity = '' AND has_column_privilege(attrelid, attnum, 'UPDATE') LIMIT 1",
        [table],
    ).fetchone()
    assert row is not None
    return str(row[0])


async def test_what_a_transaction_said_ends_with_it(place: Place) -> None:
    db = Database(place.api, min_size=1, max_size=1, name="guard")
    await db.open()
    try:
        async with db.transaction(project="proj_of_somebody", key_hash="ab", operator="on") as conn:
            assert await _settings(conn) == ["proj_of_somebody", "ab", "on"]
        with pytest.raises(ZeroDivisionError):
            async with db.transaction(project="proj_of_somebody"):
                raise ZeroDivisionError
        async with db.connection() as conn:  # the same one: the pool has no other
            assert [told for told in await _settings(conn) if told] == []
    finally:
        await db.close()


async def _settings(conn: psycopg.AsyncConnection[psycopg.rows.TupleRow]) -> list[object]:
    (row,) = await fetch(
        conn,
        "SELECT current_setting('cope.project', true) AS a, current_setting('cope.key_hash', true) AS b,"
        " current_setting('cope.operator', true) AS c",
    )
    return list(row.values())


def test_every_method_of_the_apis_store_says_whose_rows_it_may_see() -> None:
    found = list(_uses())
    assert len(found) > 30
    silent = {f"{path}: {method}" for path, method, keywords, _ in found if not keywords and method not in WITHOUT_ROWS}
    assert silent == set()
    named = {keyword for _, _, keywords, _ in found for keyword in keywords}
    # `projects`: readers of events, whose keys the API has checked. `awaited`: which batches have ended, by their ids.
    assert named == {"project", "key_hash", "operator", "live_ids", "projects", "awaited"}
    # Only what the operator reads over all projects is read without naming one.
    for path, method, keywords, names_project in found:
        if names_project and "project" not in keywords:
            assert "operator" in keywords or method in WITHOUT_ROWS, (path, method)


def _uses() -> Iterator[tuple[str, str, frozenset[str], bool]]:
    """(file, method, what its transaction says, whether it takes a project) wherever the API's store opens one."""
    modules = {cls.__module__.rpartition(".")[2] for cls in PostgresApiStore.__mro__ if "adapters" in cls.__module__}
    for path in sorted(ADAPTERS.glob("*.py")):
        if path.stem not in modules:
            continue
        for cls in (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)):
            for method in (node for node in cls.body if isinstance(node, (ast.AsyncFunctionDef, ast.FunctionDef))):
                takes = {argument.arg for argument in (*method.args.args, *method.args.kwonlyargs)}
                for call in (node for node in ast.walk(method) if isinstance(node, ast.Call)):
                    if ast.unparse(call.func) in {"self._db.transaction", "self._db.connection"}:
                        keywords = frozenset(keyword.arg or "" for keyword in call.keywords)
                        yield path.name, method.name, keywords, "project_id" in takes
