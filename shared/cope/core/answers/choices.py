"""Which of the given options a solution chooses.

Statements are tried from the most deliberate to the least: the last "Answer: …" line, a box, "the answer is …", the
last line, the whole text. The first one that names exactly one option decides; one that names several ends the
search: an ambiguous answer is no answer. A statement names an option by its text or its label: the label written in
the option ("B) Paris"), or else its letter by position (A, B, …), unless some option is itself one character long.
What a statement denies ("not A", "rather than Rome") it does not name, and after a first clause that names one option
a clause with a denial is commentary ("D, it can't be A or B"). An option of one letter counts in its own case only:
"a" is an article.
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
_SAID_LABEL = re.compile(
    r"\b(?:is|it's|be|sure|definitely|choose|chose|pick|select)\s+\(?([A-Z])\b\)?(?!['’]|\s+(?!because|since|as\b|and\b|or\b)[a-z])"
)
_DENIED = r"\b(?i:not|non|never|cannot be|can't be|isn't|rather than|instead of|neither)\s+(?i:(?:option|choice)\s+)?"
_DENIAL = re.compile(r"\b(?:not|non|never|cannot|neither|wrong|incorrect)\b|n't\b", re.IGNORECASE)
_CLAUSE_END = re.compile(r"[,;.:]\s|\s[-–—]\s|\n")
_SPACES = re.compile(r"(?:[^\S\n]|\n(?=\s))+")
_MARKUP = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}|[*`$_]|\\[()\[\]]")
_MAX_SCANNED = 20_000


@dataclass(frozen=True, slots=True)
class _Option:
    index: int
    label: str | None
    texts: frozenset[str]
    own: str = ""


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
    if all(len(choice.strip()) == 1 for choice in choices):
        letters: list[str | None] = [choice.strip().casefold() for choice in choices]
    elif len(choices) <= 26 and all(len(choice.strip()) > 1 for choice in choices):
        letters = list(string.ascii_lowercase[: len(choices)])
    else:
        letters = [None] * len(choices)
    return tuple(
        _Option(place, letters[place], frozenset({_plain(choice)}), _bare(choice))
        for place, choice in enumerate(choices)
    )


def _named(options: tuple[_Option, ...], statement: str) -> set[int]:
    # Runs of spaces are one space before any pattern sees them: two optional runs side by side take quadratic time.
    statement = _without_denied(options, _SPACES.sub(" ", statement[-_MAX_SCANNED:]))
    named = _named_in(options, statement)
    if len(named) > 1 and (end := _CLAUSE_END.search(statement)) and _DENIAL.search(statement, end.end()):
        first = _named_in(options, statement[: end.start()])
        return first if len(first) == 1 else named
    return named


def _without_denied(options: tuple[_Option, ...], statement: str) -> str:
    if _DENIAL.search(statement) is None and " than " not in statement and " of " not in statement:
        return statement
    texts = sorted({text for option in options for text in option.texts if len(text) > 1}, key=len, reverse=True)
    one = "|".join([rf"(?i:{re.escape(text)})" for text in texts] + [r"\(?[A-Z]\)?"])
    several = rf"(?:(?:\s*,\s*(?:{one})(?!\w))*\s*,?\s*\b(?:or|nor)\s+(?:{one})(?!\w))?"
    return re.sub(rf"{_DENIED}(?:{one})(?!\w){several}", " ", statement)


def _named_in(options: tuple[_Option, ...], statement: str) -> set[int]:
    bare = _bare(statement)
    plain = bare.casefold()
    exact = {option.index for option in options if plain in option.texts}
    if exact:
        return exact
    by_label: set[int] = set()
    parts = [_LABELLED.fullmatch(part) for part in _SEVERAL.split(plain)]
    if all(part is not None and not part[2] for part in parts):
        by_label = _labelled(options, {part[1] for part in parts if part})  # "B", or "A or B", which is ambiguous
    elif labelled := _LABELLED.fullmatch(plain):
        by_label = _labelled(options, {labelled[1]})
    by_text = _mentioned(options, plain) | {
        option.index for option in options if len(option.own) == 1 and re.search(_letter(option.own), bare)
    }
    if by_label or by_text:
        return by_label | by_text
    said = {found[1].casefold() for found in _SAID_LABEL.finditer(bare)}
    return _labelled(options, said | {found[1] or found[2] for found in _NAMED_LABEL.finditer(plain)})


def _letter(own: str) -> str:
    return rf"(?<![\w'’]){re.escape(own)}(?![\w'’])"


def _labelled(options: tuple[_Option, ...], labels: set[str]) -> set[int]:
    return {option.index for option in options if option.label in labels}


def _mentioned(options: tuple[_Option, ...], plain: str) -> set[int]:
    """Options whose text (of more than one character) stands there as whole words and not inside a longer option's."""
    by_text: dict[str, set[int]] = {}
    for option in options:
        for text in option.texts:
            if not text or (len(text) == 1 and option.own):
                continue  # a single character is looked for in its own case
            by_text.setdefault(text, set()).add(option.index)
    if not by_text:
        return set()
    # Longest first: an alternation takes the first that fits, and a match is not searched again for shorter ones.
    longest_first = "|".join(map(re.escape, sorted(by_text, key=lambda text: -len(text))))
    found = re.findall(rf"(?<!\w)(?:{longest_first})(?!\w)", plain)
    return set[int]().union(*(by_text[text] for text in found))


def _plain(text: str) -> str:
    return _bare(text).casefold()


def _bare(text: str) -> str:
    without = _MARKUP.sub(lambda found: found[1] or "", text)
    return " ".join(without.split()).strip(" .!\"'")
