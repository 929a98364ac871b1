"""How many tasks to claim while a rate limiter puts them off: about as many as it can serve.

A claim that ends in "not now" costs the database a claim and a return. So a refusal takes a quarter off what may be in
hand, down to one task at a time and then to longer and longer pauses; grants let more in, quickly while nothing has
been refused, carefully after that.
"""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
_CAREFUL_FOR_S = 5.0


class ClaimPace:
    """Additive increase, multiplicative decrease; times are any clock's seconds."""

    def __init__(self, most: int, *, first: int | None = None) -> None:
        """`most` tasks are in hand when nothing is refused; `first` to begin with, `most` if None."""
        self._most = float(most)
        self._window = float(most if first is None else min(first, most))
        self._refused_at: float | None = None
        self._pause_s = 0.0
        self._not_before = 0.0

    def granted(self, *, now: float) -> None:
        """A task got its place."""
        if self._refused_at is None:
            more = 1.0
        else:
            more = (0.25 if now - self._refused_at < _CAREFUL_FOR_S else 1.0) / self._window
        self._window = min(self._most, self._window + more)
        self._pause_s = self._not_before = 0.0

    def refused(self, wait_s: float, *, now: float) -> None:
        """A task was put off for `wait_s` seconds."""
        self._refused_at = now
        if self._window > 1.0:
            self._window = max(1.0, self._window * 0.75)
            return
        self._pause_s = min(max(_FIRST_PAUSE_S, 2 * self._pause_s), _LONGEST_PAUSE_S, max(wait_s, _FIRST_PAUSE_S))
        self._not_before = now + self._pause_s

    def room(self, in_hand: int, *, now: float) -> int:
        """How many more may be claimed now."""
        if now < self._not_before:
            return 0
        return max(0, int(self._window) - in_hand)
