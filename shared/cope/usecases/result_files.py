"""Output and error files as they are written: line by line into the file store, never whole in memory."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from cope.core.ids import FILE, FileId
from cope.core.records import Batch, StoredFile
from cope.ports.files import FileStore, FileWriter
from cope.ports.store import ResultLine
from cope.ports.support import Clock, IdMaker
from cope.usecases.result_lines import encode_line


class ResultFileParts(Protocol):
    """What writing a result file needs."""

    @property
    def files(self) -> FileStore: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def ids(self) -> IdMaker: ...


class ResultFile:
    """One file being written; `lines` so far. Invisible until `end`."""

    def __init__(self, parts: ResultFileParts, batch: Batch, kind: str, file_id: FileId, writer: FileWriter) -> None:
        self._parts = parts
        self._batch = batch
        self._kind = kind
        self._id = file_id
        self._writer = writer
        self._digest = hashlib.sha256()
        self._size = 0
        self.lines = 0

    @classmethod
    async def begin(cls, parts: ResultFileParts, batch: Batch, kind: str) -> "ResultFile":
        """`kind` (``output`` or ``error``) becomes part of its name."""
        file_id = FileId(parts.ids.new(FILE))
        return cls(parts, batch, kind, file_id, await parts.files.create(file_id))

    async def add(self, lines: Sequence[ResultLine]) -> None:
        """Append."""
        if not lines:
            return
        data = b"".join(map(encode_line, lines))
        self._digest.update(data)
        self._size += len(data)
        self.lines += len(lines)
        await self._writer.write(data)

    async def end(self) -> StoredFile:
        """Its bytes are durable; the row is the caller's to store."""
        await self._writer.commit()
        now, batch = self._parts.clock.now(), self._batch
        kept = None if batch.output_expires_after_s is None else timedelta(seconds=batch.output_expires_after_s)
        return StoredFile(
            id=self._id,
            project_id=batch.project_id,
            filename=f"{batch.id}_{self._kind}.jsonl",
            purpose="batch_output",
            bytes=self._size,
            lines=self.lines,
            sha256=self._digest.hexdigest(),
            created_at=now,
            expires_at=None if kept is None else now + kept,
        )

    async def discard(self) -> None:
        """Forget it. Harmless after `end`."""
        await self._writer.discard()
