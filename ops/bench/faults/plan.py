"""What goes wrong in which run: a pure function of the seed, so that a seed repeats its run.

Faults are dealt from shuffled decks, one for each kind, so that some dozen seeds meet every fault there is instead of
meeting the same ones by chance.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

LEASE_S, SWEEP_S = 3.0, 0.25

PROCESSES = (
    "kill child small", "kill child large", "kill child upkeep", "kill parent small", "kill parent large",
    "kill parent upkeep", "kill group small", "kill group large", "kill group upkeep", "kill api", "kill sweeper",
    "zombie small", "zombie large", "zombie upkeep", "zombie sweeper", "double sigterm small", "double sigterm large",
    "rolling restart",
)  # fmt: skip
POINTS = (
    "point after_claim", "point after_reserve", "point after_sent", "point after_answer", "point inside_commit",
    "point after_commit", "point inside_ingest", "point inside_finish",
)  # fmt: skip
SERVERS = (
    "redis flush", "redis kill", "redis gone", "postgres restart", "postgres kill", "postgres gone",
)  # fmt: skip
NET = tuple(
    f"{fault} {link}"
    for link in ("postgres", "redis", "small", "large")
    for fault in ("latency", "half-open", "reset", "trickle")
)
OTHERS = (
    "clock ahead", "clock behind", "month end", "provider 503", "provider reset", "provider hang", "provider bad day",
    "poison", "disk full", "cap lowered", "wakeups dropped", "wakeups x50",
)  # fmt: skip
ALL = (*PROCESSES, *POINTS, *SERVERS, *NET, *OTHERS)

# These need to be in place when the batch is sent, or act on its first or last moment.
_FROM_THE_START = {"point inside_ingest", "point inside_finish", "poison"}
# A broker that is not there can't fail.
_NEEDS_BROKER = {name for name in ALL if "redis" in name or "wakeups" in name}
_ONLY_REDIS = {"redis flush"}
NET_REDIS = {name for name in NET if name.endswith("redis")}


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault that begins when `at` of the batch's tasks have ended (0: before it is sent)."""

    at: float
    name: str


def broker_of(seed: int, chosen: str) -> str:
    """Every fifth five seeds run without any broker, the others on the chosen one."""
    return "none" if (seed - 1) // 5 % 5 == 4 else chosen


def plan(seed: int, broker: str, *, only: Sequence[str] = (), count: int = 6) -> tuple[Planned, ...]:
    """The faults of a run in their order; never fewer than five unless `only` names fewer."""
    rng = random.Random(f"faults {seed}")
    names = list(only) or _deal(seed, broker, rng, count)
    spread = [0.05 + 0.6 * (i + rng.uniform(0.1, 0.9)) / len(names) for i in range(len(names))]
    found = [Planned(0.0 if n in _FROM_THE_START else round(at, 3), n) for n, at in zip(names, spread, strict=True)]
    return tuple(sorted(found, key=lambda one: one.at))


def _deal(seed: int, broker: str, rng: random.Random, count: int) -> list[str]:
    fits = {name for name in ALL if _fits(name, broker)}
    names = [_card(PROCESSES, 2 * seed, fits), _card(PROCESSES, 2 * seed + 1, fits)]
    names += [_card(deck, seed, fits) for deck in (POINTS, SERVERS, NET, OTHERS)]
    spare = [name for name in ALL if name in fits and name not in names]
    names = list(dict.fromkeys(names))
    names += rng.sample(spare, max(0, count - len(names)))
    rng.shuffle(names)
    return names


def _fits(name: str, broker: str) -> bool:
    if broker == "none":
        return name not in _NEEDS_BROKER
    return broker == "redis" or name not in _ONLY_REDIS


def _card(deck: Sequence[str], position: int, fits: set[str]) -> str:
    """The card at that place of the deck, shuffled anew each time round."""
    cards = [name for name in deck if name in fits]
    turn, place = divmod(position, len(cards))
    random.Random(f"{deck[0]} {turn}").shuffle(cards)
    return cards[place]


def batch_lines(seed: int, tasks: int, *, poison: bool) -> list[dict[str, object]]:
    """The batch's lines: four in ten go straight to the large model, the others vote, a tenth without ever agreeing."""
    rng = random.Random(f"lines {seed}")
    poisoned = set(rng.sample(range(tasks), 2)) if poison else set()
    lines: list[dict[str, object]] = []
    for number in range(tasks):
        kind = number % 10
        body: dict[str, object] = {"model": "large" if kind < 4 else "small" if kind < 6 else "cope", "max_tokens": 64}
        word = " SPLIT" if kind == 9 else ""
        if number in poisoned:
            word = " COPE_POISON"
        text = f"Line {number}{word}: what is 2 + 3? " + "x" * rng.randint(0, 200)
        body["messages"] = [{"role": "user", "content": text}]
        if kind >= 6:
            body["cope"] = {"n": 3}
        lines.append({"custom_id": f"l{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})
    return lines
