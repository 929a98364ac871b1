"""API keys over the memory store, as `ApiStore` describes them."""

from dataclasses import replace
from datetime import datetime, timedelta

from cope.adapters.memory.tables import Tables
from cope.core.ids import KeyId, ProjectId
from cope.core.records import ApiKey

_STAMP_EVERY = timedelta(minutes=1)


class ApiKeysMixin:
    """Found by hash, made, listed, rotated, revoked."""

    def __init__(self, db: Tables) -> None:
        self._db = db

    async def find_key(self, key_hash: bytes) -> ApiKey | None:
        """A live key of a project that is not archived; finding it stamps `last_used_at`, once a minute at most."""
        now = self._db.now()
        for key in self._db.keys.values():
            known = key.hash == key_hash
            if not known and key.previous_hash == key_hash and key.previous_until is not None:
                known = now < key.previous_until
            if known and self._is_live(key):
                if self._db.project(key.project_id).archived_at is not None:
                    return None
                if key.last_used_at is None or now - key.last_used_at > _STAMP_EVERY:
                    self._db.keys[key.id] = replace(key, last_used_at=now)
                return key
        return None

    def _is_live(self, key: ApiKey) -> bool:
        return key.revoked_at is None and (key.expires_at is None or self._db.now() < key.expires_at)

    async def create_key(self, key: ApiKey) -> ApiKey:
        """The key as stored."""
        self._db.keys[key.id] = key
        return key

    async def list_keys(self, project_id: ProjectId) -> tuple[ApiKey, ...]:
        """Oldest first, revoked ones included."""
        keys = (key for key in self._db.keys.values() if key.project_id == project_id)
        return tuple(sorted(keys, key=lambda key: key.id))

    async def revoke_key(self, project_id: ProjectId, key_id: KeyId) -> bool:
        """False where the project has no such key, or it is revoked already."""
        key = self._db.keys.get(key_id)
        if key is None or key.project_id != project_id or key.revoked_at is not None:
            return False
        self._db.keys[key_id] = replace(key, revoked_at=self._db.now())
        return True

    async def rotate_key(
        self,
        project_id: ProjectId,
        key_id: KeyId,
        *,
        new_hash: bytes,
        hint: str,
        overlap_s: int,
        expires_at: datetime | None = None,
    ) -> ApiKey | None:
        """The key with its new secret; None where the project has no such live key."""
        key, now = self._db.keys.get(key_id), self._db.now()
        if key is None or key.project_id != project_id or not self._is_live(key):
            return None
        overlapping = key.previous_until is not None and now < key.previous_until
        older = key.previous_hash if overlapping else key.hash
        rotated = replace(
            key,
            hash=new_hash,
            hint=hint,
            rotated_at=now,
            expires_at=expires_at or key.expires_at,
            previous_hash=older if overlap_s > 0 else None,
            previous_until=now + timedelta(seconds=overlap_s) if overlap_s > 0 else None,
        )
        self._db.keys[key_id] = rotated
        return rotated
