"""From the lines of a results file to the cases that thresholds are calibrated on, and from thresholds to a policy."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import Any

from cope.core.calibration import Case, Choice
from cope.core.money import NanoUSD
from cope.core.policies.spec import MAX_SAMPLES, PolicyName
from cope.core.problem import Kind
from cope.core.theta import DEFAULT

FEWEST_ROWS = 20
"""A category with fewer rows is judged by the default's threshold."""

_CASCADES = frozenset({PolicyName.COPE.value, PolicyName.COPE_S2.value})
_DIGITS = 10**6


class Unusable(Exception):
    """The file as a whole can't be calibrated on; the message says why and what to do."""


@dataclass(slots=True)
class Rows:
    """What a results file holds. `skipped` counts, by reason, the lines that say nothing of a threshold."""

    kind: Kind | None = None
    n: int | None = None
    small: set[str] = field(default_factory=set)
    cases: dict[str, list[Case]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def all(self) -> list[Case]:
        """The cases of every category."""
        return [case for cases in self.cases.values() for case in cases]

    @property
    def calibrated(self) -> tuple[str, ...]:
        """The categories with rows enough for a threshold of their own."""
        return tuple(sorted(name for name, cases in self.cases.items() if name and len(cases) >= FEWEST_ROWS))


def read_rows(lines: Iterable[Mapping[str, Any]], labels: Mapping[str, bool]) -> Rows:
    """The cases of decoded result lines; `labels` say by custom id whether Stage 1's answer is right.

    Raises `Unusable` where lines of several kinds or several `n` are mixed.
    """
    rows = Rows()
    for line in lines:
        reason = _add(rows, line, labels)
        if reason is not None:
            rows.skipped[reason] = rows.skipped.get(reason, 0) + 1
    if rows.kind is None:
        told = "; ".join(f"{count} {reason}" for reason, count in sorted(rows.skipped.items())) or "the file is empty"
        raise Unusable(f"No line of the file can be calibrated on: {told}.")
    return rows


def _add(rows: Rows, line: Mapping[str, Any], labels: Mapping[str, bool]) -> str | None:
    response = line.get("response") or {}
    body = response.get("body") if isinstance(response, Mapping) else None
    cope = body.get("cope") if isinstance(body, Mapping) else None
    if not isinstance(cope, Mapping) or "steps" not in cope:
        return "have no answer"
    if cope.get("policy") not in _CASCADES:
        return "are of a policy without Stage 1's threshold"
    kind, steps = Kind(cope["kind"]), list(cope["steps"])
    firsts = [step for step in steps if step["name"].rpartition("/")[2] == "stage1"]
    if not firsts or (kind is not Kind.OPEN and any("confidence" not in step for step in firsts)):
        return "say nothing of Stage 1's confidence"
    if rows.kind not in {None, kind}:
        raise Unusable(f"The file mixes kinds ({rows.kind}, {kind}): calibrate each on lines of its own.")
    if rows.n not in {None, firsts[0]["n"]}:
        raise Unusable(f"The file mixes n = {rows.n} and n = {firsts[0]['n']}: a threshold belongs to one n.")
    rows.kind, rows.n = kind, firsts[0]["n"]
    label = labels.get(str(line.get("custom_id"))) if len(firsts) == 1 else None
    for first in firsts:
        rows.small.add(first["model"])
        turn = first["name"].rpartition("/")[0]
        later = [step for step in steps if step["name"].rpartition("/")[0] == turn and step["stage"] > 1]
        case = Case(
            _surety(kind, first),
            NanoUSD(sum(step["cost_nanousd"] for step in later)),
            escalated=bool(later),
            correct=None if later else label,  # an escalated line's answer is not Stage 1's
        )
        rows.cases.setdefault(cope.get("category") or "", []).append(case)
    return None


def _surety(kind: Kind, step: Mapping[str, Any]) -> Fraction | None:
    value = step.get("confidence")
    if kind is Kind.OPEN:
        return None if value is None else -Fraction(value)
    ratio = Fraction(value or 0).limit_denominator(MAX_SAMPLES)
    return ratio or None


def policy_block(rows: Rows, choices: Mapping[str, Choice]) -> dict[str, Any]:
    """The `cope` block that uses these thresholds; `choices` by category, `default` among them."""
    assert rows.kind is not None
    block: dict[str, Any] = {"policy": PolicyName.COPE.value, "kind": rows.kind.value, "n": rows.n}
    if len(rows.small) == 1:
        block["small"] = next(iter(rows.small))
    if rows.kind is Kind.OPEN:
        block["theta"] = {name: theta_text(choice.threshold) for name, choice in sorted(choices.items())}
    else:
        block["tau1"] = str(choices[DEFAULT].threshold)
    return block


def theta_text(threshold: Fraction) -> str:
    """A perplexity to six decimals, rounded up so that the row it was taken from is still accepted."""
    whole, part = divmod(ceil(-threshold * _DIGITS), _DIGITS)
    return f"{whole}.{part:06d}".rstrip("0").rstrip(".")
