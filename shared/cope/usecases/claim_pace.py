"""How many tasks to claim while a rate limiter puts them off: about as many as it can serve.

A claim that ends in "not now" costs the database a claim and a return. So a refusal halves what may be in hand, down
to one task at a time and then to longer and longer pauses; each grant lets one more in.
"""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0


class ClaimPace:
    """Additive increase, multiplicative decrease; times are any clock's seconds."""

    def __init__(self, most: int) -> None:
        """`most` tasks are in hand when nothing is refused."""
        self._most = float(most)
        self._window = float(most)
        self._pause_s = 0.0
        self._not_before = 0.0

    def granted(self) -> None:
        """A task got its place."""
        self._window = min(self._most, self._window + 1.0 / max(1.0, self._window / 4))
        self._pause_s = self._not_before = 0.0

    def refused(self, wait_s: float, *, now: float) -> None:
        """A task was put off for `wait_s` seconds. Refusals of one moment count once each, so a crowd shrinks fast."""
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
