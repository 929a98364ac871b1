"""The weights that scikit-learn fits, and the pure core's scores of them against the library's own."""

import sys
from fractions import Fraction

import pytest
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tests.core.scorer_rows import labelled

from cope.adapters.logistic import STRENGTHS, ScorerExtraMissing, fit, need_scikit_learn
from cope.core.scorer import FEATURES, WORD_BUCKETS, TierScorer, features, score
from cope.core.scorer_rows import Row, labelled_row
from cope.core.scorer_training import Example

ROWS: list[Row] = [labelled_row(row) for row in labelled(60) if row["model"] == "s"]
COUNTED = len(FEATURES) - WORD_BUCKETS


def examples() -> list[Example]:
    seen = [features(row.problem, row.sample) for row in ROWS]
    values = [tuple(found[name] for name in FEATURES) for found in seen]
    return [Example(v, row.sample.answer == row.gold, row.group) for v, row in zip(values, ROWS, strict=True)]


def test_the_core_scores_as_the_library_does_within_a_millionth():
    found = examples()
    counted = StandardScaler().fit_transform([one.values[:COUNTED] for one in found])
    words = TfidfTransformer(norm=None).fit_transform([one.values[COUNTED:] for one in found]).toarray()
    columns = [[*first, *rest] for first, rest in zip(counted, words, strict=True)]
    model = LogisticRegression(C=0.1, max_iter=5000).fit(columns, [one.correct for one in found])
    bias, weights = fit(found, 0, strengths=(0.1,))
    tier = TierScorer("s", bias, tuple((name, weights[name]) for name in FEATURES), threshold=Fraction(1, 2))

    for row, (_, chance) in zip(ROWS, model.predict_proba(columns), strict=True):
        assert float(score(tier, row.problem, row.sample)) == pytest.approx(chance, abs=1e-6)


def test_equal_rows_and_seeds_give_equal_weights_and_the_fit_tells_right_from_wrong():
    found = examples()
    bias, weights = fit(found, 1)
    at = [bias + sum(weights[name] * value for name, value in zip(FEATURES, one.values, strict=True)) for one in found]
    right = [chance for chance, one in zip(at, found, strict=True) if one.correct]
    wrong = [chance for chance, one in zip(at, found, strict=True) if not one.correct]

    assert fit(found, 1) == (bias, weights)
    assert sum(right) / len(right) > sum(wrong) / len(wrong) + 0.5


def test_rows_of_a_single_problem_are_fitted_without_folds_to_choose_by():
    one = [Example(example.values, example.correct, "the same") for example in examples()]

    assert fit(one, 0) == fit(one, 0, strengths=(STRENGTHS[len(STRENGTHS) // 2],))


def test_without_scikit_learn_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)

    with pytest.raises(ScorerExtraMissing, match=r"pip install 'cope-service\[scorer\]'"):
        need_scikit_learn()
