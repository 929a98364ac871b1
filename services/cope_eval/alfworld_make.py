"""Household problems in PDDL for the domain that the `alfworld` package ships: generated, seeded, always solvable.

They are ours, in ALFWorld's terms (its predicates, types and words), and no games of its benchmark: those are files.
"""

from collections import Counter
from random import Random

PLACE, CLEAN, HEAT, COOL, TWO = "place", "clean", "heat", "cool", "two"
KINDS = (PLACE, CLEAN, HEAT, COOL, TWO)

_SURFACES = {"CounterTop": (1, 3), "DiningTable": (1, 1), "Desk": (0, 2), "Shelf": (1, 3), "SideTable": (0, 2)}
_DOORS = {"Cabinet": (2, 5), "Drawer": (1, 4)}
_APPLIANCES = {"SinkBasin": CLEAN, "Microwave": HEAT, "Fridge": COOL}
_WITH_DOORS = frozenset({*_DOORS, "Microwave", "Fridge"})
_FOOD, _DISHES = ("Apple", "Potato", "Tomato"), ("Mug", "Bowl", "Plate", "Pan")
_OTHER = ("Book", "Candle", "Watch", "Pen")
_MAY = {PLACE: (*_FOOD, *_DISHES, *_OTHER), TWO: (*_FOOD, *_DISHES, *_OTHER), CLEAN: (*_FOOD, *_DISHES)}
_MAY |= {HEAT: (*_FOOD, "Mug", "Plate"), COOL: (*_FOOD, "Mug", "Pan", "Bowl", "Plate")}
_DONE = {CLEAN: "(isClean {})", HEAT: "(isHot {})", COOL: "(isCool {})"}
_ABLE = {CLEAN: "cleanable", HEAT: "heatable", COOL: "coolable"}
_WORDS = {CLEAN: "clean ", HEAT: "hot ", COOL: "cool "}


def make_problem(draw: Random) -> tuple[str, str, str]:
    """The kind, the goal in words, and the PDDL problem."""
    kind = draw.choice(KINDS)
    thing = draw.choice(_MAY[kind])
    pieces = {_id(word, i + 1): word for word, i in _furniture(draw)}
    where = draw.choice(sorted({word for word in pieces.values() if word not in _APPLIANCES}))
    things: Counter[str] = Counter()
    lies: dict[str, str] = {}
    for word in [thing] * (2 if kind == TWO else 1) + draw.choices(sorted(_MAY[PLACE]), k=draw.randint(6, 12)):
        things[word] += 1
        free = sorted(piece for piece, of in pieces.items() if word != thing or of != where)  # not done already
        lies[_id(word, things[word])] = draw.choice(free)
    number = "two" if kind == TWO else "a" if kind == PLACE else "some"
    goal = f"put {number} {_WORDS.get(kind, '')}{thing.lower()} in/on {where.lower()}"
    return kind, goal, _problem(kind, thing, where, pieces, lies)


def _furniture(draw: Random) -> list[tuple[str, int]]:
    counts = {word: draw.randint(*bounds) for word, bounds in {**_SURFACES, **_DOORS}.items()}
    counts |= dict.fromkeys(_APPLIANCES, 1)
    return [(word, i) for word, count in sorted(counts.items()) for i in range(count)]


def _id(word: str, number: int) -> str:
    """As ALFWorld reads names back out of ids: what stands before ``_bar_``, with "basin" put back behind a sink."""
    if word == "SinkBasin":
        return f"Sink_bar_{number}_bar_SinkBasin"
    return f"{word}_bar_{number}"


def _problem(kind: str, thing: str, where: str, pieces: dict[str, str], lies: dict[str, str]) -> str:
    of = {name: name.partition("_bar_")[0] for name in lies}
    types = sorted({*of.values(), "Knife", "ButterKnife"})  # the domain names the knives, whether there are any or not
    places = {piece: f"loc_{i + 1}" for i, piece in enumerate(pieces)}
    objects = ["agent1 - agent", "loc_0 - location", *(f"{place} - location" for place in places.values())]
    objects += [f"{name} - object" for name in lies] + [f"{piece} - receptacle" for piece in pieces]
    objects += [f"{word}Type - otype" for word in types]
    objects += [f"{word}Type - rtype" for word in sorted(set(pieces.values()))]
    facts = ["(= (total-cost) 0)", "(atLocation agent1 loc_0)"]
    for piece, word in pieces.items():
        facts += [f"(receptacleType {piece} {word}Type)", f"(receptacleAtLocation {piece} {places[piece]})"]
        facts += [f"(openable {piece})"] if word in _WITH_DOORS else []
    for name, piece in lies.items():
        facts += [f"(objectType {name} {of[name]}Type)", f"(pickupable {name})"]
        facts += [f"(inReceptacle {name} {piece})", f"(objectAtLocation {name} {places[piece]})"]
        facts += [f"({able} {name})" for does, able in _ABLE.items() if of[name] in _MAY[does]]
    facts += [f"(canContain {r}Type {o}Type)" for r in sorted(set(pieces.values())) for o in sorted(set(of.values()))]
    return "\n".join(
        [
            "(define (problem household)",
            "(:domain alfred)",
            "(:objects",
            *objects,
            ")",
            "(:init",
            *facts,
            ")",
            f"(:goal {_goal(kind, thing, where)})",
            "(:metric minimize (total-cost))",
            ")",
            "",
        ]
    )


def _goal(kind: str, thing: str, where: str) -> str:
    wanted = f"(objectType ?o {thing}Type) (receptacleType ?r {where}Type) (inReceptacle ?o ?r)"
    if kind == TWO:
        second = f"(exists (?p - object) (and (not (= ?o ?p)) (objectType ?p {thing}Type) (inReceptacle ?p ?r)))"
        return f"(exists (?r - receptacle ?o - object) (and {wanted} {second}))"
    return f"(exists (?r - receptacle ?o - object) (and {wanted} {_DONE.get(kind, '').format('?o')}))"
