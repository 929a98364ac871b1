"""`cope backup`, `cope restore` and `cope restored`: a whole copy of the store, and the way back from it."""

import hashlib
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import unquote, urlsplit

import psycopg
import typer

from cope.adapters.postgres.backup import Passwords, backup, restore
from cope.core.backup import Manifest
from cope.core.errors import CopeError
from cope_cli.address import find_address

REFUSED, UNREACHABLE = 2, 3
_STACK = Path(".cope/stack")

Database = Annotated[
    str | None,
    typer.Option(
        "--database-url", help="A superuser's address of the server. Default: DATABASE_URL, or the local stack."
    ),
]
Files = Annotated[
    Path | None,
    typer.Option("--files", help="The folder of files. Default: COPE_DATA_DIR, or the local stack's."),
]


def backup_command(
    to: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    database_url: Database = None,
    files: Files = None,
) -> None:
    """Copy the database and the files while the service runs: cope backup /backups/2026-11-25

    The copy holds prompts, answers and hashed keys: it is readable by you alone, keep it so. COPE_SECRET_KEY is not in
    it (for a local stack: secrets.json is), keep that beside it in a safe place. Files in an object store
    (COPE_FILES_URL) are left there: keep its versions.
    """
    url, folder = _places(database_url, files)
    secret = os.environ.get("COPE_SECRET_KEY", "")
    local = _STACK / "secrets.json" if database_url is None and "DATABASE_URL" not in os.environ else None
    if local is not None:
        secret = json.loads(local.read_text())["secret_key"]
    hint = hashlib.sha256(secret.encode()).hexdigest()[:12] if secret else ""
    try:
        kept = None if local is None else local.read_text()
        made = backup(url, folder, to, key_hint=hint, tell=_tell, secrets=kept)
    except (CopeError, psycopg.Error, OSError) as wrong:
        _refuse(wrong)
    sys.stdout.write(f"{to}: {_told(made)}\n")


def restore_command(
    backup_folder: Annotated[Path, typer.Argument(metavar="BACKUP", help="What `cope backup` made.")],
    database_url: Annotated[str, typer.Option("--database-url", help="A superuser's address of an empty server.")],
    files: Annotated[
        Path | None,
        typer.Option("--files", help="An empty folder for the files. Without one where COPE_FILES_URL is an s3://."),
    ] = None,
) -> None:
    """Bring a backup back into an empty server: cope restore /backups/2026-11-25 --database-url … --files …

    Nothing is paid for after it until the books are reconciled: every project is paused. Start the service (which sets
    the roles' passwords), apply the provider's usage export with cope reconcile, then: cope restored --release.
    For a local stack: ./run restore BACKUP --data-dir NEW.
    """
    if files is None and _in_object_store() is None:
        _refuse("no folder of files: give --files (an empty one), or set COPE_FILES_URL")
    made = Passwords(*(secrets.token_urlsafe(24) for _ in range(3)))
    try:
        manifest = restore(backup_folder, database_url, files, passwords=made, tell=_tell)
    except (CopeError, psycopg.Error, OSError) as wrong:
        _refuse(wrong)
    secret = os.environ.get("COPE_SECRET_KEY", "")
    if manifest.key_hint and secret and hashlib.sha256(secret.encode()).hexdigest()[:12] != manifest.key_hint:
        sys.stderr.write(
            "cope: COPE_SECRET_KEY is another one than the backup's: webhook secrets can't be read with it\n"
        )
    sys.stdout.write(f"restored, every project paused: {_told(manifest)}\n")


def restored_command(
    context: typer.Context,
    release: Annotated[bool, typer.Option("--release", help="Let the projects go on.")] = False,
    unreconciled: Annotated[
        bool, typer.Option("--unreconciled", help="With --release: although the books may lack paid calls.")
    ] = False,
) -> None:
    """Say whether this store was restored and what it waits for; --release lets it go on (operator; prints JSON)."""
    client = find_address(*context.obj).client(admin=True)
    if release:
        found: Any = client.post("/organization/restore/release", body={"unreconciled": unreconciled}, cast_to=object)
    else:
        found = client.get("/organization/restore", cast_to=object)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def register(app: typer.Typer) -> None:
    """Add the three commands."""
    app.command(name="backup")(backup_command)
    app.command(name="restore")(restore_command)
    app.command(name="restored")(restored_command)


def _places(database_url: str | None, files: Path | None) -> tuple[str, Path | None]:
    url, folder, elsewhere = database_url or os.environ.get("DATABASE_URL"), files, _in_object_store()
    if folder is None and elsewhere is not None and url is not None:
        _tell(f"the files stay in {elsewhere}")
        return url, None
    if folder is None and os.environ.get("COPE_FILES_URL", "").startswith("file://"):
        folder = Path(unquote(urlsplit(os.environ["COPE_FILES_URL"]).path))
    if folder is None and os.environ.get("COPE_DATA_DIR"):
        folder = Path(os.environ["COPE_DATA_DIR"])
    if url is None:
        try:
            url = json.loads((_STACK / "stack.json").read_text())["superuser_url"]
        except (OSError, KeyError):
            _refuse("no database: give --database-url (a superuser's), or run it where a local stack of ./run up runs")
        folder = folder or _STACK / "files"
    if folder is None:
        _refuse("no folder of files: give --files, or set COPE_DATA_DIR")
    if not folder.is_dir():
        _refuse(f"there is no folder {folder}")
    return url, folder


def _in_object_store() -> str | None:
    """Where files lie that no folder here has."""
    url = os.environ.get("COPE_FILES_URL", "")
    return url if url.startswith("s3://") else None


def _told(manifest: Manifest) -> str:
    return (
        f"taken at {manifest.taken_at.isoformat(timespec='seconds')}, schema {manifest.schema}, "
        f"dump {manifest.dump_bytes / 1e6:.1f} MB, {manifest.files} files of {manifest.file_bytes / 1e6:.1f} MB"
    )


def _tell(what: str) -> None:
    sys.stderr.write(f"  {what}\n")


def _refuse(wrong: object) -> NoReturn:
    sys.stderr.write(f"cope: {wrong}\n")
    raise typer.Exit(UNREACHABLE if isinstance(wrong, psycopg.OperationalError) else REFUSED)
