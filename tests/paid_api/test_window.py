"""The sliding window against the plainest model of it: a list, filtered anew at every question."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from tests.paid_api.window import Entry, Meter, Refusal, SlidingWindow

# Steps of a sixteenth of a second are exact in binary, so that "exactly one window later" really happens.
_STEPS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6), st.booleans()), min_size=1, max_size=60)


class Plain:
    """Admits if what lies in the window, and this, is within the limit."""

    def __init__(self, limit: int, window: Fraction) -> None:
        self.limit, self.window = limit, window
        self.admitted: list[list[Fraction | int]] = []

    def used(self, now: Fraction) -> int:
        return sum(int(amount) for at, amount in self.admitted if now - at < self.window)

    def fits(self, now: Fraction, amount: int) -> bool:
        return self.used(now) + amount <= self.limit


@given(_STEPS, st.integers(1, 12))
def test_the_window_admits_exactly_what_a_filtered_list_admits(steps: list[tuple[int, int, bool]], limit: int) -> None:
    window, plain = SlidingWindow(limit, 2.0), Plain(limit, Fraction(2))
    entries: list[tuple[Entry, int]] = []
    now = 0.0
    for gap, amount, correct in steps:
        now += gap / 16
        assert window.used(now) == plain.used(Fraction(now))
        assert (window.wait_s(now, amount) == 0.0) == plain.fits(Fraction(now), amount)
        if plain.fits(Fraction(now), amount):
            entries.append((window.add(now, amount), len(plain.admitted)))
            plain.admitted.append([Fraction(now), amount])
        if correct and entries:
            entry, index = entries[len(entries) // 2]
            corrected = entry.amount // 2
            window.correct(now, entry, corrected)
            if Fraction(now) - plain.admitted[index][0] < plain.window:
                plain.admitted[index][1] = corrected
        assert window.used(now) == plain.used(Fraction(now)) <= limit


@given(_STEPS, st.integers(1, 12))
def test_a_told_wait_is_the_shortest_that_helps(steps: list[tuple[int, int, bool]], limit: int) -> None:
    window, plain = SlidingWindow(limit, 2.0), Plain(limit, Fraction(2))
    now = 0.0
    for gap, amount, _ in steps:
        now += gap / 16
        wait = window.wait_s(now, amount)
        if amount > limit:
            assert wait is None
            continue
        assert wait is not None
        later = Fraction(now) + Fraction(wait)
        assert plain.fits(later, amount)
        assert wait == 0 or not plain.fits(later - Fraction(1, 16), amount)
        if wait == 0:
            window.add(now, amount)
            plain.admitted.append([Fraction(now), amount])


def test_a_refused_call_takes_nothing_of_any_limit() -> None:
    meter = Meter(rpm=2, tpm=100, concurrency=1, window_s=60)
    assert isinstance(meter.admit(0.0, 60), Entry)
    assert meter.admit(1.0, 40) == Refusal("concurrency", 0.05)
    meter.done()
    assert meter.admit(2.0, 41) == Refusal("tokens", 58.0)
    assert isinstance(meter.admit(3.0, 40), Entry)
    meter.done()
    assert meter.admit(4.0, 0) == Refusal("requests", 56.0)
    assert meter.admit(4.0, 101) == Refusal("tokens", None)
    assert isinstance(meter.admit(60.0, 60), Entry), "the first call left after exactly one window"


def test_without_limits_everything_is_admitted() -> None:
    meter = Meter(rpm=None, tpm=None, concurrency=None, window_s=60)
    assert all(isinstance(meter.admit(0.0, 10**9), Entry) for _ in range(100))
