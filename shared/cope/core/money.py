"""Money: whole nano-dollars. One token of a cached mini model costs 75 of them, so nothing is ever rounded to zero.

1 micro-dollar per problem equals 1 USD per million problems, the paper's unit.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NewType

from cope.core.exact_text import exact_product

NanoUSD = NewType("NanoUSD", int)
PriceTier = Literal["standard", "batch"]
PriceOrigin = Literal["shipped", "file", "operator"]

NANO_PER_USD = 1_000_000_000
MAX_NANO = 2**63 - 1
ZERO = NanoUSD(0)


def parse_usd(text: str) -> NanoUSD:
    """Whole nano-dollars of a decimal amount of dollars such as ``"0.002"``.

    Raises `ValueError` for anything negative, not finite, finer than a nano-dollar or beyond a BIGINT.
    """
    try:
        amount = exact_product(text, NANO_PER_USD)
    except ValueError:
        raise ValueError(f"{text[:64]!r} is not an amount of dollars") from None
    if not amount.is_finite() or amount < 0 or amount > MAX_NANO or amount != amount.to_integral_value():
        raise ValueError(f"{text!r} is not an amount of dollars between 0 and 9223372036 with at most 9 decimals")
    return NanoUSD(int(amount))


def format_usd(amount: NanoUSD) -> str:
    """The exact amount in dollars with at least two decimals and no trailing zeros beyond them: ``0.000212``."""
    sign = "-" if amount < 0 else ""
    whole, nano = divmod(abs(amount), NANO_PER_USD)
    decimals = f"{nano:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one or more calls. `cached` is part of `prompt`, `reasoning` part of `completion`; all ≥ 0."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    calls: int = 0

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        return TokenUsage(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.completion + other.completion,
            self.reasoning + other.reasoning,
            self.calls + other.calls,
        )


@dataclass(frozen=True, slots=True)
class Price:
    """What a model's tokens cost, in nano-dollars per *million* tokens, so that every list price is a whole number.

    A row never changes: (`price_id`, `tier`, `version`) names it for good, and a correction is a newer version.
    `effective_at` is when it starts to hold and `effective_until` when it lapses, both aware, UTC; None is never. Two
    rows are equal when their terms are: where they came from (`origin`, `source`, who added them, when, and why in
    spite of an objection) is told and not compared. `added_at` is None until the store has the row.
    """

    price_id: str
    version: str
    input_per_mtok: NanoUSD
    cached_input_per_mtok: NanoUSD
    output_per_mtok: NanoUSD
    effective_at: datetime
    tier: PriceTier = "standard"
    effective_until: datetime | None = None
    origin: PriceOrigin = field(default="shipped", compare=False)
    source: str = field(default="", compare=False)
    added_by: str = field(default="", compare=False)
    added_at: datetime | None = field(default=None, compare=False)
    reason: str = field(default="", compare=False)

    @property
    def key(self) -> tuple[str, PriceTier, str]:
        """What names this row for good."""
        return self.price_id, self.tier, self.version

    def holds(self, now: datetime) -> bool:
        """Whether `now` lies in its dates; a later row may still have taken its place."""
        return self.effective_at <= now and (self.effective_until is None or now < self.effective_until)

    def cost(self, usage: TokenUsage) -> NanoUSD:
        """The price of `usage`, rounded up to a whole nano-dollar: never below what a provider charges."""
        fresh = usage.prompt - usage.cached
        micro_nano = (
            fresh * self.input_per_mtok
            + usage.cached * self.cached_input_per_mtok
            + usage.completion * self.output_per_mtok
        )
        return NanoUSD(-(-micro_nano // 1_000_000))

    def worst_case(self, *, input_tokens: int, output_tokens: int, calls: int = 1) -> NanoUSD:
        """An upper bound on `calls` calls of at most these sizes each: nothing cached, the whole output limit used."""
        dearest_input = max(self.input_per_mtok, self.cached_input_per_mtok)
        micro_nano = calls * (input_tokens * dearest_input + output_tokens * self.output_per_mtok)
        return NanoUSD(-(-micro_nano // 1_000_000))


def input_token_bound(contents: tuple[str, ...]) -> int:
    """An upper bound on the prompt tokens of these messages: UTF-8 bytes, 16 per message for the template, 64 over.

    A byte-level tokenizer never makes more tokens than there are bytes (architecture, guarantee 3).
    """
    return sum(len(content.encode("utf-8", "surrogatepass")) for content in contents) + 16 * len(contents) + 64
