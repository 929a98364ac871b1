"""Who may run beside a task whose workers keep dying.

The store hands such a task out alone, but that says nothing of what the process holds already. So the company gets
smaller with every crash, and before the last one that it is allowed it runs quite alone: then only the task itself can
be to blame, and no neighbour of a poisoned payload ever fails with it.
"""

from collections.abc import Iterable

_MOST = {2: 8, 3: 2}
_ANY_NUMBER = 1 << 30


def most_beside(crashes: Iterable[int]) -> int:
    """How many tasks a process may hold together with tasks of these crash counts, themselves included."""
    worst = max(crashes, default=0)
    return _ANY_NUMBER if worst < min(_MOST) else _MOST.get(worst, 1)
