"""Backup and restore on real servers: what comes back, what is refused, and the move to a newer Postgres."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet

from cope.adapters.postgres import PostgresApiStore, PostgresWorkerStore
from cope.adapters.postgres.backup import Passwords, backup, read_manifest, restore, with_database
from cope.adapters.postgres.migrate import API, OWNER, SCHEMA, WORKER, create_roles, upgrade
from cope.core.errors import BadRequest, Conflict
from cope_local.children import free_port
from cope_local.errors import CannotStart
from cope_local.moves import upgrade_data
from cope_local.postgres import MOVED, NEW_CLUSTER, EmbeddedPostgres, find_binaries, finish_move
from cope_local.stack import Stack
from tests.contracts.world import PostgresWorld, bill, done
from tests.postgres.conftest import PASSWORD, drop_place, make_place

pytestmark = pytest.mark.integration
PASSWORDS = Passwords(PASSWORD, PASSWORD, PASSWORD)
KEY = Fernet.generate_key().decode()
SOURCE, TARGET = "cope_backed_up", "cope_brought_back"


def quiet(_: str) -> None:
    """Progress is for people."""


async def opened(cluster: EmbeddedPostgres, database: str) -> PostgresWorld:
    api = PostgresApiStore(cluster.url(database, API, PASSWORD), secret_key=KEY)
    worker = PostgresWorkerStore(cluster.url(database, WORKER, PASSWORD), secret_key=KEY)
    await api.open()
    await worker.open()
    return PostgresWorld(api, worker, cluster.url(database))


async def closed(world: PostgresWorld) -> None:
    await world.worker.aclose()
    await world.api.aclose()


@pytest.fixture
def cluster(postgres_cluster: EmbeddedPostgres):
    upgrade(make_place(postgres_cluster, SOURCE).owner)
    yield postgres_cluster
    for name in (SOURCE, TARGET, f"{TARGET}_restoring"):
        drop_place(postgres_cluster, name)


async def test_a_running_batch_comes_back_paused_with_its_money_its_files_and_its_sealed_secrets(
    cluster: EmbeddedPostgres, tmp_path: Path
):
    files = tmp_path / "files"
    (files / "ab").mkdir(parents=True)
    (files / "ab" / "file-1ab").write_bytes(b"lines\n")
    (files / ".unfinished").mkdir()
    (files / ".unfinished" / "file-2cd.0").write_bytes(b"half")
    world = await opened(cluster, SOURCE)
    project = await world.project()
    batch = await world.batch(project, 3, queue="large")
    first, second = await world.claim("large", limit=2)
    granted = await world.send(first, 900)
    await world.commit(done(first, bills=(bill(granted, 700),)))
    await world.send(second, 400)  # its worker is gone with the old server
    await closed(world)

    made = backup(cluster.url(), files, tmp_path / "copy", key_hint="", tell=quiet, secrets="{}", database=SOURCE)
    assert ((tmp_path / "copy" / "secrets.json").stat().st_mode & 0o777) == 0o600
    assert (made.schema, made.files, made.file_bytes) == (SCHEMA, 1, 6)
    assert read_manifest(tmp_path / "copy") == made
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0
    restore(tmp_path / "copy", cluster.url(), tmp_path / "back", passwords=PASSWORDS, tell=quiet, database=TARGET)

    back = await opened(cluster, TARGET)
    try:
        assert (tmp_path / "back" / "ab" / "file-1ab").read_bytes() == b"lines\n"
        notice = await back.api.restore_notice()
        assert notice is not None
        assert (notice.backup_at, notice.held) == (made.taken_at, (project.id,))
        found = await back.see(batch)
        assert (found.done, found.spent) == (1, 700)
        await back.advance(60)
        await back.sweep()
        budget = await back.budget(project)
        assert (budget.spent, budget.reserved, budget.unconfirmed) == (700, 0, 400)
        assert await back.api.ledger_difference(None) == ()
        assert await back.claim("large", limit=9) == []
        facts = await back.api.facts()
        assert (facts.unguarded, facts.loose_roles, facts.schema) == ((), (), SCHEMA)
    finally:
        await closed(back)


def test_a_backup_writes_over_nothing_and_a_failed_one_leaves_nothing(cluster: EmbeddedPostgres, tmp_path: Path):
    (tmp_path / "there").mkdir()
    with pytest.raises(Conflict, match="exists already"):
        backup(cluster.url(), None, tmp_path / "there", key_hint="", tell=quiet, database=SOURCE)
    with pytest.raises(psycopg.OperationalError):
        backup(cluster.url(), None, tmp_path / "new", key_hint="", tell=quiet, database="cope_nowhere")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]


def test_a_damaged_backup_or_a_server_in_use_is_refused_before_anything_changes(
    cluster: EmbeddedPostgres, tmp_path: Path
):
    copy = tmp_path / "copy"
    backup(cluster.url(), None, copy, key_hint="", tell=quiet, database=SOURCE)
    with pytest.raises(Conflict, match="with tables in it"):
        restore(copy, cluster.url(), None, passwords=PASSWORDS, tell=quiet, database=SOURCE)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(Conflict, match="not empty"):
        restore(copy, cluster.url(), tmp_path / "full", passwords=PASSWORDS, tell=quiet, database=TARGET)
    with pytest.raises(BadRequest, match=r"no manifest\.json"):
        read_manifest(tmp_path)
    told = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**told, "schema": "9999"}))
    with pytest.raises(Conflict, match="newer"):
        restore(copy, cluster.url(), None, passwords=PASSWORDS, tell=quiet, database=TARGET)
    (copy / "manifest.json").write_text(json.dumps(told))
    with (copy / "database.dump").open("ab") as dump:
        dump.write(b"\0")
    with pytest.raises(BadRequest, match="damaged"):
        restore(copy, cluster.url(), None, passwords=PASSWORDS, tell=quiet, database=TARGET)

    with psycopg.connect(cluster.url()) as conn:
        names = [name for (name,) in conn.execute("SELECT datname FROM pg_database").fetchall()]
    assert not {TARGET, f"{TARGET}_restoring"} & set(names)


def test_a_stacks_data_move_into_a_newer_postgres_and_the_old_ones_are_kept(tmp_path: Path):
    try:
        old = find_binaries(embedded_only=True, major=16)
    except CannotStart:
        pytest.skip("the wheel of this platform has one Postgres only, so there is nothing to move from")
    data = tmp_path / "stack"
    stack = Stack(data, port=free_port(), environment={})
    secrets = stack.secrets
    stack.stop()
    with EmbeddedPostgres(data / "postgres", password=secrets.postgres, binaries=old) as server:
        create_roles(
            server.url(),
            owner_password=secrets.owner,
            api_password=secrets.api,
            worker_password=secrets.worker,
        )
        upgrade(server.url("cope", OWNER, secrets.owner))
        with psycopg.connect(server.url("cope")) as conn:
            conn.execute(
                "INSERT INTO projects (id, name, created_at, time_zone, default_kind, webhook_secret)"
                " VALUES ('proj_kept', 'kept', %s, 'UTC', 'math', 'sealed')",
                [datetime(2026, 11, 1, tzinfo=UTC)],
            )
    with pytest.raises(CannotStart, match="upgrade-data"):
        EmbeddedPostgres(data / "postgres", password=secrets.postgres).start()

    kept = upgrade_data(data, tell=quiet)

    assert kept is not None
    assert (kept / "PG_VERSION").read_text().strip() == "16"
    with EmbeddedPostgres(data / "postgres", password=secrets.postgres) as server:
        assert server.held_major == server.major > 16
        with psycopg.connect(server.url("cope", WORKER, secrets.worker)) as conn:
            assert conn.execute("SELECT name FROM projects").fetchall() == [("kept",)]
    assert upgrade_data(data, tell=quiet) is None


def test_a_move_cut_off_between_its_renames_is_finished_and_an_unfilled_cluster_is_never_taken(tmp_path: Path):
    cluster, new = tmp_path / "pg", tmp_path / NEW_CLUSTER
    new.mkdir()
    finish_move(cluster)
    assert not cluster.exists()

    (new / "PG_VERSION").write_text("18")
    (new / MOVED).touch()
    finish_move(cluster)
    finish_move(cluster)

    assert (cluster / "PG_VERSION").read_text() == "18"
    assert not (cluster / MOVED).exists()
    assert not new.exists()


def test_the_password_is_on_no_command_line(cluster: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[list[str]] = []
    run = subprocess.run

    def watched(command, **options):
        seen.append(list(command))
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    backup(cluster.url(), None, tmp_path / "copy", key_hint="", tell=quiet, database=SOURCE)

    password = with_database(cluster.url(), SOURCE).partition("://postgres:")[2].partition("@")[0]
    assert seen
    assert not [word for command in seen for word in command if password in word]
