"""The weights of FrugalGPT's scorer, fitted by scikit-learn (the extra `cope-service[scorer]`).

A logistic regression over `cope.core.scorer.FEATURES`: the counted ones standardised, the hashed words weighted by
their inverse document frequency (TF-IDF with presence as the term's frequency). Both are linear, so they are folded
into the exported weights, and the pure core scores raw features exactly as the fitted pipeline does.
"""

import hashlib
from collections.abc import Callable, Sequence
from math import log, sqrt
from typing import Any

from cope.core.scorer import FEATURES
from cope.core.scorer_training import Example, Weights

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Inverse regularisation strengths to choose among by cross-validation."""
_FOLDS = 5
_DIGITS = 9
_MOST_ROUNDS = 5_000


class ScorerExtraMissing(Exception):
    """scikit-learn is not installed; the message says how to."""

    def __init__(self) -> None:
        super().__init__("training a scorer needs scikit-learn: pip install 'cope-service[scorer]'")


def need_scikit_learn() -> None:
    """Raises `ScorerExtraMissing`, so that nobody waits for rows to be graded before hearing of it."""
    try:
        import sklearn.linear_model  # noqa: F401 - whether it can be imported is the question
    except ImportError:
        raise ScorerExtraMissing from None


def logistic_fitter(seed: int) -> Callable[[Sequence[Example]], Weights]:
    """A `Fitter`. The seed only draws the folds of the cross-validation; equal rows and seeds give equal weights."""
    return lambda examples: fit(examples, seed)


def fit(examples: Sequence[Example], seed: int, strengths: Sequence[float] = STRENGTHS) -> Weights:
    """The weights, on raw features, at the regularisation with the least cross-validated log loss.

    The folds keep the rows of one problem together. `examples` hold right and wrong ones. Raises `ScorerExtraMissing`.
    """
    need_scikit_learn()
    scales = _scales(examples)
    strength = strengths[0] if len(strengths) == 1 else _best_strength(examples, scales, seed, strengths)
    model = _fitted(examples, scales, strength)
    bias, weights = float(model.intercept_[0]), {}
    for place, name in enumerate(FEATURES):
        centre, scale = scales[place]
        weight = float(model.coef_[0][place]) * scale
        weights[name] = round(weight, _DIGITS)
        bias -= weight * centre
    return round(bias, _DIGITS), weights


def _scales(examples: Sequence[Example]) -> list[tuple[float, float]]:
    """(centre, factor) of each feature; a factor of 0 for one that tells these rows nothing."""
    total = len(examples)
    scales: list[tuple[float, float]] = []
    for place, name in enumerate(FEATURES):
        values = [example.values[place] for example in examples]
        if name.startswith("word_"):
            scales.append((0.0, log((1 + total) / (1 + sum(values))) + 1))
        elif min(values) == max(values):
            scales.append((0.0, 0.0))
        else:
            mean = sum(values) / total
            scales.append((mean, 1 / sqrt(sum((value - mean) ** 2 for value in values) / total)))
    return scales


def _scaled(examples: Sequence[Example], scales: Sequence[tuple[float, float]]) -> list[list[float]]:
    return [
        [(value - centre) * factor for value, (centre, factor) in zip(example.values, scales, strict=True)]
        for example in examples
    ]


def _fitted(examples: Sequence[Example], scales: Sequence[tuple[float, float]], strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=_MOST_ROUNDS)
    return model.fit(_scaled(examples, scales), [int(example.correct) for example in examples])


def _best_strength(
    examples: Sequence[Example], scales: Sequence[tuple[float, float]], seed: int, strengths: Sequence[float]
) -> float:
    """Of equals the strongest regularisation; the middle one where no fold has right and wrong answers to learn by."""
    folds = [_fold(example.group, seed) for example in examples]
    losses = []
    for strength in strengths:
        loss, held = 0.0, 0
        for fold in range(_FOLDS):
            known = [example for example, place in zip(examples, folds, strict=True) if place != fold]
            asked = [example for example, place in zip(examples, folds, strict=True) if place == fold]
            if not asked or len({example.correct for example in known}) < 2:
                continue
            chances = _fitted(known, scales, strength).predict_proba(_scaled(asked, scales))
            loss -= sum(log(max(1e-12, chance[int(e.correct)])) for e, chance in zip(asked, chances, strict=True))
            held += len(asked)
        losses.append(loss / held if held else 0.0)
    if not any(losses):
        return strengths[len(strengths) // 2]
    return strengths[losses.index(min(losses))]


def _fold(group: str, seed: int) -> int:
    digest = hashlib.sha256(f"fold:{seed}:{group}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4]) % _FOLDS
