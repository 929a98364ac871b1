"""The small household's stock: which rooms there are, what stands in them, and what may lie about."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Treatment(StrEnum):
    """What a task may ask of a thing before it is put away; `none` asks nothing."""

    NONE = "place"
    CLEAN = "clean"
    HEAT = "heat"
    COOL = "cool"

    @property
    def trait(self) -> str:
        """How a thing is called that was treated so."""
        return {"clean": "clean", "heat": "hot", "cool": "cold"}.get(self.value, "")


@dataclass(frozen=True, slots=True)
class Furniture:
    """A kind of receptacle: how many of it a room may have, whether it has a door, and what it does to things."""

    word: str
    fewest: int
    most: int
    door: bool = False
    does: Treatment = Treatment.NONE


ROOMS: Final[dict[str, tuple[Furniture, ...]]] = {
    "kitchen": (
        Furniture("counter", 1, 2),
        Furniture("cupboard", 2, 4, door=True),
        Furniture("sink", 1, 1, does=Treatment.CLEAN),
        Furniture("microwave", 1, 1, door=True, does=Treatment.HEAT),
        Furniture("fridge", 1, 1, door=True, does=Treatment.COOL),
    ),
    "dining room": (Furniture("table", 1, 1), Furniture("sideboard", 0, 2, door=True)),
    "study": (Furniture("desk", 1, 2), Furniture("drawer", 1, 3, door=True), Furniture("shelf", 1, 2)),
    "bedroom": (Furniture("bed", 1, 1), Furniture("dresser", 0, 2, door=True), Furniture("nightstand", 1, 2)),
}
"""The kitchen is in every household, for its sink, microwave and fridge; of the other rooms one to three are."""

FURNITURE: Final = {one.word: one for furniture in ROOMS.values() for one in furniture}

_ALL = frozenset({Treatment.NONE, Treatment.CLEAN, Treatment.HEAT, Treatment.COOL})
_DISH = frozenset({Treatment.NONE, Treatment.CLEAN})
_PLAIN = frozenset({Treatment.NONE})

THINGS: Final[dict[str, frozenset[Treatment]]] = {
    "mug": _ALL,
    "bowl": _ALL,
    "apple": _ALL,
    "potato": _ALL,
    "tomato": _ALL,
    "plate": _DISH,
    "fork": _DISH,
    "pan": _DISH,
    "book": _PLAIN,
    "candle": _PLAIN,
    "key": _PLAIN,
    "pillow": _PLAIN,
    "watch": _PLAIN,
}
"""Every kind of thing, with what may be done to it."""
