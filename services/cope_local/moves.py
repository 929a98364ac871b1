"""A local stack's data, moved: into a newer Postgres, and back from a backup."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from cope.adapters.postgres.backup import Passwords, copy_database, restore
from cope.core.errors import CopeError
from cope_local.errors import CannotStart
from cope_local.layout import Secrets, prepare
from cope_local.postgres import MOVED, NEW_CLUSTER, EmbeddedPostgres, find_binaries
from cope_local.stack import Stack

Tell = Callable[[str], None]


def upgrade_data(data_dir: Path, *, tell: Tell) -> Path | None:
    """Move the data into a cluster of the Postgres that is found now, by dump and restore. The old cluster stays under
    another name, which is returned; None where the data are of that version already. Raises `CannotStart`.

    Cut off at any point, it can be run again: the old data are only read, and moved aside last.
    """
    if not (data_dir / "secrets.json").exists():
        raise CannotStart(f"There is no stack in {data_dir}.")
    stack = Stack(data_dir)  # holds the directory: no stack can start in it meanwhile
    try:
        return _upgrade(stack, tell)
    finally:
        stack.stop()


def _upgrade(stack: Stack, tell: Tell) -> Path | None:
    home, password = stack.data_dir / "postgres", stack.secrets.postgres
    new = EmbeddedPostgres(home, password=password, cluster=NEW_CLUSTER)
    old = EmbeddedPostgres(home, password=password)
    held = old.held_major
    if held is None:
        raise CannotStart(f"There are no data in {old.cluster}.")
    if held == new.major:
        return None
    tell(f"Postgres {held} is read, {new.major} is filled")
    shutil.rmtree(new.cluster, ignore_errors=True)
    with EmbeddedPostgres(home, password=password, binaries=find_binaries(major=held)) as source, new as target:
        try:
            size = copy_database(source.url(), target.url(), home / "moving.dump", passwords=_passwords(stack.secrets))
        except CopeError as wrong:
            raise CannotStart(f"The data could not be moved, and are as they were: {wrong.message}") from None
        tell(f"{size / 1e6:.1f} MB moved")
    (new.cluster / MOVED).touch()
    kept = old.cluster.with_name(f"pg-{held}-kept-{time.strftime('%Y%m%d%H%M%S', time.gmtime())}")
    old.cluster.rename(kept)
    return kept


def restore_local(backup: Path, data_dir: Path, *, tell: Tell) -> None:
    """Bring a backup back as a stack in a new directory. Raises `CannotStart`."""
    if (data_dir / "secrets.json").exists():
        raise CannotStart(f"There is a stack in {data_dir} already: restore into a new --data-dir.")
    prepare(data_dir)
    if (backup / "secrets.json").exists():
        # Before the first look at it: a directory without secrets would be given new ones.
        target = data_dir / "secrets.json"
        target.touch(mode=0o600)
        target.write_text((backup / "secrets.json").read_text())
    stack = Stack(data_dir)
    try:
        with EmbeddedPostgres(stack.data_dir / "postgres", password=stack.secrets.postgres) as server:
            restore(backup, server.url(), stack.data_dir / "files", passwords=_passwords(stack.secrets), tell=tell)
    except CopeError as wrong:
        (data_dir / "secrets.json").unlink(missing_ok=True)
        raise CannotStart(wrong.message) from None
    finally:
        stack.stop()


def _passwords(secrets: Secrets) -> Passwords:
    return Passwords(secrets.owner, secrets.api, secrets.worker)
