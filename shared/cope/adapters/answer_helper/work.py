"""What a helper does with one request. Nothing here is bounded in time: the caller's process must not run it."""

from typing import assert_never

from cope.adapters.answer_helper.messages import Find, Grade, KeyOf, Request, Value
from cope.core.answers.extract import extract
from cope.core.answers.keys import FOREIGN
from cope.core.problem import Kind, Problem


def is_heavy(request: Request) -> bool:
    """Whether it needs sympy, which takes seconds to import: loaded by the first request that does."""
    return isinstance(request, Grade) or (isinstance(request, KeyOf) and FOREIGN.search(request.answer) is not None)


def load_heavy() -> None:
    """Import sympy, latex2sympy2_extended and math-verify."""
    import math_verify  # noqa: F401 - for its effect on the next import


def perform(request: Request) -> Value:
    """The reply's value. Raises `ValueError` for an invalid pattern, and anything on hostile input."""
    match request:
        case KeyOf(kind, answer):
            from cope.core.answers.symbolic import full_key

            return full_key(kind, answer)
        case Find(pattern, text):
            return extract(Problem(Kind.EXACT, (), answer_pattern=pattern), text)
        case Grade(gold, answer):
            return _grade(gold, answer)
        case _:
            assert_never(request)


def _grade(gold: str, answer: str) -> bool:
    """math-verify, gold first, as the field grades. Its own time-outs use signals and are switched off."""
    from math_verify import parse, verify

    parsed_gold = parse(_as_latex(gold), parsing_timeout=None)
    parsed_answer = parse(_as_latex(answer), parsing_timeout=None)
    return bool(verify(parsed_gold, parsed_answer, timeout_seconds=None))


def _as_latex(answer: str) -> str:
    return answer if "$" in answer.replace(r"\$", "") or r"\boxed" in answer else f"${answer}$"
