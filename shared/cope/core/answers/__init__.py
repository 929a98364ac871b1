"""Answers: what a solution states, and the canonical key that makes equal answers one vote class.

`symbolic` and `numeric` are not imported here: they need mpmath and sympy and run in the helper process.
"""

from cope.core.answers.extract import extract, extraction_needs_helper
from cope.core.answers.json_pointer import check_pointer
from cope.core.answers.keys import quick_key
from cope.core.answers.model import AnswerKey, JudgedAnswer, Keyed, NeedsHelper, Unkeyable
from cope.core.answers.pattern import compile_pattern

__all__ = [
    "AnswerKey",
    "JudgedAnswer",
    "Keyed",
    "NeedsHelper",
    "Unkeyable",
    "check_pointer",
    "compile_pattern",
    "extract",
    "extraction_needs_helper",
    "quick_key",
]
