"""Drawing tokens: greedy, by temperature, from the nucleus, with a generator of one's own."""

import numpy as np

from cope_reference.sampling import log_probabilities, sample

LOGITS = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], dtype=np.float32))


def shares(temperature: float, top_p: float, draws: int = 4000) -> list[float]:
    logits = np.repeat(LOGITS, draws, axis=0)
    settings = np.full(draws, temperature), np.full(draws, top_p)
    drawn = sample(logits, *settings, [None] * draws, np.random.default_rng(3))
    return [float((drawn == token).mean()) for token in range(4)]


def test_temperature_one_draws_from_the_models_own_distribution() -> None:
    np.testing.assert_allclose(shares(1.0, 1.0), [0.5, 0.3, 0.15, 0.05], atol=0.03)


def test_a_higher_temperature_flattens_and_a_lower_one_sharpens() -> None:
    squared = np.array([0.25, 0.09, 0.0225, 0.0025])
    np.testing.assert_allclose(shares(0.5, 1.0), squared / squared.sum(), atol=0.03)
    rooted = np.sqrt([0.5, 0.3, 0.15, 0.05])
    np.testing.assert_allclose(shares(2.0, 1.0), rooted / rooted.sum(), atol=0.03)


def test_temperature_zero_takes_the_likeliest() -> None:
    assert shares(0.0, 1.0, 5) == [1, 0, 0, 0]


def test_a_temperature_too_small_to_divide_by_is_greedy_too() -> None:
    assert shares(1e-30, 1.0, 5) == [1, 0, 0, 0]


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    np.testing.assert_allclose(shares(1.0, 0.75), [0.625, 0.375, 0, 0], atol=0.03)
    assert shares(1.0, 0.0, 5) == [1, 0, 0, 0]


def test_each_row_has_its_own_settings_and_its_own_generator() -> None:
    logits = np.repeat(LOGITS, 3, axis=0)
    settings = np.array([0.0, 1.0, 1.0]), np.ones(3)

    def drawn(shared_seed: int) -> list[int]:
        own = [None, np.random.default_rng(5), None]
        return [int(token) for token in sample(logits, *settings, own, np.random.default_rng(shared_seed))]

    runs = [drawn(seed) for seed in range(40)]
    assert {run[0] for run in runs} == {0}
    assert len({run[1] for run in runs}) == 1
    assert len({run[2] for run in runs}) > 1


def test_log_probabilities_are_those_of_the_model_itself() -> None:
    np.testing.assert_allclose(log_probabilities(LOGITS * 1 + 9)[0], LOGITS[0], atol=1e-5)
