"""Who may have how many messages under way, so that no endpoint waits for another's.

A lane is an endpoint, or the host of batches' own addresses in one project. A lane is *good* once it has taken a
message promptly, *bad* while it fails or is slow, and *new* until something is known of it. Each class has a budget of
its own; whatever is under way for longer than `SLOW_S` counts as bad. So good lanes share with good ones only, and with
one that stalls for `SLOW_S` at most.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

SLOW_S = 3.0
_REMEMBERED = 10_000


class LaneClass(StrEnum):
    """What is known of a lane."""

    GOOD = "good"
    NEW = "new"
    BAD = "bad"


AT_ONCE = {LaneClass.GOOD: 256, LaneClass.NEW: 64, LaneClass.BAD: 64}
"""Messages in hand in one process: under way, or next in their lane."""
IN_HAND = 4
_LEAST = {LaneClass.GOOD: 8, LaneClass.NEW: 4, LaneClass.BAD: 4}
"""What one lane may have of them in a crowd."""


@dataclass(frozen=True, slots=True)
class LaneRoom:
    """How many more messages may be begun, by class. `well` says of known lanes how they did last; of `stalled` ones
    something is under way for too long. A class that `limits` does not name has no room. `by_class` False: a lane may
    have as many as its endpoint's concurrency, whatever its class."""

    limits: Mapping[LaneClass, int]
    well: Mapping[str, bool] = field(default_factory=dict)
    stalled: frozenset[str] = frozenset()
    by_class: bool = True

    @property
    def total(self) -> int:
        """Of all classes."""
        return sum(self.limits.values())

    def kind(self, lane: str, *, troubled: bool) -> LaneClass:
        """A lane's class; `troubled` says that its last attempt, in whichever process, failed."""
        well = self.well.get(lane)
        if troubled or lane in self.stalled or well is False:
            return LaneClass.BAD
        return LaneClass.GOOD if well else LaneClass.NEW

    def most(self, kind: LaneClass, concurrency: int, *, beside: int) -> int:
        """How many messages of a lane of this class may be in hand where `beside` lanes of it have something due: what
        its endpoint takes at once (of a good one several times that, so that the next are there when these end) where
        lanes are few, its share of the class's budget where they are many."""
        if not self.by_class:
            return concurrency
        wanted = IN_HAND * concurrency if kind is LaneClass.GOOD else concurrency
        return min(wanted, max(_LEAST[kind], AT_ONCE[kind] // max(1, beside)))


def no_classes(limit: int) -> LaneRoom:
    """Room for `limit` messages of whichever lanes."""
    return LaneRoom({LaneClass.NEW: limit, LaneClass.BAD: limit}, by_class=False)


class Lanes:
    """What one process has under way, and how its lanes did last. Times are monotonic seconds, passed in."""

    def __init__(self) -> None:
        self._did_well: OrderedDict[str, bool] = OrderedDict()
        self._under_way: dict[str, tuple[str, float, LaneClass]] = {}

    def begun(self, key: str, lane: str, now_s: float) -> None:
        """A message is in hand. `key` is its own."""
        well = self._did_well.get(lane)
        kind = LaneClass.NEW if well is None else LaneClass.GOOD if well else LaneClass.BAD
        self._under_way[key] = (lane, now_s, kind)

    def ended(self, key: str, now_s: float, *, taken: bool) -> None:
        """It was `taken`, or not."""
        lane, began_s, _ = self._under_way.pop(key)
        self._did_well[lane] = taken and now_s - began_s <= SLOW_S
        self._did_well.move_to_end(lane)
        if len(self._did_well) > _REMEMBERED:
            self._did_well.popitem(last=False)

    def dropped(self, key: str) -> None:
        """It was given back without an attempt."""
        del self._under_way[key]

    def room(self, now_s: float) -> LaneRoom:
        """What may be begun now."""
        busy = dict.fromkeys(LaneClass, 0)
        stalled: set[str] = set()
        for lane, began_s, kind in self._under_way.values():
            if now_s - began_s > SLOW_S:
                stalled.add(lane)
                busy[LaneClass.BAD] += 1
            else:
                busy[kind] += 1
        limits = {kind: max(0, most - busy[kind]) for kind, most in AT_ONCE.items()}
        return LaneRoom(limits, self._did_well, frozenset(stalled))
