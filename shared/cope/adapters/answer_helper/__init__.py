"""Answers read by helper processes that can be killed (the `AnswerJudge` port).

The caller's process reads what needs only small exact arithmetic. Everything else (a caller's regular expression,
irrational numbers, formulas, grading by math-verify) runs in a child with limits on memory and time.
"""

from cope.adapters.answer_helper.judge import CachingJudge, grade_all, helper_judge, in_process_judge
from cope.adapters.answer_helper.pool import HelperLimits

__all__ = ["CachingJudge", "HelperLimits", "grade_all", "helper_judge", "in_process_judge"]
