"""Lines that come in a request's body instead of a file: validated at once, all of them before any is kept."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import orjson

from cope.core.codec import encode_policy
from cope.core.errors import BadRequest, TooLarge
from cope.core.models import ModelCatalog
from cope.core.policies.spec import PolicySpec
from cope.core.priced import refuse_unpriced
from cope.core.prices import PriceTable
from cope.core.problem import Kind
from cope.core.records import Batch
from cope.ports.store import NewLine
from cope.ports.support import Clock, IdMaker
from cope.usecases.ingest import LineReader, new_task, queue_of


class InlineParts(Protocol):
    """What reading inline lines needs."""

    @property
    def catalog(self) -> ModelCatalog: ...
    @property
    def prices(self) -> PriceTable: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def ids(self) -> IdMaker: ...


def whole_lines(value: object, endpoint: str, *, longest: int) -> list[dict[str, Any]]:
    """The lines in `requests`, `method` and `url` filled in where they were left out. Raises `BadRequest`, or
    `TooLarge` for one of over `longest` bytes."""
    if not isinstance(value, list) or not value:
        raise BadRequest("`requests` must be a list of at least one line.", param="requests")
    lines = []
    for place, line in enumerate(value):
        if not isinstance(line, dict):
            raise BadRequest(f"`requests[{place}]` must be an object.", param=f"requests[{place}]")
        if len(orjson.dumps(line)) > longest:
            raise TooLarge(f"`requests[{place}]` has over {longest} bytes.")
        lines.append({"method": "POST", "url": endpoint, **cast("Mapping[str, Any]", line)})
    return lines


def read_lines(parts: InlineParts, batch: Batch, kind: Kind, lines: Sequence[Mapping[str, Any]]) -> list[NewLine]:
    """The lines as tasks-to-be, without their line numbers. Raises `BadRequest` naming the place of the first that
    can't be carried out, or whose `custom_id` stands twice with different lines; of equal ones the first is kept."""
    reader = LineReader(batch, kind, parts.catalog)
    policies: dict[PolicySpec, str] = {}
    read: dict[str, NewLine] = {}
    for place, line in enumerate(lines):
        try:
            custom_id, request = reader.read_object(line)
            if request.policy not in policies:
                refuse_unpriced(request.policy, parts.catalog, parts.prices, parts.clock.now(), param="body.model")
                policies[request.policy] = encode_policy(request.policy)
        except BadRequest as wrong:
            where = f"requests[{place}]" if wrong.param is None else f"requests[{place}].{wrong.param}"
            raise BadRequest(wrong.message, param=where, code=wrong.code) from None
        digest = hashlib.sha256(orjson.dumps(line, option=orjson.OPT_SORT_KEYS)).digest()
        known = read.get(custom_id)
        if known is not None and known.digest != digest:
            raise BadRequest(
                f"`custom_id` {custom_id!r} stands twice, with different lines.",
                param=f"requests[{place}].custom_id",
                code="duplicate",
            )
        if known is None:
            policy, queue = policies[request.policy], queue_of(request)
            task = new_task(parts.ids, request, custom_id=custom_id, line=0, policy=policy, queue=queue)
            read[custom_id] = NewLine(task, digest)
    return list(read.values())
