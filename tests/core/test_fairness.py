"""Shares of a queue follow from the strides of its batches."""

from datetime import timedelta

import pytest

from cope.core.fairness import stride

DAY = timedelta(hours=24)


@pytest.mark.parametrize(
    ("window", "open_batches", "turns"),
    [(DAY, 1, 24), (DAY, 3, 72), (timedelta(hours=1), 1, 1), (timedelta(seconds=1), 1, 1), (timedelta(days=7), 2, 336)],
)
def test_a_stride_is_the_window_in_hours_times_the_projects_open_batches(
    window: timedelta, open_batches: int, turns: int
):
    assert stride(window, open_batches) == turns


def claimed(lines: dict[str, int], first: int) -> dict[str, int]:
    """How many of the first claims each batch gets, by its stride, when all start together."""
    order = sorted((ordinal * step, name) for name, step in lines.items() for ordinal in range(first))
    return {name: sum(owner == name for _, owner in order[:first]) for name in lines}


def test_a_project_with_four_batches_gets_no_more_than_a_project_with_one():
    shares = claimed({"a": stride(DAY, 1), **{f"b{i}": stride(DAY, 4) for i in range(4)}}, 800)

    assert abs(shares["a"] - 400) <= 4
    assert all(abs(shares[f"b{i}"] - 100) <= 2 for i in range(4))


def test_an_hours_window_gets_24_times_the_share_of_a_days():
    shares = claimed({"hour": stride(timedelta(hours=1), 1), "day": stride(DAY, 1)}, 2500)

    assert abs(shares["hour"] - 2400) <= 2
