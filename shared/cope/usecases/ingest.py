"""From an uploaded file to tasks: every line validated and COPYed in one transaction.

The file is read once. The first bad line ends the copying and rolls it back, and the rest is only validated, so that
the caller gets every error with its line number. A million lines never sit in memory.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

import orjson

from cope.core.answer_pool import pool_key
from cope.core.codec import encode_payload, encode_policy
from cope.core.errors import BadRequest, NotFound
from cope.core.fairness import LONGEST
from cope.core.ids import TASK, FileId, TaskId, compact
from cope.core.json_guard import check_json
from cope.core.models import ModelCatalog
from cope.core.policies.spec import PolicySpec
from cope.core.priced import refuse_unpriced
from cope.core.prices import PriceTable
from cope.core.problem import Kind
from cope.core.records import Batch, LineError
from cope.core.request import ParsedRequest, RequestDefaults, RequestParser
from cope.core.responses.request import parse_response
from cope.core.survey import encode_survey
from cope.core.task import Cache, StoreLevel, TaskSpec
from cope.ports.files import FileStore
from cope.ports.store import BatchJob, NewTask, WorkerStore
from cope.ports.support import Clock, IdMaker, WakeUp
from cope.usecases.dry_run import Surveyor, seed_of
from cope.usecases.keep import keep_job
from cope.usecases.result_files import ResultFile
from cope.usecases.retry_lines import NOTHING, CannotRetry, Retried
from cope.usecases.run_step import first_queue
from cope.usecases.watch_prices import reread_or_go_on

MAX_ERRORS = 1000
RESPONSES = "/v1/responses"
_PAGE = 1000
_LONGEST_CUSTOM_ID = 512
_LINE_KEYS = frozenset({"custom_id", "method", "url", "body"})
_WINDOW_UNITS = {"h": 3600, "d": 86400}
NO_WINDOW = "none"


class IngestParts(Protocol):
    """What ingest needs."""

    @property
    def store(self) -> WorkerStore: ...
    @property
    def files(self) -> FileStore: ...
    @property
    def wake(self) -> WakeUp: ...
    @property
    def catalog(self) -> ModelCatalog: ...
    @property
    def prices(self) -> PriceTable: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def ids(self) -> IdMaker: ...


class InvalidFile(Exception):
    """The file can't become a batch; `errors` lists every refused line, at most `MAX_ERRORS` of them."""

    def __init__(self, errors: tuple[LineError, ...]) -> None:
        super().__init__(f"{len(errors)} errors")
        self.errors = errors


async def ingest_next(parts: IngestParts, *, lease_s: float) -> bool:
    """Take one batch in `validating` and bring it to `in_progress` or `failed`; False if there is none."""
    job = await parts.store.claim_validation(lease_s=lease_s)
    if job is None:
        return False
    async with keep_job(parts.store, job, lease_s=lease_s):
        project = await parts.store.project(job.batch.project_id)
        kind = Kind.MATH if project is None else Kind(project.default_kind)
        await reread_or_go_on(parts.store, parts.prices)  # no line is refused for a price added a moment ago
        if job.batch.retry_of is not None:
            await _take_up_again(parts, job)
            return True
        surveyor = await _surveyor(parts, job.batch)
        rows = _Rows(parts, job.batch, kind, surveyor, await _bytes_of(parts, job.batch))
        try:
            pages = rows.pages() if surveyor is None else _pilot(parts, job, rows, surveyor)
            await parts.store.ingest(job, pages, model=rows.only_model, expires_in=batch_window(job.batch))
        except InvalidFile as invalid:
            await _fail(parts, job, invalid.errors)
            await parts.wake.poke("webhooks")
            return True
        for queue in rows.queues:
            await parts.wake.poke(queue)
    return True


async def _fail(parts: IngestParts, job: BatchJob, errors: Sequence[LineError]) -> None:
    """The batch ends. It has an empty output file, as whatever ends without an answer; a dry run has none at all."""
    output = None
    if job.batch.dry_run is None:
        output = await (await ResultFile.begin(parts, job.batch, "output")).end()
    if await parts.store.fail_validation(job, errors, output=output):
        await parts.wake.announce([job.batch.id])
    elif output is not None:
        await parts.files.delete(output.id)


async def _bytes_of(parts: IngestParts, batch: Batch) -> FileId:
    """The name of the input's bytes: another file's, where they share them."""
    file = await parts.store.file(batch.input_file_id)
    return batch.input_file_id if file is None else file.bytes_id


async def _take_up_again(parts: IngestParts, job: BatchJob) -> None:
    """A retry reads no file: its lines are another batch's tasks."""
    retried = Retried(parts, await parts.store.line_retry(job))
    errors: tuple[LineError, ...] = ()
    try:
        if await parts.store.take_lines(job, retried.page, expires_in=batch_window(job.batch)) == 0:
            errors = (NOTHING,)
    except CannotRetry as wrong:
        errors = wrong.errors
    if errors:
        await _fail(parts, job, errors)
        await parts.wake.poke("webhooks")
        return
    for queue in retried.queues:
        await parts.wake.poke(queue)
    await parts.wake.poke("upkeep")  # the batch whose held lines went may be at its end


async def _surveyor(parts: IngestParts, batch: Batch) -> Surveyor | None:
    """What reads the lines of a dry run, None for a real batch."""
    if batch.dry_run is None:
        return None
    file = await parts.store.file(batch.input_file_id)
    seed = seed_of(batch, "" if file is None else file.sha256)
    window_s = window_seconds(batch.completion_window) or LONGEST.total_seconds()
    return Surveyor(parts, seed=seed, pilot_lines=batch.dry_run, now=parts.clock.now(), window_s=window_s)


async def _pilot(
    parts: IngestParts, job: BatchJob, rows: "_Rows", surveyor: Surveyor
) -> AsyncIterator[Sequence[NewTask]]:
    """The tasks of a dry run: the whole file is read, validated and surveyed, and only the lines drawn are kept."""
    async for _ in rows.pages():
        pass
    survey, tasks = surveyor.finish()
    await parts.store.put_survey(job, encode_survey(survey))
    if tasks:
        yield tasks


def window_seconds(window: str) -> int | None:
    """Seconds of a completion window such as ``"24h"`` or ``"7d"``; None for ``"none"``, which never ends. Raises
    `BadRequest` outside 1 hour to 7 days."""
    if window == NO_WINDOW:
        return None
    number, unit = window[:-1], window[-1:]
    if number.isascii() and number.isdigit() and len(number) <= 3 and unit in _WINDOW_UNITS:
        seconds = int(number) * _WINDOW_UNITS[unit]
        if 3600 <= seconds <= LONGEST.total_seconds():
            return seconds
    raise BadRequest(
        "`completion_window` is a number of hours or days from '1h' to '7d', or 'none' (the batch never expires).",
        param="completion_window",
    )


def batch_window(batch: Batch) -> timedelta | None:
    """How long the batch has from its beginning on; None: it never expires."""
    seconds = window_seconds(batch.completion_window)
    return None if seconds is None else timedelta(seconds=seconds)


class _Rows:
    """The lines of one batch as pages of rows, and what was learnt on the way."""

    def __init__(
        self, parts: IngestParts, batch: Batch, kind: Kind, surveyor: Surveyor | None, bytes_id: FileId
    ) -> None:
        self._parts = parts
        self._surveyor = surveyor
        self._bytes_id = bytes_id
        self._reader = LineReader(batch, kind, parts.catalog)
        self._seen: set[str | bytes] = set()
        self._models: set[str] = set()
        # By identity: the reader gives lines of equal policies one object, and hashing its fractions costs more than
        # the look-up. The object is kept here, so no other can come to have its id.
        self._policies: dict[int, tuple[PolicySpec, str, str]] = {}
        self._errors: list[LineError] = []

    @property
    def queues(self) -> set[str]:
        """The queues of the tasks' first steps."""
        return {queue for _, _, queue in self._policies.values()}

    def only_model(self) -> str | None:
        """The one model that all lines name, None if they name several."""
        return next(iter(self._models)) if len(self._models) == 1 else None

    async def pages(self) -> AsyncIterator[list[NewTask]]:
        """About 1,000 rows at a time. Raises `InvalidFile` at the end of a file with any error in it."""
        page: list[NewTask] = []
        number = 0
        async for lines in self._lines():
            for number, raw in lines:
                try:
                    row = self._row(number, raw)
                except BadRequest as wrong:
                    self._errors.append(LineError(wrong.code, wrong.message, wrong.param, number))
                    if len(self._errors) >= MAX_ERRORS:
                        raise InvalidFile(tuple(self._errors)) from None
                else:
                    page.append(row)
            if len(page) >= _PAGE:
                if not self._errors:
                    yield page
                page = []
        if not number:
            self._errors.append(LineError("empty_file", "The input file holds no request.", "input_file_id", None))
        if self._errors:
            raise InvalidFile(tuple(self._errors))
        if page:
            yield page

    async def _lines(self) -> AsyncIterator[list[tuple[int, bytes]]]:
        try:
            async for lines in lines_of(self._parts.files, self._bytes_id):
                yield lines
        except NotFound:
            gone = LineError("file_not_found", "The input file is not there any more.", "input_file_id", None)
            raise InvalidFile((gone,)) from None

    def _row(self, number: int, raw: bytes) -> NewTask:
        custom_id, request = self._reader.read(raw)
        seen = compact(custom_id)
        if seen in self._seen:
            raise BadRequest("This `custom_id` stands on an earlier line.", param="custom_id", code="duplicate")
        self._seen.add(seen)
        if len(self._models) < 2:
            self._models.add(request.requested_model)
        known = self._policies.get(id(request.policy))
        if known is None:
            now = self._parts.clock.now()
            refuse_unpriced(request.policy, self._parts.catalog, self._parts.prices, now, param="body.model")
            known = request.policy, encode_policy(request.policy), queue_of(request)
            self._policies[id(request.policy)] = known
        if self._surveyor is not None:
            request = request._replace(cache=Cache.OFF)  # a pilot measures what a task takes
        row = new_task(self._parts.ids, request, custom_id=custom_id, line=number, policy=known[1], queue=known[2])
        if self._surveyor is not None:
            self._surveyor.add(row._replace(pool=None), request)
        return row


def new_task(ids: IdMaker, request: ParsedRequest, *, custom_id: str, line: int, policy: str, queue: str) -> NewTask:
    """A validated request as a row. Without a seed of the caller's own, one is derived from what is asked: the same
    line submitted again draws the same p1*."""
    payload = encode_payload(
        request.problem,
        request.options,
        requested_model=request.requested_model,
        store=request.store,
        max_cost=request.max_cost,
        provider_batch=request.provider_batch,
        form=request.form,
        cache=request.cache,
        own_seed=request.seed is not None,
    )
    seed = request.seed
    if seed is None:
        digest = hashlib.sha256(f"{custom_id}\n{payload}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big") >> 1
    return NewTask(
        *(TaskId(ids.new(TASK)), line, custom_id, payload, policy, seed, queue, request.priority, request.on_budget),
        pool=_pool(request, policy),
    )


def _pool(request: ParsedRequest, policy: str) -> bytes | None:
    """The key its result is found by; None for one that is not to be kept, or not to be read back."""
    if request.store is StoreLevel.NONE or (request.form is not None and not request.form.store):
        return None
    return pool_key(request.problem, request.options, policy=policy, seed=request.seed)


def new_live_task(ids: IdMaker, request: ParsedRequest) -> NewTask:
    """A live call as a row: no line, no custom id."""
    policy, queue = encode_policy(request.policy), queue_of(request)
    return new_task(ids, request, custom_id="", line=0, policy=policy, queue=queue)


def queue_of(request: ParsedRequest) -> str:
    """The queue of the request's first step."""
    spec = TaskSpec(
        TaskId(""), request.problem, request.policy, request.requested_model, seed=0, options=request.options
    )
    return first_queue(spec)


class LineReader:
    """Parses the lines of one batch."""

    def __init__(self, batch: Batch, kind: Kind, catalog: ModelCatalog) -> None:
        defaults: Mapping[str, Any] = orjson.loads(batch.defaults)
        self._parser = RequestParser(RequestDefaults(kind, defaults), catalog)
        self._endpoint = batch.endpoint

    def read(self, raw: bytes) -> tuple[str, ParsedRequest]:
        """(custom id, request). Raises `BadRequest` for anything that is not a request this batch can carry out."""
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError as wrong:
            raise BadRequest(f"This line is not JSON: {wrong}.", code="invalid_json_line") from None
        if not isinstance(line, dict):
            raise BadRequest("Each line must be a JSON object.", code="invalid_json_line")
        check_json(raw, line, unique_keys=False)
        return self.read_object(line)

    def read_object(self, line: Mapping[str, Any]) -> tuple[str, ParsedRequest]:
        """As `read`, of a line that is JSON no more."""
        if line.keys() != _LINE_KEYS:
            self._refuse_keys(line)
        custom_id, body = line["custom_id"], line["body"]
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _LONGEST_CUSTOM_ID or "\x00" in custom_id:
            raise BadRequest(
                f"`custom_id` must be a string of 1 to {_LONGEST_CUSTOM_ID} characters without NUL.", param="custom_id"
            )
        if line["method"] != "POST":
            raise BadRequest("`method` must be POST.", param="method")
        if line["url"] != self._endpoint:
            raise BadRequest(f"`url` must be the batch's endpoint, {self._endpoint}.", param="url", code="invalid_url")
        if not isinstance(body, dict):
            raise BadRequest("`body` must be an object.", param="body")
        try:
            return custom_id, self._parse(body)
        except BadRequest as wrong:
            param = "body" if wrong.param is None else f"body.{wrong.param}"
            raise BadRequest(wrong.message, param=param, code=wrong.code) from None

    def _parse(self, body: Mapping[str, object]) -> ParsedRequest:
        if self._endpoint == RESPONSES:
            return parse_response(self._parser, body, live=False)
        return self._parser.parse(body)

    @staticmethod
    def _refuse_keys(line: Mapping[str, object]) -> None:
        for key in sorted(_LINE_KEYS - line.keys()):
            raise BadRequest(f"`{key}` is missing.", param=key, code="missing_required_parameter")
        for key in sorted(line.keys() - _LINE_KEYS):
            raise BadRequest(f"Unknown key `{key}`.", param=key, code="unknown_parameter")


async def lines_of(files: FileStore, file_id: FileId) -> AsyncIterator[list[tuple[int, bytes]]]:
    """The non-empty lines of a file with their numbers, counted from 1: those of one chunk at a time."""
    number, rest = 0, b""
    async for chunk in files.read(file_id):
        pieces = (rest + chunk).split(b"\n")
        rest = pieces.pop()
        yield [(at, piece) for at, piece in enumerate(pieces, number + 1) if piece and not piece.isspace()]
        number += len(pieces)
    if rest and not rest.isspace():
        yield [(number + 1, rest)]
