"""A provider's Batch API in memory: nothing happens to a batch until `finish` says what."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import Any

from cope.core.errors import ModelError, ModelRejected
from cope.core.models import ModelEntry
from cope.ports.model import ChatAnswer, ChatRequest
from cope.ports.provider_batches import RemoteBatch, RemoteLine
from cope.ports.support import Clock

Script = Callable[[Mapping[str, Any]], ChatAnswer]


@dataclass(slots=True)
class _Kept:
    remote: RemoteBatch
    marker: str
    lines: Sequence[tuple[str, str]]


class MemoryBatches:
    """`script` answers a call's body, or raises the `ModelError` that fails its line.

    `billed` has each carried out call's custom id, in order: what the provider would charge for. `asked` counts the
    calls of each method, `batches` are by the provider's id.
    """

    def __init__(self, script: Script, clock: Clock) -> None:
        self._script = script
        self._clock = clock
        self._next = count(1)
        self._files: dict[str, Sequence[tuple[str, str]]] = {}
        self._results: dict[str, list[RemoteLine]] = {}
        self.batches: dict[str, _Kept] = {}
        self.billed: list[str] = []
        self.asked: dict[str, int] = {}

    # ---- what a test or a demonstration decides --------------------------------------------------------------------

    def finish(self, batch_id: str | None = None, *, status: str = "completed", done: int | None = None) -> None:
        """End this batch (None: every one that has not ended). The first `done` lines are carried out (None: all, or
        none where validation `failed`); the others fail as the status says."""
        for kept in self.batches.values():
            if not kept.remote.ended and batch_id in {None, kept.remote.id}:
                self._finish(kept, status, len(kept.lines) if done is None else done)

    def _finish(self, kept: _Kept, status: str, done: int) -> None:
        output: list[RemoteLine] = []
        errors: list[RemoteLine] = []
        for place, (custom_id, body) in enumerate(kept.lines if status != "failed" else ()):
            if place >= done:
                errors.append(RemoteLine(custom_id, None, f"batch_{status}: not carried out"))
                continue
            try:
                output.append(RemoteLine(custom_id, self._script(json.loads(body))))
                self.billed.append(custom_id)
            except ModelError as error:
                errors.append(RemoteLine(custom_id, None, f"{error.code}: {error.message}"))
        kept.remote = replace(
            kept.remote,
            status=status,
            ended=True,
            output_file_id=self._keep(output),
            error_file_id=self._keep(errors),
            completed=len(output),
            error="invalid_file: it can't be read" if status == "failed" else None,
        )

    def change_results(self, file_id: str, change: Callable[[list[RemoteLine]], list[RemoteLine]]) -> None:
        """Have a result file say something else."""
        self._results[file_id] = change(self._results[file_id])

    def _keep(self, lines: list[RemoteLine]) -> str | None:
        if not lines:
            return None
        file_id = f"file-{next(self._next):04d}"
        self._results[file_id] = lines
        return file_id

    # ---- the port --------------------------------------------------------------------------------------------------

    def body(self, request: ChatRequest) -> str:
        """What the script will see."""
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        return json.dumps({"model": request.model.served_name, "messages": messages, "max_tokens": request.max_tokens})

    async def upload(self, model: ModelEntry, *, name: str, lines: Sequence[tuple[str, str]]) -> str:
        """Kept for ever."""
        self._count("upload")
        file_id = f"file-{next(self._next):04d}"
        self._files[file_id] = tuple(lines)
        return file_id

    async def create(self, model: ModelEntry, *, file_id: str, marker: str) -> RemoteBatch:
        """In progress at once. An unknown file is refused."""
        self._count("create")
        if file_id not in self._files:
            raise ModelRejected(f"HTTP 400: no file {file_id}", answered=True)
        batch_id = f"batch_{next(self._next):04d}"
        remote = RemoteBatch(batch_id, "in_progress", False, None, None, 0, self._clock.now())
        self.batches[batch_id] = _Kept(remote, marker, self._files[file_id])
        return remote

    async def find(self, model: ModelEntry, *, marker: str, since: datetime) -> tuple[RemoteBatch, ...]:
        """In the order of their creation."""
        self._count("find")
        return tuple(
            kept.remote for kept in self.batches.values() if kept.marker == marker and kept.remote.created_at >= since
        )

    async def retrieve(self, model: ModelEntry, batch_id: str) -> RemoteBatch:
        """As `finish` and `cancel` left it."""
        self._count("retrieve")
        return self.batches[batch_id].remote

    async def cancel(self, model: ModelEntry, batch_id: str) -> RemoteBatch:
        """`cancelling` until `finish` ends it."""
        self._count("cancel")
        kept = self.batches[batch_id]
        if not kept.remote.ended:
            kept.remote = replace(kept.remote, status="cancelling")
        return kept.remote

    async def results(self, model: ModelEntry, file_id: str) -> AsyncIterator[RemoteLine]:
        """As `finish` wrote them."""
        self._count("results")
        for line in list(self._results[file_id]):
            yield line

    async def aclose(self) -> None:
        """Nothing to close."""

    def _count(self, method: str) -> None:
        self.asked[method] = self.asked.get(method, 0) + 1
