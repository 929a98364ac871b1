"""A provider's limits, exactly: a true sliding window per API key. Pure: the time is passed in."""

from collections import deque
from dataclasses import dataclass
from typing import Literal

LimitName = Literal["requests", "tokens", "concurrency"]


@dataclass(slots=True)
class Entry:
    """One admitted amount. `at` is monotonic seconds."""

    at: float
    amount: int


class SlidingWindow:
    """What was admitted in the interval (now - window_s, now]: after exactly `window_s` an amount is free again.

    `limit` None is no limit. Times passed in never decrease.
    """

    def __init__(self, limit: int | None, window_s: float) -> None:
        self.limit = limit
        self.window_s = window_s
        self._entries: deque[Entry] = deque()
        self._used = 0

    def used(self, now: float) -> int:
        """What is in the window."""
        entries = self._entries
        while entries and now - entries[0].at >= self.window_s:
            self._used -= entries.popleft().amount
        return self._used

    def remaining(self, now: float) -> int:
        """What is still free, never below 0; 0 without a limit means nothing: ask `limit` first."""
        return max(0, (self.limit or 0) - self.used(now))

    def wait_s(self, now: float, amount: int) -> float | None:
        """Seconds until `amount` fits, 0.0 if it fits now, None if it is larger than the limit."""
        over = self.used(now) + amount - self.limit if self.limit is not None else 0
        if over <= 0:
            return 0.0
        for entry in self._entries:
            over -= entry.amount
            if over <= 0:
                return entry.at + self.window_s - now
        return None

    def add(self, now: float, amount: int) -> Entry:
        """Admit, whatever the limit says."""
        self.used(now)
        entry = Entry(now, amount)
        self._entries.append(entry)
        self._used += amount
        return entry

    def correct(self, now: float, entry: Entry, amount: int) -> None:
        """Put the actual amount in an entry's place, at the entry's own time; nothing happens once it has left."""
        self.used(now)
        if now - entry.at < self.window_s:
            self._used += amount - entry.amount
            entry.amount = amount

    def reset_s(self, now: float) -> float:
        """Seconds until the window is empty if nothing more comes."""
        self.used(now)
        return self._entries[-1].at + self.window_s - now if self._entries else 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which limit refused a call. `wait_s` None: it never fits."""

    limit: LimitName
    wait_s: float | None


class Meter:
    """The limits of one API key: requests and tokens in a window, and calls in flight. All or nothing."""

    def __init__(self, *, rpm: int | None, tpm: int | None, concurrency: int | None, window_s: float) -> None:
        self.requests = SlidingWindow(rpm, window_s)
        self.tokens = SlidingWindow(tpm, window_s)
        self.concurrency = concurrency
        self.in_flight = 0

    def admit(self, now: float, tokens: int) -> Entry | Refusal:
        """The token entry of an admitted call, which holds a place in flight until `done`; a refused one changes
        nothing."""
        waits: list[tuple[LimitName, float | None]] = [
            ("requests", self.requests.wait_s(now, 1)),
            ("tokens", self.tokens.wait_s(now, tokens)),
        ]
        for name, wait_s in waits:
            if wait_s is None:
                return Refusal(name, None)
        name, wait_s = max(waits, key=lambda pair: pair[1] or 0.0)
        if wait_s:
            return Refusal(name, wait_s)
        if self.concurrency is not None and self.in_flight >= self.concurrency:
            return Refusal("concurrency", 0.05)
        self.in_flight += 1
        self.requests.add(now, 1)
        return self.tokens.add(now, tokens)

    def done(self) -> None:
        """An admitted call ended."""
        self.in_flight -= 1
