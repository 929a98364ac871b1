r"""Words in mathematical answers: which strings are prose, and which trailing words are units.

Units are dropped: `5 cm`, `5\text{ cm}` and `5` are one class, as the field's graders have it, hence `5 cm` and `5 m`
too: a key sees one answer, and a problem asks for one unit. A percent is not a unit: `50\%` is 1/2. Nor is a scale:
`5 million` is 5,000,000.
"""

import re
from fractions import Fraction

from cope.core.answers.expression import FUNCTIONS

_SCALES = {
    "percent": Fraction(1, 100),
    "percentage": Fraction(1, 100),
    "pct": Fraction(1, 100),
    "dozen": Fraction(12),
    "hundred": Fraction(10**2),
    "thousand": Fraction(10**3),
    "million": Fraction(10**6),
    "billion": Fraction(10**9),
    "trillion": Fraction(10**12),
}
_SHORT_UNITS = frozenset(
    "cm mm km nm dm ft in yd mi kg mg lb lbs oz hr hrs min mins sec secs ms mph kph rpm ml mL cl usd USD deg rad "  # noqa: SIM905
    "cm/s km/h m/s ft/s mi/h sq cu of per the each day days".split()
)
_SHORT_WORDS = frozenset({"no", "up"})
_VOWELS = frozenset("aeiou")
_NOT_WORDS = FUNCTIONS | {"sqrt", "infty"}
_PROSE = re.compile(r"[A-Za-z][A-Za-z\s'.\-]*")
_RUN_OF_LETTERS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
_UNIT_WORD = re.compile(r"([A-Za-z]+(?:/[A-Za-z]+)?)[.]?(?:\^\{?[23]\}?)?")
_ATTACHED_UNIT = re.compile(r"(.*\d)([A-Za-z]{2,})(?:\^\{?[23]\}?)?", re.DOTALL)
_TEXT_UNIT = re.compile(r"(.*\S)\s*\\text\{([A-Za-z\s./'\-^23]*)\}\s*(?:\^\s*(?:\{\s*[23]\s*\}|[23]))?", re.DOTALL)
_OPERATOR_END = frozenset("+-*/^_=<>([{|")


def is_prose(text: str, *, marked: bool) -> bool:
    r"""Whether a string of letters is words rather than a product of variables.

    `marked`: it stood in `\text{…}`. Unmarked: a word has a vowel and four letters, or three with one of e, i, o, u
    (`abc` is a product, `red` a word), or is "no" or "up". A single letter is always a symbol.
    """
    if not _PROSE.fullmatch(text):
        return False
    if marked:
        return len(text) > 1
    return any(_is_word(word.strip(".'")) for word in re.split(r"[\s\-]+", text))


def has_words(text: str) -> bool:
    """Whether plain words of four letters or more stand in it: `2 hours 30` is no product of variables."""
    return any(_is_word(found) for found in _RUN_OF_LETTERS.findall(text))


def strip_units(text: str) -> tuple[str, Fraction]:
    """The text without trailing unit words, and the product of the scales among them (`5 million dollars`: 10^6)."""
    scale = Fraction(1)
    for _ in range(6):
        shorter, words = _split_unit(text)
        if shorter is None:
            break
        for word in words.split():
            scale *= _SCALES.get(word.strip(".").lower(), 1)
        text = shorter
    return text, scale


def _split_unit(text: str) -> tuple[str | None, str]:
    if text.endswith(r"\degree"):
        return None, ""
    found = _TEXT_UNIT.fullmatch(text)
    if found and found[1][-1] not in _OPERATOR_END:
        return found[1], found[2]
    head, _, last = text.rpartition(" ")
    unit = _UNIT_WORD.fullmatch(last)
    if head and unit and head.rstrip()[-1:] not in _OPERATOR_END and _is_unit(unit[1]) and any(map(str.isdigit, head)):
        return head.rstrip(), unit[1]
    found = _ATTACHED_UNIT.fullmatch(text)
    if found and (found[2] in _SHORT_UNITS or _is_unit(found[2])) and "\\" not in found[2]:
        return found[1], found[2]
    return None, ""


def _is_unit(word: str) -> bool:
    if "/" in word and word not in _SHORT_UNITS:
        return all(_is_unit(part) for part in word.split("/"))
    return word in _SHORT_UNITS or word.lower() in _SCALES or (len(word) >= 4 and _is_word(word))


def _is_word(word: str) -> bool:
    lower = word.lower()
    if not word.isalpha() or word in _NOT_WORDS:
        return False
    if len(word) >= 4:
        return not _VOWELS.isdisjoint(lower) and not word.startswith(("sqrt", "sin", "cos", "tan", "log"))
    if len(word) == 3:
        return not frozenset("eiou").isdisjoint(lower)
    return lower in _SHORT_WORDS
