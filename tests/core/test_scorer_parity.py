"""The pure core's scores against numbers that scikit-learn 1.9.1 gave for the same rows, stored here.

`tests/adapters/test_logistic.py` compares with the library itself.
"""

from fractions import Fraction

import pytest

from cope.core.scorer import decode_scorer, score
from cope.core.scorer_rows import labelled_row
from tests.core.scorer_rows import labelled

ARTIFACT = {
    "format": "cope-scorer/1",
    "name": "sums",
    "version": "1",
    "tiers": [
        {
            "model": "s",
            "bias": 1.444662728,
            "weights": {
                "answer_in_question": -1.624586389,
                "solution_words": -0.664192581,
                "solution_numbers": 1.158378175,
                "solution_equations": 0.388527753,
                "hedges": -0.388527753,
                "numbers_used": -0.176540134,
                "word_3": -0.255457213,
                "word_5": 5.1747e-05,
                "word_6": 5.1747e-05,
                "word_23": 5.1747e-05,
                "word_24": -0.255457213,
            },
            "threshold": "1/2",
        }
    ],
    "last": "l",
}


@pytest.mark.parametrize(
    ("place", "text", "chance"),
    [
        (0, "Perhaps about 10. The answer is 10.", 0.19225766932363975),
        (1, "11 + 5 = 16. The answer is 16.", 0.902267021150947),
        (7, "17 + 16 = 17. The answer is 17.", 0.5658258026154367),
        (58, "68 + 5 = 73. The answer is 73.", 0.902267021150947),
    ],
)
def test_a_stored_artifact_scores_as_scikit_learn_did_within_a_millionth(place: int, text: str, chance: float):
    (tier,) = decode_scorer(ARTIFACT).tiers
    row = labelled_row(labelled(60)[2 * place])

    assert row.sample.solution == text
    assert abs(score(tier, row.problem, row.sample) - Fraction(chance)) < Fraction(1, 10**6)
