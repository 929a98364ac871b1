"""Schema and roles: `create_roles` once as a superuser, then `upgrade` as `cope_owner`.

Three roles: `cope_owner` owns the tables, `cope_api` sees one project at a time by row-level security, `cope_worker`
bypasses it (claims, COPY). Both steps are safe to repeat.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

SCHEMA = "0020"
"""The revision that this version of the code works with."""

OWNER, API, WORKER = "cope_owner", "cope_api", "cope_worker"

_MIGRATION_LOCK = 0x636F7065
# Whoever waits for a whole table makes everybody else wait behind it: better soon and often than once and long.
_LOCK_WAIT_S, _TRIES = 3, 40
_LOCKED = (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable)

_Act: TypeAlias = Callable[[Config], None]


def upgrade(owner_url: str, revision: str = "head") -> None:
    """Bring the database at `owner_url` (``postgresql://…``) to `revision`, under load too: each migration is a
    transaction of its own, and one that met the locks of running work is tried again. Two at once: one waits for the
    other."""
    _run(owner_url, lambda config: command.upgrade(config, revision))


def downgrade(owner_url: str, revision: str = "base") -> None:
    """Take the database back to `revision`; ``base`` is empty."""
    _run(owner_url, lambda config: command.downgrade(config, revision))


def create_roles(
    superuser_url: str,
    *,
    owner_password: str,
    api_password: str,
    worker_password: str,
    database: str = "cope",
) -> None:
    """The three roles with these passwords, and `database` owned by `cope_owner`, whatever was there before."""
    roles = (
        (OWNER, owner_password, "NOBYPASSRLS"),
        (API, api_password, "NOBYPASSRLS"),
        (WORKER, worker_password, "BYPASSRLS"),
    )
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", [_MIGRATION_LOCK])
        for name, password, bypass in roles:
            _ensure_role(conn, name, password, bypass)
        _ensure_database(conn, database)


def _ensure_role(conn: psycopg.Connection, name: str, password: str, bypass: str) -> None:
    known = conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
    # The verifier, not the password, travels in the statement: statements may be logged.
    verifier = conn.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    conn.execute(
        sql.SQL("{} ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE {} PASSWORD {}").format(
            sql.SQL("ALTER" if known else "CREATE"), sql.Identifier(name), sql.SQL(bypass), sql.Literal(verifier)
        )
    )


def _ensure_database(conn: psycopg.Connection, database: str) -> None:
    name = sql.Identifier(database)
    if not conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
        conn.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, sql.Identifier(OWNER)))
    conn.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(OWNER)))
    conn.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    conn.execute(
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}, {}").format(name, sql.Identifier(API), sql.Identifier(WORKER))
    )


def alembic_config(connection: Connection) -> Config:
    """Alembic over an open connection; the scripts lie beside the package once installed, else in the repository."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "migrations"
    config = Config()
    config.set_main_option(
        "script_location", str(installed if installed.is_dir() else package.parents[1] / "migrations")
    )
    config.attributes["connection"] = connection
    return config


def _run(owner_url: str, act: _Act) -> None:
    url = make_url(owner_url).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({_MIGRATION_LOCK})")
            connection.exec_driver_sql(f"SET lock_timeout = '{_LOCK_WAIT_S}s'")
            connection.commit()
            for patience in range(_TRIES, -1, -1):
                try:
                    act(alembic_config(connection))
                    break
                except OperationalError as met:
                    connection.rollback()
                    if not patience or not isinstance(met.orig, _LOCKED):
                        raise
                    time.sleep(0.1 * (1 + patience % 5))
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_MIGRATION_LOCK})")
            connection.commit()
    finally:
        engine.dispose()
