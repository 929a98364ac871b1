r"""From a solution's text to the answer it states. Which statement counts is decided here, once:

- **math**: the last balanced `\boxed{…}` or `\fbox{…}`, and those before it that only "and", "or", a comma or a name
  (`x = `) stands between: they are one answer of several members; else what follows the last cue ("the answer is",
  "Answer:", "ans =", "####") on its line; else the last line that is a number, or ends in "= a number".
- **choice**: see `choices`.
- **action**: see `actions`.
- **exact**: the last match of `answer_pattern` (its group if it has one); or the value at `answer_pointer` in the last
  JSON value (fenced blocks first); else the last line "Answer: …"; else the whole text. Where a pattern or a pointer
  is given and finds nothing, there is no answer.
"""

import re

from cope.core.answers import latex
from cope.core.answers.actions import extract_action
from cope.core.answers.choices import extract_choice
from cope.core.answers.json_pointer import last_json_value, resolve
from cope.core.answers.json_text import canonical_json
from cope.core.answers.limits import MAX_SOLUTION_CHARS
from cope.core.answers.model import Unreadable
from cope.core.answers.pattern import compile_pattern
from cope.core.problem import Kind, Problem

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?=[0-9A-Za-z]))")
_MAX_BOXES = 20
_BETWEEN_BOXES = re.compile(
    r"(?:\$|\\[)\]])?(?:[ \t},;]|\\(?:text|mbox)\{|\band\b|\bor\b|\\q?quad)*(?:\$|\\[(\[])?"
    r"(?:[A-Za-z](?:_\{?\w\}?)? ?= ?)?",
    re.IGNORECASE,
)
_MAX_BETWEEN_BOXES = 80
_MAX_BOX_CHARS = 4_000
_CUE = re.compile(
    r"(?:\banswer(?:[ \t]+is)?[ \t]*:\**|\banswer[ \t]+is\b(?:[ \t]+that\b)?:?|\bans[ \t]*=|####)"
    r"[ \t]*(?P<rest>[^\n]*)",
    re.IGNORECASE,
)
_ANSWER_LINE = re.compile(
    r"^[ \t>*_#]*(?:final[ \t]+)?answer[*_]*[ \t]*:[*_]*[ \t]*(?P<rest>\S[^\n]*)$", re.IGNORECASE | re.MULTILINE
)
_SENTENCE_END = re.compile(r"\.\s+(?=[A-Z])|\.\s*$")
_NUMBER = r"[-+]?\s*\$?\s*(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+)?\s*%?"
_FRACTION = r"-?\\[dt]?frac\s*\{\d+\}\s*\{\d+\}"
_NUMBER_LINE = re.compile(rf"(?:.*=)?\s*\$?\s*(?P<number>{_NUMBER}|{_FRACTION})\s*\$?\s*\.?\s*")


def extraction_needs_helper(problem: Problem) -> bool:
    """Whether a caller's own regular expression runs over the text: it may take exponential time, so not in a loop."""
    return problem.kind is Kind.EXACT and problem.answer_pattern is not None


def extract(problem: Problem, text: str) -> str | None:
    """The answer that a solution states, as it words it; None where it states none.

    Linear in the text, of which the last 200,000 characters are read; except where `extraction_needs_helper`.
    Raises `ValueError` for kinds without a stated answer and for an invalid `answer_pattern`.
    """
    text = text[-MAX_SOLUTION_CHARS:]
    match problem.kind:
        case Kind.MATH:
            return _math(text)
        case Kind.CHOICE:
            return extract_choice(problem.choices, _statements(text))
        case Kind.EXACT:
            return _exact(problem, text)
        case Kind.ACTION:
            return extract_action(problem.actions, text)
        case _:
            raise ValueError(f"no answer is extracted for kind {problem.kind.value}")


def last_box(text: str) -> str | None:
    r"""The inside of the last balanced `\boxed{…}`, or of `\boxed 5`; None where there is none."""
    found = _last_boxes(text)
    return found[-1] if found else None


def _last_boxes(text: str) -> list[str]:
    r"""The insides of the last box and of those just before it: `\boxed{1} and \boxed{2}` state two members."""
    members: list[str] = []
    begins: int | None = None
    for found in reversed(list(_BOX.finditer(text))[-_MAX_BOXES:]):
        if found.group().endswith("{"):
            end = latex.closing_brace(text[: found.end() + _MAX_BOX_CHARS], found.end() - 1)
            inside, ends = ("", 0) if end is None else (text[found.end() : end].strip(), end + 1)
        else:
            end = ends = found.end()
            inside = re.split(r"[\s$.,]", text[end:], maxsplit=1)[0]
            ends += len(inside)
        if begins is None and end is None:
            continue
        if not inside or (begins is not None and not _joined(text, ends, begins)):
            break
        begins = found.start()
        if inside not in members:
            members.insert(0, inside)
    return members


def _joined(text: str, ends: int, begins: int) -> bool:
    between = 0 <= begins - ends <= _MAX_BETWEEN_BOXES
    return between and _BETWEEN_BOXES.fullmatch(text, ends, begins) is not None


def last_cue(text: str) -> str | None:
    """What follows the last "the answer is", "Answer:", "ans =" or "####", up to the end of its sentence."""
    found = None
    for found in _CUE.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    if found is None:
        return None
    stated = _SENTENCE_END.split(found["rest"], maxsplit=1)[0]
    return stated.strip().strip("*_ ").strip() or None


def answer_line(text: str) -> str | None:
    """The rest of the last line of the form "Answer: …", without emphasis."""
    lines = [found["rest"] for found in _ANSWER_LINE.finditer(text)]
    return lines[-1].strip().strip("*_").strip() or None if lines else None


def _math(text: str) -> str | None:
    return ", ".join(_last_boxes(text)) or last_cue(text) or _last_number_line(text)


def _last_number_line(text: str) -> str | None:
    for line in reversed(text.splitlines()[-200:]):
        if len(line) <= 500 and (found := _NUMBER_LINE.fullmatch(line.strip().strip("*_` "))):
            return found["number"].strip()
    return None


def _statements(text: str) -> tuple[str, ...]:
    """Where a choice may stand, most deliberate first: answer line, box, cue, last line, whole text."""
    box = last_box(text)
    if box is not None:
        box = latex.whole_text(latex.unwrap(box)) or box
    lines = [line for line in text.splitlines() if line.strip()]
    found = (answer_line(text), box, last_cue(text), lines[-1] if lines else None, text)
    return tuple(statement for statement in found if statement)


def _exact(problem: Problem, text: str) -> str | None:
    if problem.answer_pattern is not None:
        last = None
        for last in compile_pattern(problem.answer_pattern).finditer(text):  # noqa: B007 - the last one is wanted
            pass
        if last is None:
            return None
        stated = last.group(1) if last.re.groups else last.group()
        return stated.strip() or None if stated else None
    if problem.answer_pointer is not None:
        try:
            value = resolve(last_json_value(text), problem.answer_pointer)
            return (value if isinstance(value, str) else canonical_json(value)) or None
        except (LookupError, Unreadable):
            return None
    return answer_line(text) or text.strip() or None
