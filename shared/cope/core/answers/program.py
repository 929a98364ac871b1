"""A solution that is a program (PoT): the program in the text, and the answer in what it computed."""

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal

from cope.core.answers.limits import MAX_SOLUTION_CHARS
from cope.core.prompts.model import PROGRAM_ANSWER

_BLOCK = re.compile(
    r"^[ \t]*```[ \t]*(?:python|py)?[ \t]*\n(?P<code>.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE
)
_FLOAT = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d{1,3})?", re.IGNORECASE)
_MARK = "cope:ans="
_EXACT_DIGITS = 12
_NOTHING = frozenset({"", "None", "nan", "inf", "-inf"})


def program_of(text: str) -> str | None:
    """The last fenced block that sets `ans`, else the last fenced block, else the whole text; None where that is blank.

    Linear in the text, of which the last 200,000 characters are read.
    """
    text = text[-MAX_SOLUTION_CHARS:]
    blocks = [found["code"] for found in _BLOCK.finditer(text)]
    setting = [code for code in blocks if re.search(rf"\b{PROGRAM_ANSWER}\b", code)]
    program = (setting or blocks or [text])[-1]
    return program if program.strip() else None


def printing(program: str, variable: str = PROGRAM_ANSWER) -> str:
    """A script that runs the program and prints the value of `variable` behind a mark, for runners that give back what
    was printed.

    A program that ends early, or prints the mark itself, only misstates its own answer.
    """
    return f'{program}\nprint("\\n{_MARK}" + str({variable}))\n'


def printed_value(output: str) -> str | None:
    """The value in what such a script printed; None where it printed none."""
    _, mark, value = output.rpartition(f"\n{_MARK}")
    return value.strip() if mark else None


def program_answer(value: str) -> str | None:
    """The value as an answer, None where it says nothing (None, nan, inf).

    A float is rounded to 12 significant digits: 0.1 + 0.2 is 0.3 for whoever asked, and two programs that add in
    another order agree."""
    value = value.strip()
    if value in _NOTHING:
        return None
    if not _FLOAT.fullmatch(value) or not ("." in value or "e" in value.lower()):
        return value
    rounded = Context(prec=_EXACT_DIGITS, rounding=ROUND_HALF_EVEN).create_decimal(Decimal(value))
    if abs(rounded.adjusted()) > 400:
        return value
    text = f"{rounded:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
