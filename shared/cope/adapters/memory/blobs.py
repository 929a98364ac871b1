"""The bytes behind files' rows, counted: equal files of a project share one blob."""

from dataclasses import dataclass, replace
from datetime import datetime

from cope.core.errors import Conflict, TooLarge
from cope.core.ids import FileId, ProjectId
from cope.core.records import StoredFile

_PRODUCED = "batch_output"


@dataclass(slots=True)
class BlobRow:
    """One run of bytes: how many files read it; dead for good at 0."""

    id: FileId
    project_id: ProjectId
    sha256: str
    bytes: int
    refs: int
    shared: bool
    emptied_at: datetime | None = None


class Blobs:
    """All of them, in the order they came or died."""

    def __init__(self) -> None:
        self.rows: dict[FileId, BlobRow] = {}

    def take(self, file: StoredFile) -> StoredFile:
        """The file over the blob of its content. Raises `Conflict` where its name is dead."""
        shared = file.purpose != _PRODUCED
        same = next((row for row in self.rows.values() if shared and _is_content(row, file)), None)
        if same is None:
            if file.id in self.rows:
                raise Conflict(
                    f"The bytes of file {file.id!r} were collected: it came too late.", code="upload_too_late"
                )
            self.rows[file.id] = BlobRow(file.id, file.project_id, file.sha256, file.bytes, 1, shared)
            return replace(file, blob=file.id)
        same.refs += 1
        self.rows.setdefault(file.id, BlobRow(file.id, file.project_id, file.sha256, file.bytes, 0, shared=False))
        return replace(file, blob=same.id)

    def release(self, file: StoredFile) -> FileId | None:
        """The name of its bytes if nobody else reads them."""
        row = self.rows[file.bytes_id]
        row.refs -= 1
        return None if row.refs else row.id

    def refuse_over(self, file: StoredFile, most: int) -> None:
        """Raises `TooLarge` if with this file its project's take over `most` bytes."""
        taken = self.bytes_of(file.project_id)
        if not any(_is_content(row, file) for row in self.rows.values()) and taken + file.bytes > most:
            raise TooLarge(
                f"This project's files take {taken} bytes, and may take {most}: delete some, or have them expire.",
                code="project_storage_limit",
            )

    def bytes_of(self, project_id: ProjectId) -> int:
        """What a project's take."""
        return sum(row.bytes for row in self.rows.values() if row.refs and row.project_id == project_id)


def _is_content(row: BlobRow, file: StoredFile) -> bool:
    return row.refs > 0 and row.shared and (row.project_id, row.sha256) == (file.project_id, file.sha256)
