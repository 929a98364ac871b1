"""Training FrugalGPT's scorer: which rows teach, which choose thresholds, which tell how good the result is.

The three parts share no problem, so neither the thresholds nor the reported accuracy are taken from rows that the
scorer has seen (Chen et al. 2023). The fitting of the weights itself is handed in (`Fitter`): it needs a library.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from math import floor

from cope.core.scorer import FEATURES, Scorer, TierScorer, encode_scorer, features, score
from cope.core.scorer_rows import Row
from cope.core.scorer_thresholds import CannotFit, Case

FEWEST_TO_TRAIN, FEWEST_TO_FIT, FEWEST_TO_TEST = 20, 20, 10
"""Rows of a model, and problems, below which nothing is trained, fitted or reported."""


class Part(StrEnum):
    """What a problem's rows are used for."""

    TRAIN = "train"
    FIT = "fit"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Example:
    """One answer as the fitter sees it: `values` in the order of `FEATURES`, `group` the same for one problem."""

    values: tuple[float, ...]
    correct: bool
    group: str


Weights = tuple[float, Mapping[str, float]]
"""A bias and the weights of named features, on their raw values."""
Fitter = Callable[[Sequence[Example]], Weights]


@dataclass(frozen=True, slots=True)
class Trained:
    """A scorer without thresholds of its own yet (all 0: nothing is accepted), and the rows to fit and test them on.

    `rows` counts, by model, the rows it was trained on; `incomplete` the problems that some model has not answered.
    """

    scorer: Scorer
    fit: tuple[Case, ...]
    test: tuple[Case, ...]
    rows: Mapping[str, int]
    incomplete: int


def split(groups: Iterable[str], seed: int, fit_share: Fraction, test_share: Fraction) -> dict[str, Part]:
    """The part of each problem: equal arguments give equal parts, in whatever order the problems come.

    `fit_share` and `test_share` are of the problems, above 0 and below 1 together. Raises `CannotFit`.
    """
    if fit_share <= 0 or test_share <= 0 or fit_share + test_share >= 1:
        raise CannotFit("The shares for fitting and for testing must be above 0, and leave something to train on.")
    order = sorted(set(groups), key=lambda group: _digest(seed, group))
    tested = floor(test_share * len(order))
    fitted = tested + floor(fit_share * len(order))
    return {
        group: Part.TEST if place < tested else Part.FIT if place < fitted else Part.TRAIN
        for place, group in enumerate(order)
    }


def check_models(rows: Sequence[Row], models: Sequence[str]) -> None:
    """Whether these models make a cascade that the rows know of. Raises `CannotFit` naming those there are."""
    if len(models) < 2 or len(set(models)) != len(models):
        raise CannotFit("Name at least two different models, in the order in which they are to be asked.")
    there = {row.model for row in rows}
    for model in models:
        if model not in there:
            raise CannotFit(f"No row is of model {model!r}. Models in the rows: {', '.join(sorted(there)) or 'none'}.")


def train(rows: Sequence[Row], models: Sequence[str], name: str, parts: Mapping[str, Part], fitter: Fitter) -> Trained:
    """A scorer for all `models` but the last, in the order in which they are to be asked.

    All of a model's readable rows of the training part teach; of the other parts the first row of each problem and
    model counts. Raises `CannotFit` naming the model that has too few rows, or only right or only wrong answers.
    """
    check_models(rows, models)
    tiers, counted = [], {}
    for model in models[:-1]:
        examples = [
            _example(row) for row in rows if row.model == model and parts[row.group] is Part.TRAIN and row.readable
        ]
        _check_examples(model, examples)
        bias, weights = fitter(examples)
        # In the features' own order, and without what weighs nothing: as the decoder leaves it.
        kept = tuple((feature, weights[feature]) for feature in FEATURES if weights.get(feature, 0.0) != 0.0)
        tiers.append(TierScorer(model, bias, kept, Fraction(0)))
        counted[model] = len(examples)
    scorer = Scorer(name, "0", tuple(tiers), models[-1])
    cases, incomplete = _cases(rows, scorer, parts)
    for part, fewest, use in (
        (Part.FIT, FEWEST_TO_FIT, "fit thresholds on"),
        (Part.TEST, FEWEST_TO_TEST, "report on"),
    ):
        if len(cases[part]) < fewest:
            raise CannotFit(
                f"{len(cases[part])} problems to {use} have an answer of every model ({', '.join(models)}), and at "
                f"least {fewest} are needed: give more rows, or a larger --{part}-share. {incomplete} problems lack "
                "the answer of some model."
            )
    return Trained(scorer, tuple(cases[Part.FIT]), tuple(cases[Part.TEST]), counted, incomplete)


def with_thresholds(scorer: Scorer, thresholds: Sequence[Fraction]) -> Scorer:
    """The scorer with these thresholds, under the version that its content has."""
    tiers = tuple(replace(tier, threshold=limit) for tier, limit in zip(scorer.tiers, thresholds, strict=True))
    return versioned(replace(scorer, tiers=tiers))


def versioned(scorer: Scorer) -> Scorer:
    """The scorer with the first 16 hexadecimal digits of its content's SHA-256 as its version: equal versions decide
    equally."""
    content = {key: value for key, value in encode_scorer(scorer).items() if key != "version"}
    written = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return replace(scorer, version=hashlib.sha256(written.encode()).hexdigest()[:16])


def _digest(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogatepass")).digest()


def _example(row: Row) -> Example:
    found = features(row.problem, row.sample)
    return Example(tuple(found[name] for name in FEATURES), row.correct is True, row.group)


def _check_examples(model: str, examples: Sequence[Example]) -> None:
    right = sum(example.correct for example in examples)
    if len(examples) < FEWEST_TO_TRAIN:
        raise CannotFit(
            f"{len(examples)} readable rows of model {model!r} are left to train on, and at least {FEWEST_TO_TRAIN} "
            "are needed: give more rows, or smaller --fit-share and --test-share."
        )
    if right in {0, len(examples)}:
        raise CannotFit(
            f"All {len(examples)} training rows of model {model!r} are {'right' if right else 'wrong'}: a scorer needs "
            "some of both to tell them apart."
        )


def _cases(rows: Sequence[Row], scorer: Scorer, parts: Mapping[str, Part]) -> tuple[dict[Part, list[Case]], int]:
    first: dict[str, dict[str, Row]] = {}
    for row in rows:
        if parts[row.group] is not Part.TRAIN:
            first.setdefault(row.group, {}).setdefault(row.model, row)
    cases: dict[Part, list[Case]] = {Part.FIT: [], Part.TEST: []}
    incomplete = 0
    for group, answers in first.items():
        if any(model not in answers for model in scorer.models):
            incomplete += 1
            continue
        asked = [answers[model] for model in scorer.models]
        scores = tuple(
            score(tier, row.problem, row.sample) if row.readable else None
            for tier, row in zip(scorer.tiers, asked, strict=False)
        )
        correct, costs = tuple(row.correct is True for row in asked), tuple(row.cost for row in asked)
        cases[parts[group]].append(Case(scores, correct, costs))
    return cases, incomplete
