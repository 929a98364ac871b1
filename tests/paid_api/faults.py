"""What goes wrong, by a seeded script: the same seed gives the same faults to the same call numbers.

    {"seed": 7, "rules": [
      {"fault": "rate_limited", "probability": 0.02, "header": "any"},
      {"fault": "server_error", "status": 503, "calls": [3, [10, 20]], "billed": true},
      {"fault": "hang", "every": 100, "contains": "a word of the prompt", "key": "sk-a"}
    ]}

The first rule that matches wins. `calls` are numbers (or [first, last]) counted from 1 since the script was set; a
rule's draw depends on the seed, its place in the list and the call number, and on nothing else.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault: whether it is billed unless the rule says otherwise, and its options with their defaults.

    `refuses`: it comes before the limits and takes nothing of the window, as a refusal at the door does.
    """

    billed: bool
    refuses: bool
    options: Mapping[str, Scalar]


# Which values of an option there are is said where the fault is carried out (server.py, trouble.py).
KINDS: Mapping[str, Kind] = {
    "rate_limited": Kind(False, True, {"header": "seconds", "seconds": 1.0}),
    "quota": Kind(False, True, {}),
    "unauthorized": Kind(False, True, {}),
    "forbidden": Kind(False, True, {}),
    "not_found": Kind(False, True, {}),
    "context_length": Kind(False, True, {}),
    "server_error": Kind(False, False, {"status": 500, "body": "json", "header": "missing", "seconds": 1.0}),
    "hang": Kind(False, False, {"seconds": None}),
    "slow": Kind(True, False, {"seconds": 1.0}),
    "drip": Kind(True, False, {"delay_s": 0.01}),
    "cut": Kind(True, False, {"how": "close", "after": 0.5}),
    "broken_json": Kind(True, False, {}),
    "missing_usage": Kind(True, False, {}),
    "overbilling": Kind(True, False, {"factor": 3}),
    "strange_usage": Kind(True, False, {"usage": "negative"}),
    "empty_choices": Kind(True, False, {}),
    "duplicate": Kind(True, False, {}),
}
_RULE_FIELDS = frozenset({"fault", "probability", "calls", "every", "contains", "key", "model", "billed"})
ERROR_STATUSES = (408, 409, 500, 502, 503, 504, 529)
ERROR_BODIES = ("json", "html", "empty")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault to carry out. `draw` in [0, 1) is its own random number, from the seed."""

    name: str
    billed: bool
    options: Mapping[str, Any]
    draw: float = 0.0

    @property
    def refuses(self) -> bool:
        """Whether it comes before the limits."""
        return KINDS[self.name].refuses


@dataclass(frozen=True, slots=True)
class _Rule:
    fault: Fault
    probability: float
    calls: tuple[tuple[int, int], ...]
    every: int | None
    contains: str | None
    key: str | None
    model: str | None

    def matches(self, number: int, draw: float, *, prompt: str, key: str, model: str) -> bool:
        return (
            (not self.calls or any(first <= number <= last for first, last in self.calls))
            and (self.every is None or number % self.every == 0)
            and (self.contains is None or self.contains in prompt)
            and self.key in (None, key)
            and self.model in (None, model)
            and draw < self.probability
        )


class Script:
    """A parsed script. Empty: nothing ever goes wrong."""

    def __init__(self, source: Mapping[str, Any] | None = None) -> None:
        source = source or {}
        unknown = sorted(set(source) - {"seed", "rules"})
        if unknown:
            raise ValueError(f"a script has `seed` and `rules`, not {', '.join(unknown)}")
        self.seed = int(source.get("seed", 0))
        self._rules = [_rule(rule, f"rules[{index}]") for index, rule in enumerate(source.get("rules", []))]

    def fault(self, number: int, *, prompt: str = "", key: str = "", model: str = "") -> Fault | None:
        """What goes wrong with call `number` (from 1), None for nothing."""
        for index, rule in enumerate(self._rules):
            if rule.matches(number, self._draw(index, number, "if"), prompt=prompt, key=key, model=model):
                fault = rule.fault
                return Fault(fault.name, fault.billed, fault.options, self._draw(index, number, "how"))
        return None

    def _draw(self, index: int, number: int, what: str) -> float:
        digest = hashlib.blake2b(f"{self.seed}/{index}/{number}/{what}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) / (1 << 53)


def _rule(source: Mapping[str, Any], where: str) -> _Rule:
    name = source.get("fault")
    kind = KINDS.get(str(name))
    if kind is None:
        raise ValueError(f"{where}.fault is {name!r}; there are: {', '.join(KINDS)}")
    unknown = sorted(set(source) - _RULE_FIELDS - set(kind.options))
    if unknown:
        known = ", ".join(sorted(_RULE_FIELDS | set(kind.options)))
        raise ValueError(f"{where} has no {', '.join(unknown)}; a rule for {name!r} has: {known}")
    options = {option: source.get(option, default) for option, default in kind.options.items()}
    for option, known_values in _VALUES.items():
        if option in options and options[option] not in known_values:
            raise ValueError(f"{where}.{option} is {options[option]!r}; there are: {', '.join(map(str, known_values))}")
    calls = source.get("calls", [])
    return _Rule(
        fault=Fault(str(name), bool(source.get("billed", kind.billed)), options),
        probability=float(source.get("probability", 1.0)),
        calls=tuple((one, one) if isinstance(one, int) else (int(one[0]), int(one[1])) for one in calls),
        every=source.get("every"),
        contains=source.get("contains"),
        key=source.get("key"),
        model=source.get("model"),
    )


# ---- what a provider may write into Retry-After --------------------------------------------------------------------

_Header = Callable[[float, datetime], dict[str, str]]


def _date(seconds: float, now: datetime) -> str:
    return format_datetime((now + timedelta(seconds=seconds)).astimezone(UTC), usegmt=True)


HEADERS: Mapping[str, _Header] = {
    "seconds": lambda s, _: {"retry-after": str(max(1, round(s)))},
    "fraction": lambda s, _: {"retry-after": f"{s:.3f}"},
    "ms": lambda s, _: {"retry-after-ms": str(round(s * 1000))},
    "both": lambda s, _: {"retry-after": str(max(1, round(s))), "retry-after-ms": str(round(s * 1000))},
    "date": lambda s, now: {"retry-after": _date(s, now)},
    "past_date": lambda s, now: {"retry-after": _date(-3600, now)},
    "date_without_zone": lambda s, now: {"retry-after": _date(s, now).removesuffix(" GMT")},
    "impossible_date": lambda s, _: {"retry-after": "Mon, 32 Foo 99999999999999 25:61:61 GMT"},
    "zero": lambda s, _: {"retry-after": "0"},
    "negative": lambda s, _: {"retry-after": "-5"},
    "absurd": lambda s, _: {"retry-after": "1000000000"},
    "absurd_exponent": lambda s, _: {"retry-after": "1e9"},
    "nan": lambda s, _: {"retry-after": "nan"},
    "infinite": lambda s, _: {"retry-after": "inf"},
    "empty": lambda s, _: {"retry-after": ""},
    "soon": lambda s, _: {"retry-after": "soon"},
    "missing": lambda s, _: {},
    "ms_negative": lambda s, _: {"retry-after-ms": "-1"},
    "ms_absurd": lambda s, _: {"retry-after-ms": "1e15"},
    "ms_text": lambda s, _: {"retry-after": str(max(1, round(s))), "retry-after-ms": "soon"},
}
USAGES = ("negative", "null", "text", "float", "bool", "huge", "cached_over_prompt", "details_text", "list")
_VALUES: Mapping[str, tuple[Scalar, ...]] = {
    "header": ("any", *HEADERS),
    "status": ERROR_STATUSES,
    "body": ERROR_BODIES,
    "how": ("close", "reset"),
    "usage": ("any", *USAGES),
}


def retry_headers(fault: Fault, now: datetime) -> dict[str, str]:
    """The headers of a refusal; `any` takes one of all by the fault's draw."""
    return HEADERS[_chosen(str(fault.options["header"]), tuple(HEADERS), fault.draw)](
        float(fault.options["seconds"]), now
    )


def strange_usage(fault: Fault, usage: Mapping[str, int]) -> Any:
    """A usage no client should believe; the true one is in the books."""
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    strange: Mapping[str, Any] = {
        "negative": {"prompt_tokens": -prompt, "completion_tokens": -completion, "total_tokens": -prompt - completion},
        "null": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
        "text": {"prompt_tokens": str(prompt), "completion_tokens": "many", "total_tokens": "more"},
        "float": {"prompt_tokens": prompt + 0.5, "completion_tokens": completion + 0.5, "total_tokens": 1e99},
        "bool": {"prompt_tokens": True, "completion_tokens": False, "total_tokens": True},
        "huge": {"prompt_tokens": 10**30, "completion_tokens": 10**30, "total_tokens": 2 * 10**30},
        "cached_over_prompt": {**usage, "prompt_tokens_details": {"cached_tokens": prompt + 1_000_000}},
        "details_text": {**usage, "prompt_tokens_details": {"cached_tokens": "some"}},
        "list": [prompt, completion],
    }
    return strange[_chosen(str(fault.options["usage"]), USAGES, fault.draw)]


def _chosen(wanted: str, of: tuple[str, ...], draw: float) -> str:
    return of[int(draw * len(of))] if wanted == "any" else wanted
