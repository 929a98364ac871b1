"""A provider's usage export, one row a call: which columns it must have, and what a row says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation

from cope.core.errors import BadRequest
from cope.core.ids import TASK
from cope.core.money import NANO_PER_USD, NanoUSD, TokenUsage

MOST_TOKENS = 1_000_000_000
MOST_USD = 10_000
"""More than any one call can use or cost: a row beyond it is not read as one."""

_KNOWN = ("request_id", "provider_id", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd")
_LONGEST_ID = 200
_TASK_ID_LENGTH = len(TASK) + 26


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One billed call. `request_id` is what we sent as X-Client-Request-Id, empty where the provider does not say it;
    `cost` None: only the tokens are told, to be priced by us."""

    line: int
    request_id: str
    provider_id: str | None
    usage: TokenUsage
    cost: NanoUSD | None


class UnreadableRow(Exception):
    """A row that can't be counted. `request_id` names whose it is, as far as that can be read."""

    def __init__(self, line: int, message: str, request_id: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class Columns:
    """Where each known column stands. Others are passed over."""

    places: Mapping[str, int]
    count: int

    def row(self, line: int, fields: Sequence[str]) -> UsageRow:
        """Raises `UnreadableRow`, which says what is wrong with it."""
        request_id = self._text(fields, "request_id")[:_LONGEST_ID]
        try:
            if len(fields) != self.count:
                raise ValueError(f"it has {len(fields)} fields, the header {self.count}")
            cost = _cost(self._text(fields, "cost_usd"))
            prompt = _tokens(self._text(fields, "prompt_tokens"), "prompt_tokens", needed=cost is None)
            completion = _tokens(self._text(fields, "completion_tokens"), "completion_tokens", needed=cost is None)
            cached = _tokens(self._text(fields, "cached_tokens"), "cached_tokens", needed=False)
            if cached > prompt:
                raise ValueError(f"cached_tokens {cached} is more than prompt_tokens {prompt}")
        except ValueError as wrong:
            raise UnreadableRow(line, str(wrong), request_id) from None
        provider_id = self._text(fields, "provider_id")[:_LONGEST_ID]
        return UsageRow(line, request_id, provider_id or None, TokenUsage(prompt, cached, completion, 0, 1), cost)

    def _text(self, fields: Sequence[str], name: str) -> str:
        place = self.places.get(name)
        return fields[place].strip() if place is not None and place < len(fields) else ""


def read_header(names: Sequence[str]) -> Columns:
    """The columns of a header row, in any order and letter case.

    Raises `BadRequest` where `request_id` or everything that says an amount is missing, or one is there twice.
    """
    found: dict[str, int] = {}
    for place, name in enumerate(names):
        known = name.strip().lower()
        if known in _KNOWN:
            if known in found:
                raise BadRequest(f"The column {known} is there twice.", param="file", code="invalid_csv")
            found[known] = place
    if "request_id" not in found:
        raise BadRequest(
            "The file needs a header row with the column request_id: what was sent as X-Client-Request-Id. Known "
            f"columns: {', '.join(_KNOWN)}. Rename yours to these.",
            param="file",
            code="invalid_csv",
        )
    if "cost_usd" not in found and not {"prompt_tokens", "completion_tokens"} <= found.keys():
        raise BadRequest(
            "The file needs the column cost_usd, or both prompt_tokens and completion_tokens.",
            param="file",
            code="invalid_csv",
        )
    return Columns(found, len(names))


def task_part(request_id: str) -> str | None:
    """The task that a request id of ours begins with; None for anybody else's.

    Ours are ``<task id>-<fence>`` for a step, and ``…-<number of the chain>`` with a letter for each call of it.
    """
    task = request_id.partition("-")[0]
    ours = task.startswith(TASK) and len(task) == _TASK_ID_LENGTH and task.isascii() and task.isprintable()
    return task if ours and request_id.isascii() and request_id.isprintable() else None


def _tokens(text: str, name: str, *, needed: bool) -> int:
    if not text and not needed:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) > MOST_TOKENS:
        raise ValueError(f"{name} {text[:40]!r} is not a whole number from 0 to {MOST_TOKENS}")
    return int(text)


def _cost(text: str) -> NanoUSD | None:
    """Whole nano-dollars, rounded up: a provider that bills finer never finds us booking less."""
    if not text:
        return None
    try:
        amount = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount <= MOST_USD:
        raise ValueError(f"cost_usd {text[:40]!r} is not an amount of dollars from 0 to {MOST_USD}")
    return NanoUSD(int((amount * NANO_PER_USD).to_integral_value(ROUND_CEILING)))
