"""Backup and restore of the whole store: a dump of the database by Postgres's own programs, and the files beside it.

A backup is a folder: ``database.dump`` (pg_dump's custom format), ``files/`` and, last, ``manifest.json``. The dump is
one snapshot; files are copied after it, so none that it names is missing unless it was deleted meanwhile.
"""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from cope.adapters.postgres.migrate import SCHEMA, create_roles, upgrade
from cope.adapters.postgres.programs import find_program
from cope.core.backup import Manifest, decode_manifest
from cope.core.errors import BadRequest, Conflict

DATABASE = "cope"
_UNFINISHED = ".unfinished"
_CHUNK = 1 << 20
_TELL_EVERY_S = 0.5

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Passwords:
    """Of the three roles, where they have to be made."""

    owner: str
    api: str
    worker: str


def with_database(url: str, database: str) -> str:
    """The same server's address, another database."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, "/" + database, parts.query, parts.fragment))


def backup(
    superuser_url: str,
    files: Path | None,
    to: Path,
    *,
    key_hint: str,
    tell: Tell,
    secrets: str | None = None,
    database: str = DATABASE,
) -> Manifest:
    """Write a backup to `to`, which must not exist; it appears there whole or not at all. `files` None: they lie in an
    object store and are left there. `secrets` is a local stack's own file, kept beside them. Raises `Conflict`,
    `Misconfigured`, `psycopg.Error`, `OSError`."""
    if to.exists():
        raise Conflict(f"{to} exists already: a backup never writes over another.")
    url = with_database(superuser_url, database)
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "SELECT now(), current_setting('server_version_num')::int / 10000, version_num FROM alembic_version"
        ).fetchone()
    if row is None:
        raise Conflict("the database has no schema yet: there is nothing to back up")
    taken_at, server, schema = row
    part = to.with_name(f".{to.name}.part-{os.getpid()}")
    part.mkdir(mode=0o700, parents=True)
    try:
        dump = part / "database.dump"
        tell("database")
        program = find_program("pg_dump", at_least=server)
        _run(program, ["--format=custom", "--exclude-table-data=limit_books", f"--file={dump}"], url)
        digest, size = _digest(dump)
        count, total = (0, 0) if files is None else _copy_tree(files, part / "files", tell)
        manifest = Manifest(taken_at, schema, server, digest, size, count, total, key_hint)
        if secrets is not None:
            (part / "secrets.json").touch(mode=0o600)
            (part / "secrets.json").write_text(secrets)
        (part / "manifest.json").write_text(manifest.encode())
        _sync(part)
        part.rename(to)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Raises `BadRequest` where the folder is no finished backup."""
    try:
        return decode_manifest((folder / "manifest.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise BadRequest(f"{folder} is no backup: there is no manifest.json in it.") from None


def restore(
    folder: Path,
    superuser_url: str,
    files: Path | None,
    *,
    passwords: Passwords,
    tell: Tell,
    database: str = DATABASE,
) -> Manifest:
    """Bring a backup back, into a server without a database of that name and an empty folder of files.

    The database is filled under another name, marked as restored (every project is paused until the books are
    reconciled), and renamed last: a restore that was cut off leaves nothing that could be started by accident.
    Raises `BadRequest` for a damaged backup, `Conflict` where something is there already.
    """
    manifest = read_manifest(folder)
    dump = folder / "database.dump"
    tell("checking")
    if _digest(dump) != (manifest.dump_sha256, manifest.dump_bytes):
        raise BadRequest(f"{dump} is not what the manifest says it is: the backup is damaged.")
    if files is not None and files.exists() and any(files.iterdir()):
        raise Conflict(f"{files} is not empty: restore into a new folder.")
    if manifest.schema > SCHEMA:
        raise Conflict(f"The backup's schema {manifest.schema} is newer than this version's {SCHEMA}: update first.")
    half = f"{database}_restoring"
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        _make_room(conn, superuser_url, database)
        conn.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(half)))
    owner, api, worker = passwords.owner, passwords.api, passwords.worker
    create_roles(superuser_url, owner_password=owner, api_password=api, worker_password=worker, database=half)
    url = with_database(superuser_url, half)
    tell("database")
    with psycopg.connect(superuser_url) as conn:
        version = conn.info.server_version // 10000
    program = find_program("pg_restore", at_least=max(version, manifest.server))
    _run(program, ["--exit-on-error", "--jobs=2", str(dump)], url)
    tell("schema")
    upgrade(_as_owner(url, owner))
    mark_restored(url, manifest.taken_at)
    if files is not None and (folder / "files").exists():
        _copy_tree(folder / "files", files, tell)
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        conn.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(half), sql.Identifier(database)))
    return manifest


def copy_database(source_url: str, target_url: str, dump: Path, *, passwords: Passwords) -> int:
    """The database of one server into another one, an empty one of any later version, by way of `dump`, which is
    removed; its size in bytes. Both are superusers' addresses. Raises `Conflict`."""
    with psycopg.connect(source_url) as conn:
        there = conn.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
    create_roles(
        target_url, owner_password=passwords.owner, api_password=passwords.api, worker_password=passwords.worker
    )
    if there is None:
        return 0
    with psycopg.connect(target_url) as conn:
        version = conn.info.server_version // 10000
    try:
        dump.touch(mode=0o600)  # pg_dump fills it as it is: prompts and answers are nobody else's to read
        program = find_program("pg_dump", at_least=version)
        _run(program, ["--format=custom", f"--file={dump}"], with_database(source_url, DATABASE))
        restoring = ["--exit-on-error", "--jobs=2", str(dump)]
        _run(find_program("pg_restore", at_least=version), restoring, with_database(target_url, DATABASE))
        return dump.stat().st_size
    finally:
        dump.unlink(missing_ok=True)


def _make_room(conn: psycopg.Connection, superuser_url: str, database: str) -> None:
    if conn.execute("SELECT FROM pg_database WHERE datname = %s", [database]).fetchone() is None:
        return
    # One without tables was made by a first start and is in nobody's way.
    with psycopg.connect(with_database(superuser_url, database)) as inside:
        tables = inside.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    if tables and tables[0]:
        raise Conflict(f"The server has a database `{database}` with tables in it: restore into another server.")
    conn.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(database)))


def mark_restored(url: str, taken_at: datetime) -> None:
    """From now on nothing is paid before the books are reconciled: see migration 0019."""
    with psycopg.connect(url) as conn:
        conn.execute("DELETE FROM restores")
        # Those that were paused before stay so after the release.
        conn.execute(
            """
            INSERT INTO restores (backup_at, held)
            SELECT %s, coalesce(array_agg(id ORDER BY id), '{}') FROM projects WHERE NOT paused
            """,
            [taken_at],
        )
        # The completion windows stand still from the backup on: what was lost is nobody's time.
        conn.execute(
            "UPDATE batches SET held_since = coalesce(held_since, %s) WHERE status = 'in_progress'", [taken_at]
        )
        conn.execute("UPDATE projects SET paused = true WHERE NOT paused")


def _as_owner(url: str, password: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, f"cope_owner:{password}@{host}", parts.path, parts.query, parts.fragment))


def _run(program: Path, options: list[str], url: str) -> None:
    parts = urlsplit(url)
    bare = urlunsplit(
        (parts.scheme, f"{parts.username}@{parts.hostname}:{parts.port or 5432}", parts.path, parts.query, "")
    )
    # The password goes by the environment: a command line can be read by everybody on the machine.
    environment = {**os.environ, "PGPASSWORD": unquote(parts.password or ""), "PGCONNECT_TIMEOUT": "10"}
    done = subprocess.run(
        [str(program), f"--dbname={bare}", *options], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Conflict(f"{program.name} failed: {said[-1] if said else done.returncode}")


def _digest(path: Path) -> tuple[str, int]:
    found, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        raise BadRequest(f"{path} is missing: the backup is damaged.") from None
    return found.hexdigest(), size


def _copy_tree(source: Path, target: Path, tell: Tell) -> tuple[int, int]:
    """How many files and bytes. One that is deleted meanwhile is left out: nobody asks for it any more."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    count = total = 0
    told = time.monotonic()
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if name != _UNFINISHED]
        place = target / Path(folder).relative_to(source)
        place.mkdir(exist_ok=True)
        for name in names:
            try:
                shutil.copy2(Path(folder) / name, place / name)
            except FileNotFoundError:
                continue
            count += 1
            total += (place / name).stat().st_size
            if time.monotonic() - told > _TELL_EVERY_S:
                told = time.monotonic()
                tell(f"files: {count}, {total / 1e6:.0f} MB")
    return count, total


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
