"""Projects, keys, caps and files over the memory store, as `ApiStore` describes them."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from cope.adapters.memory.alerts import rearm
from cope.adapters.memory.api_keys import ApiKeysMixin
from cope.adapters.memory.journal import note
from cope.adapters.memory.standstill import refresh_project
from cope.adapters.memory.tables import ProjectRow
from cope.core.budget import AUDIT_SCOPE, PROJECT_SCOPE, Scope, scope_kind
from cope.core.errors import Conflict, NotFound
from cope.core.event_types import project_turns
from cope.core.ids import BatchId, FileId, KeyId, ProjectId
from cope.core.lifecycle import TERMINAL_BATCH_STATUSES
from cope.core.money import NanoUSD
from cope.core.records import ApiKey, Budget, Project, StoredFile
from cope.core.restored import not_reconciled
from cope.ports.retention import Deleted
from cope.ports.store import Page

T = TypeVar("T")


class ApiProjectsMixin(ApiKeysMixin):
    """What the operator manages, and files."""

    async def create_project(self, project: Project, webhook_secret: str) -> Project:
        """The project as stored."""
        notice = self._db.restored
        if notice is not None and not project.paused:
            project = replace(project, paused=True)
            self._db.restored = replace(notice, held=(*notice.held, project.id))
        self._db.projects[project.id] = ProjectRow(project, webhook_secret)
        self._db.budget(project.id)
        return project

    async def ensure_project(self, project: Project, key: ApiKey, webhook_secret: str) -> None:
        """Nothing where a key of this hash exists, revoked or not, nor where the project does."""
        if project.id in self._db.projects or any(known.hash == key.hash for known in self._db.keys.values()):
            return
        await self.create_project(project, webhook_secret)
        self._db.keys[key.id] = key

    async def list_projects(self, *, after: ProjectId | None, limit: int) -> Page[Project]:
        """Oldest first."""
        rows = (row.project for row in self._db.projects.values())
        return page_of(rows, after=after, limit=limit, ascending=True, id_of=lambda project: project.id)

    async def get_project(self, project_id: ProjectId) -> Project | None:
        """The project, or None."""
        row = self._db.projects.get(project_id)
        return None if row is None else row.project

    async def update_project(
        self,
        project_id: ProjectId,
        *,
        name: str | None = None,
        paused: bool | None = None,
        pause_unparsable: bool | None = None,
        default_kind: str | None = None,
        time_zone: str | None = None,
        archived: bool | None = None,
    ) -> Project | None:
        """What is None stays as it is."""
        row = self._db.projects.get(project_id)
        if row is None:
            return None
        project = row.project
        if paused is False and project.paused and self._db.restored is not None:
            raise not_reconciled()
        row.project = replace(
            project,
            name=project.name if name is None else name,
            paused=project.paused if paused is None else paused,
            pause_unparsable=project.pause_unparsable if pause_unparsable is None else pause_unparsable,
            default_kind=project.default_kind if default_kind is None else default_kind,
            time_zone=project.time_zone if time_zone is None else time_zone,
        )
        if archived is not None:
            row.project = replace(row.project, archived_at=self._db.now() if archived else None)
        refresh_project(self._db, project_id)
        for type_ in project_turns(
            was=(project.paused, project.archived_at is not None),
            now=(row.project.paused, row.project.archived_at is not None),
        ):
            note(self._db, project_id, type_)
        return row.project

    async def set_cap(self, project_id: ProjectId, cap: NanoUSD | None, *, scope: str = PROJECT_SCOPE) -> Budget:
        """The present month's row and every later one get the new cap."""
        self._need_scope(project_id, scope)
        batch_id = None
        match scope_kind(scope):
            case Scope.BATCH:
                owner, batch_id = self._db.batches[BatchId(scope)], BatchId(scope)
                owner.batch = replace(owner.batch, cap=cap)
            case Scope.AUDIT:
                row = self._db.projects[project_id]
                row.project = replace(row.project, audit_cap=cap)
            case Scope.KEY:
                self._db.keys[KeyId(scope)] = replace(self._db.keys[KeyId(scope)], cap=cap)
            case _:
                row = self._db.projects[project_id]
                row.project = replace(row.project, cap=cap)
        budget = self._db.budget(project_id, scope=scope)
        before, budget.cap = budget.cap, cap
        if scope == PROJECT_SCOPE:
            rearm(self._db, project_id, before, budget.record())
        note(self._db, project_id, "budget.cap_changed", batch_id=batch_id, scope=scope, cap_nanousd=cap)
        return budget.record()

    async def get_budget(
        self, project_id: ProjectId, month: str | None = None, *, scope: str = PROJECT_SCOPE
    ) -> Budget:
        """Raises `NotFound` if there is no such project, key or batch."""
        self._need_scope(project_id, scope)
        return self._db.budget(project_id, month, scope).record()

    async def list_budgets(self, project_id: ProjectId) -> tuple[Budget, ...]:
        """The project's first, then its audits', then keys, then batches, each by id."""
        self._need_scope(project_id, PROJECT_SCOPE)
        keys = sorted(key.id for key in self._db.keys.values() if key.project_id == project_id)
        batches = sorted(
            owner.batch.id
            for owner in self._db.batches.values()
            if owner.batch.project_id == project_id
            and owner.batch.cap is not None
            and owner.batch.status not in TERMINAL_BATCH_STATUSES
        )
        audits = [AUDIT_SCOPE] if self._db.project(project_id).audit_share else []
        scopes = (PROJECT_SCOPE, *audits, *keys, *batches)
        return tuple(self._db.budget(project_id, scope=scope).record() for scope in scopes)

    def _need_scope(self, project_id: ProjectId, scope: str) -> None:
        match scope_kind(scope):
            case Scope.BATCH:
                owner = self._db.batches.get(BatchId(scope))
                if owner is None or owner.batch.project_id != project_id:
                    raise NotFound(f"There is no batch {scope!r}.")
            case Scope.KEY:
                key = self._db.keys.get(KeyId(scope))
                if key is None or key.project_id != project_id:
                    raise NotFound(f"There is no key {scope!r}.")
            case _:
                if project_id not in self._db.projects:
                    raise NotFound(f"There is no project {project_id!r}.")

    async def create_file(self, file: StoredFile, *, most_bytes: int | None = None) -> StoredFile:
        """The row as stored."""
        if most_bytes is not None:
            self._db.blobs.refuse_over(file, most_bytes)
        stored = self._db.blobs.take(file)
        self._db.files[file.id] = stored
        return stored

    async def get_file(self, project_id: ProjectId, file_id: FileId) -> StoredFile | None:
        """This project's file, or None."""
        file = self._db.files.get(file_id)
        return file if file is not None and file.project_id == project_id and self._in_time(file) else None

    def _in_time(self, file: StoredFile) -> bool:
        return file.expires_at is None or file.expires_at > self._db.now()

    async def list_files(
        self, project_id: ProjectId, *, after: FileId | None, limit: int, ascending: bool, purpose: str | None
    ) -> Page[StoredFile]:
        """By id, which is by age."""
        mine = (
            file
            for file in self._db.files.values()
            if file.project_id == project_id and (purpose is None or file.purpose == purpose) and self._in_time(file)
        )
        return page_of(mine, after=after, limit=limit, ascending=ascending, id_of=lambda file: file.id)

    async def delete_file(self, project_id: ProjectId, file_id: FileId) -> Deleted | None:
        """None where the project has no such file."""
        file = self._db.files.get(file_id)
        if file is None or file.project_id != project_id:
            return None
        for owner in self._db.batches.values():
            running = owner.batch.status not in TERMINAL_BATCH_STATUSES and owner.retry is None
            if owner.batch.input_file_id == file_id and running:
                raise Conflict(f"File {file_id!r} is being read by batch {owner.batch.id!r}.", code="file_in_use")
        del self._db.files[file_id]
        return Deleted(self._db.blobs.release(file))


def page_of(
    items: Iterable[T], *, after: str | None, limit: int, ascending: bool, id_of: Callable[[T], str]
) -> Page[T]:
    """At most `limit` items beyond the id `after`, by id."""
    ordered = sorted(items, key=id_of, reverse=not ascending)
    if after is not None:
        ordered = [item for item in ordered if (id_of(item) > after if ascending else id_of(item) < after)]
    return Page(tuple(ordered[:limit]), has_more=len(ordered) > limit)
