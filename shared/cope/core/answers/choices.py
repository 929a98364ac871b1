"""Which of the given options a solution chooses.

Statements are tried from the most deliberate to the least: the last "Answer: …" line, a box, "the answer is …", the
last line, the whole text. The first one that names exactly one option decides; one that names several ends the
search: an ambiguous answer is no answer. A statement names an option by its text or its label: the label written in
the option ("B) Paris"), or else its letter by position (A, B, …), unless some option is itself one character long.
"""

import re
import string
from dataclasses import dataclass

_OWN_LABEL = re.compile(r"\(?([A-Za-z]|\d{1,2})[).:]\s*(\S.*)", re.DOTALL)
_LABELLED = re.compile(
    r"(?:(?:option|choice|answer)\s+)?\(?([A-Za-z]|\d{1,2})\)?(?:[).:]\s*(.*)|\s*)", re.DOTALL | re.IGNORECASE
)
_SEVERAL = re.compile(r"\s*(?:,|/|&|\band\b|\bor\b)\s*")
_NAMED_LABEL = re.compile(r"\b(?:option|choice)\s+\(?([A-Za-z]|\d{1,2})\b\)?|\(([A-Za-z]|\d{1,2})\)", re.IGNORECASE)
_MARKUP = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}|[*`$_]|\\[()\[\]]")
_MAX_SCANNED = 20_000


@dataclass(frozen=True, slots=True)
class _Option:
    index: int
    label: str | None
    texts: frozenset[str]


def extract_choice(choices: tuple[str, ...], statements: tuple[str, ...]) -> str | None:
    """The chosen option, word for word as in `choices`; None where none or more than one is named."""
    options = _options(choices)
    for statement in statements:
        named = _named(options, statement)
        if len(named) == 1:
            return choices[next(iter(named))]
        if len(named) > 1:
            return None
    return None


def _options(choices: tuple[str, ...]) -> tuple[_Option, ...]:
    own = [_OWN_LABEL.fullmatch(choice.strip()) for choice in choices]
    labels = [found[1].casefold() for found in own if found]
    if len(labels) == len(choices) and len(set(labels)) == len(labels):
        return tuple(
            _Option(place, found[1].casefold(), frozenset({_plain(choice), _plain(found[2])}))
            for place, (choice, found) in enumerate(zip(choices, own, strict=True))
            if found
        )
    # With options like "B", "A" a letter is a text, never a place.
    by_place = len(choices) <= 26 and all(len(choice.strip()) > 1 for choice in choices)
    return tuple(
        _Option(place, string.ascii_lowercase[place] if by_place else None, frozenset({_plain(choice)}))
        for place, choice in enumerate(choices)
    )


def _named(options: tuple[_Option, ...], statement: str) -> set[int]:
    plain = _plain(statement)[-_MAX_SCANNED:]
    exact = {option.index for option in options if plain in option.texts}
    if exact:
        return exact
    by_label: set[int] = set()
    parts = [_LABELLED.fullmatch(part) for part in _SEVERAL.split(plain)]
    if all(part is not None and not part[2] for part in parts):
        by_label = _labelled(options, {part[1] for part in parts if part})  # "B", or "A or B", which is ambiguous
    elif labelled := _LABELLED.fullmatch(plain):
        by_label = _labelled(options, {labelled[1]})
    by_text = _mentioned(options, plain)
    if by_label or by_text:
        return by_label | by_text
    return _labelled(options, {found[1] or found[2] for found in _NAMED_LABEL.finditer(plain)})


def _labelled(options: tuple[_Option, ...], labels: set[str]) -> set[int]:
    return {option.index for option in options if option.label in labels}


def _mentioned(options: tuple[_Option, ...], plain: str) -> set[int]:
    """Options whose text stands in the statement as whole words and not inside a longer option's."""
    by_text: dict[str, set[int]] = {}
    for option in options:
        for text in filter(None, option.texts):
            by_text.setdefault(text, set()).add(option.index)
    if not by_text:
        return set()
    # Longest first: an alternation takes the first that fits, and a match is not searched again for shorter ones.
    longest_first = "|".join(map(re.escape, sorted(by_text, key=lambda text: -len(text))))
    found = re.findall(rf"(?<!\w)(?:{longest_first})(?!\w)", plain)
    return set[int]().union(*(by_text[text] for text in found))


def _plain(text: str) -> str:
    without = _MARKUP.sub(lambda found: found[1] or "", text)
    return " ".join(without.split()).strip(" .!\"'").casefold()
