"""Which of the admissible actions a decision names, and the form in which two of them are one vote.

What a solution states is looked for in three places, the most deliberate first; the first that is there decides:

1. the last line "Action: …" (where nothing follows the colon, the line after it);
2. the last line, if it is an admissible action as it stands;
3. the only admissible action that the text mentions.

A stated action that isn't admissible is no answer: such a vote is counted and never wins. Nothing is guessed: a text
that mentions two actions, or one that it denies ("do not open the fridge"), names none; nor does a single word that may
be prose ("look"), where other actions have several.

Household games write the same act in two ways, by version: `move X to Y`, and the older `put X in/on Y`. One is read
as the other only where just one admissible action can be meant.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

MAX_ACTION_CHARS = 1_000
_MAX_STATED_CHARS = 4 * MAX_ACTION_CHARS
MAX_READ_CHARS = 20_000
"""So many of a solution's last characters are read: an action stands at the end."""
MAX_MENTIONED_WORDS = 32
"""Longer actions can be stated, and are not looked for in prose."""

_CUE = re.compile(
    r"(?:(?:my|the) )?(?:(?:next|chosen|final|best) )?action(?: \d{1,3})?[*_`]* ?(?::|=>|→)[*_`]* ?", re.IGNORECASE
)
_NUMBERING = re.compile(r"(?:\(?\d{1,3}[.):]|[-–—*•>#+]+|=>|→) (?=\S)|>(?=\S)")
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_EDGE = " \t\"'`*‘’“”„«»‹›"
_LEAD = _EDGE + ">_#-•"
_END = _EDGE + ".,;:!"
_BRACKETS = {"(": ")", "[": "]", "<": ">", "{": "}"}
_PLACING = re.compile(r"(?P<verb>put|move) (?P<what>.+?) (?P<where>in/on|in|on|to) (?P<at>.+)")
_NOT = re.compile(r"n['’]t\b")
_TOKEN = re.compile(r"\d+(?:[.,]\d+)+|\w+|[^\w\s]")
_DENIALS = frozenset({"not", "no", "never", "cannot", "avoid", "without", "neither", "nor", "instead", "rather"})
_CLAUSE_ENDS = frozenset({".", ",", ";", ":", "!", "?", "but", "so", "then"})
_DENIAL_REACH = 8

Words = tuple[str, ...]


def normalised_action(text: str) -> str:
    """The canonical form: equal forms are one vote. Empty only for text without a visible character.

    NFKC, lower case, single spaces; without what models put around an action: "Action:", list numbers and bullets,
    quotes, emphasis, brackets around the whole, punctuation at the end. Idempotent.
    """
    plain = _folded(text)
    while (bare := _peeled(plain)) and bare != plain:  # what is signs alone, such as "?", stays as it is
        plain = bare
    return plain


def extract_action(actions: tuple[str, ...], text: str) -> str | None:
    """The admissible action that is named, spelt as in `actions`; None where none is, or more than one could be."""
    known, text = _known(actions), text[-MAX_READ_CHARS:]
    lines = [line for line in text.splitlines() if line.strip(_END)]
    if not lines:
        return None
    stated = _stated(lines)
    if stated is not None:
        return known.find(stated)
    return known.find(lines[-1]) or known.only_mention(text)


def first_twins(actions: tuple[str, ...]) -> tuple[int, int] | None:
    """The places of the first two actions that a vote could not tell apart; None where there are none."""
    seen: dict[str, int] = {}
    for place, action in enumerate(actions):
        before = seen.setdefault(normalised_action(action), place)
        if before != place:
            return before, place
    return None


@dataclass(frozen=True, slots=True)
class _Known:
    """The admissible actions by canonical form, and the forms by their words. `lengths` are of those that begin with a
    word, longest first: a mention is not searched again for the shorter one within it."""

    by_form: Mapping[str, str]
    by_words: Mapping[Words, tuple[str, ...]]
    lengths: Mapping[str, tuple[int, ...]]
    single_words: bool

    def find(self, stated: str) -> str | None:
        """The action that the whole statement is."""
        if len(stated) > _MAX_STATED_CHARS:
            return None
        form = normalised_action(stated)
        if form in self.by_form:
            return self.by_form[form]
        if _PLACING.fullmatch(form) is None:
            return None
        same = [action for other, action in self.by_form.items() if _may_be_one_placing(form, other)]
        return same[0] if len(same) == 1 else None

    def only_mention(self, text: str) -> str | None:
        """The action that the text mentions, word for word, if it mentions one and means it."""
        words = _words(_NOT.sub(" not ", _folded(text)))
        found = list(self._mentions(words))
        forms = {form for form, _, _ in found}
        if len(forms) != 1 or not any(self._meant(words, at, to) for _, at, to in found):
            return None
        return self.by_form[forms.pop()]

    def _mentions(self, words: Words) -> Iterator[tuple[str, int, int]]:
        at = 0
        while at < len(words):
            ends = [at + length for length in self.lengths.get(words[at], ())]
            to = next((to for to in ends if words[at:to] in self.by_words), None)
            if to is None:
                at += 1
                continue
            for form in self.by_words[words[at:to]]:
                yield form, at, to
            at = to

    def _meant(self, words: Words, at: int, to: int) -> bool:
        for word in reversed(words[max(0, at - _DENIAL_REACH) : at]):
            if word in _CLAUSE_ENDS:
                break
            if word in _DENIALS:
                return False
        if to - at > 1 or self.single_words:
            return True
        around = words[at - 1 : at] + words[to : to + 1]
        return len(around) == 2 and all(sign in _EDGE for sign in around)


@lru_cache(maxsize=64)
def _known(actions: tuple[str, ...]) -> _Known:
    """Once for all samples of a step, which are read with the same actions."""
    by_form = {normalised_action(action): action for action in actions}
    by_words: dict[Words, tuple[str, ...]] = {}
    for form in by_form:
        words = _words(form)
        if 0 < len(words) <= MAX_MENTIONED_WORDS:
            by_words[words] = (*by_words.get(words, ()), form)
    lengths: dict[str, set[int]] = {}
    for words in by_words:
        lengths.setdefault(words[0], set()).add(len(words))
    ordered = {word: tuple(sorted(found, reverse=True)) for word, found in lengths.items()}
    return _Known(by_form, by_words, ordered, all(len(words) == 1 for words in by_words))


def _folded(text: str) -> str:
    """Without case and forms of compatibility, as Unicode defines such a match (D146), in one line."""
    for _ in range(2):
        text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_UNSEEN.sub("", unicodedata.normalize("NFKC", text)).split())


def _words(folded: str) -> Words:
    return tuple(_TOKEN.findall(folded))


def _stated(lines: list[str]) -> str | None:
    """What the last "Action: …" states, which may be nothing; None where there is no such line. `lines` are those
    with more than punctuation."""
    for place in range(len(lines) - 1, -1, -1):
        line = " ".join(lines[place].split()).lstrip(_LEAD)
        if cue := _CUE.match(line):
            rest = line[cue.end() :]
            return rest if rest.strip(_END) else "".join(lines[place + 1 : place + 2])
    return None


def _peeled(plain: str) -> str:
    plain = plain.lstrip(_EDGE).rstrip(_END)
    for pattern in (_NUMBERING, _CUE):
        if (found := pattern.match(plain)) and found.end() < len(plain):
            plain = plain[found.end() :]
    closing = _BRACKETS.get(plain[:1])
    if closing is not None and plain.find(closing) == len(plain) - 1:
        plain = plain[1:-1]
    return plain.strip()


def _may_be_one_placing(one: str, other: str) -> bool:
    """Whether `put X in/on Y` and `move X to Y` can be the same act: of one thing, to one place, by prepositions that
    agree."""
    first, second = _PLACING.fullmatch(one), _PLACING.fullmatch(other)
    if first is None or second is None or (first["what"], first["at"]) != (second["what"], second["at"]):
        return False
    return bool(_prepositions(first) & _prepositions(second))


def _prepositions(placing: re.Match[str]) -> frozenset[str]:
    verb, where = placing["verb"], placing["where"]
    if (verb == "move") != (where == "to"):
        return frozenset()  # "move X in Y" and "put X to Y" are of neither version
    return frozenset({where} if where in {"in", "on"} else {"in", "on"})
