"""FrugalGPT's scorer as a JSON artifact: how likely an answer is right, from the question and the solution alone.

Chen et al. 2023 train one per model of their cascade and accept where it is sure enough. Ours is a logistic function of
the features below: a few numbers that can be read, reviewed and stored with the policy. Never a pickle, which would run
whatever its author wrote. Scores are floats (they are guesses); thresholds are exact fractions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import exp, isfinite, log1p
from typing import Any, cast
from zlib import crc32

from cope.core.confidence import parse_threshold
from cope.core.history import Sample
from cope.core.problem import Problem

FORMAT = "cope-scorer/1"
WORD_BUCKETS = 32
MOST_CHARS = 20_000
"""Of a text, so much is looked at: a score takes bounded time."""

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[a-z]+")
_HEDGES = frozenset({"assume", "assuming", "approximately", "maybe", "perhaps", "wait", "unclear", "sorry", "cannot"})
_COUNTED = (
    "answer_chars",
    "answer_is_number",
    "answer_in_question",
    "solution_words",
    "solution_lines",
    "solution_numbers",
    "solution_equations",
    "truncated",
    "hedges",
    "question_words",
    "question_numbers",
    "numbers_used",
)
FEATURES = (*_COUNTED, *(f"word_{bucket}" for bucket in range(WORD_BUCKETS)))
"""Every feature that an artifact may weigh. `word_i`: whether a word of hash i stands in the solution."""


@dataclass(frozen=True, slots=True)
class TierScorer:
    """One model's: the logistic function of `bias` and the weighted features. An answer whose score exceeds
    1 − `threshold` (in [0, 1]) is accepted."""

    model: str
    bias: float
    weights: tuple[tuple[str, float], ...]
    threshold: Fraction


@dataclass(frozen=True, slots=True)
class Scorer:
    """A whole artifact: one `TierScorer` for each model but the `last`, in the order in which they are asked."""

    name: str
    version: str
    tiers: tuple[TierScorer, ...]
    last: str

    @property
    def models(self) -> tuple[str, ...]:
        """The models it was trained for, in order."""
        return (*(tier.model for tier in self.tiers), self.last)


def features(problem: Problem, sample: Sample) -> dict[str, float]:
    """All features of one answer, each about 0 to 10. Deterministic on every machine."""
    question = problem.conversation[-1].content[:MOST_CHARS]
    solution = (sample.solution or "")[:MOST_CHARS]
    answer = (sample.answer or "").strip()
    asked, used = set(_NUMBER.findall(question)), set(_NUMBER.findall(solution))
    words = _WORD.findall(solution.lower())
    found = {
        "answer_chars": log1p(min(len(answer), 200)),
        "answer_is_number": float(re.fullmatch(r"[-+$]?[\d.,]+%?", answer) is not None),
        "answer_in_question": float(answer in asked),
        "solution_words": log1p(len(words)),
        "solution_lines": log1p(solution.count("\n")),
        "solution_numbers": log1p(len(used)),
        "solution_equations": log1p(solution.count("=")),
        "truncated": float(sample.finish_reason == "length"),
        "hedges": log1p(sum(word in _HEDGES for word in words)),
        "question_words": log1p(len(question.split())),
        "question_numbers": log1p(len(asked)),
        "numbers_used": len(asked & used) / len(asked) if asked else 1.0,
    }
    buckets = {crc32(word.encode()) % WORD_BUCKETS for word in words}
    return found | {f"word_{bucket}": float(bucket in buckets) for bucket in range(WORD_BUCKETS)}


def score(scorer: TierScorer, problem: Problem, sample: Sample) -> Fraction:
    """How likely the answer is right, in [0, 1] and in millionths: rounding hides what machines add up differently."""
    seen = features(problem, sample)
    at = scorer.bias + sum(weight * seen[name] for name, weight in scorer.weights)
    return Fraction(round(1_000_000 / (1 + exp(-max(-50.0, min(50.0, at))))), 1_000_000)


def encode_scorer(scorer: Scorer) -> dict[str, object]:
    """The artifact as JSON values."""
    return {
        "format": FORMAT,
        "name": scorer.name,
        "version": scorer.version,
        "tiers": [
            {"model": t.model, "bias": t.bias, "weights": dict(t.weights), "threshold": str(t.threshold)}
            for t in scorer.tiers
        ],
        "last": scorer.last,
    }


def decode_scorer(data: object) -> Scorer:
    """The inverse of `encode_scorer`; what training notes beside it (`trained`) is for people.

    Raises `ValueError` that says what is wrong and where.
    """
    artifact = _object(data, "a scorer")
    if artifact.get("format") != FORMAT:
        raise ValueError(f"`format` must be {FORMAT!r}, not {artifact.get('format')!r}")
    _known(artifact, {"format", "name", "version", "tiers", "last", "trained"}, "a scorer")
    tiers = artifact.get("tiers")
    if not isinstance(tiers, list) or not tiers:
        raise ValueError("`tiers` must be a list with one entry for each model but the last")
    return Scorer(
        name=_text(artifact, "name"),
        version=_text(artifact, "version"),
        tiers=tuple(_tier(tier, f"tiers[{i}]") for i, tier in enumerate(tiers)),
        last=_text(artifact, "last"),
    )


def _tier(data: object, where: str) -> TierScorer:
    tier = _object(data, f"`{where}`")
    _known(tier, {"model", "bias", "weights", "threshold"}, f"`{where}`")
    weights = _object(tier.get("weights"), f"`{where}.weights`")
    for name in weights:
        if name not in FEATURES:
            raise ValueError(f"`{where}.weights` names no feature: {name!r}; there are {', '.join(_COUNTED)}, word_0 …")
    return TierScorer(
        model=_text(tier, "model"),
        bias=_number(tier.get("bias"), f"{where}.bias"),
        # In the features' own order, so that equal artifacts add up equally.
        weights=tuple(
            (name, _number(weights[name], f"{where}.weights.{name}")) for name in FEATURES if name in weights
        ),
        threshold=parse_threshold(_text(tier, "threshold")),
    )


def _known(data: Mapping[str, object], names: set[str], what: str) -> None:
    for key in data:
        if key not in names:
            raise ValueError(f"unknown key {key!r} in {what}; known keys: {', '.join(sorted(names))}")


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object")
    return cast("Mapping[str, Any]", value)


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise ValueError(f"`{key}` must be a text of 1 to 256 characters")
    return value


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or abs(value) > 1e6:
        raise ValueError(f"`{where}` must be a number of at most a million")
    return float(value)
