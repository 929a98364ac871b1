"""What a backup says of itself: `manifest.json`, written last, so that a backup without one is unfinished."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from cope.core.errors import BadRequest

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """`taken_at` is from before the database was read: what was paid later may be missing. `schema` is the migration,
    `server` Postgres's major version, `key_hint` the head of SHA-256 of COPE_SECRET_KEY (empty: not known)."""

    taken_at: datetime
    schema: str
    server: int
    dump_sha256: str
    dump_bytes: int
    files: int
    file_bytes: int
    key_hint: str

    def encode(self) -> str:
        """As JSON."""
        return json.dumps({"format": FORMAT, **asdict(self), "taken_at": self.taken_at.isoformat()}, indent=1) + "\n"


def decode_manifest(text: str) -> Manifest:
    """Raises `BadRequest` for what is no manifest of ours."""
    try:
        told: dict[str, Any] = json.loads(text)
        if told.pop("format") != FORMAT:
            raise BadRequest("This backup is of another format: restore it with the version that made it.")
        return Manifest(**{**told, "taken_at": datetime.fromisoformat(told["taken_at"])})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequest("manifest.json is not one of a backup.") from None
