"""The program-of-thought sets `pot1` and `pot2`: the solution is a Python program, which a sandbox runs.

For kind `math` only: a program computes numbers. The examples are ours.
"""

from cope.core.problem import Kind
from cope.core.prompts.instruct import GOAL, GUIDELINE, INSTRUCT
from cope.core.prompts.model import PromptSet, RolePrompts, Shot

_KINDS = {
    Kind.MATH: RolePrompts(
        GOAL,
        GUIDELINE,
        "Write a short Python program that works this out, as in the examples. It reads nothing and prints nothing; "
        "its last line sets the variable ans to the final answer. Write the program and nothing else.",
    ),
}

POT1 = PromptSet(
    name="pot1",
    revision="1",
    system=INSTRUCT.system,
    goal_label=INSTRUCT.goal_label,
    guideline_label=INSTRUCT.guideline_label,
    separator=INSTRUCT.separator,
    kinds=_KINDS,
    shots={
        Kind.MATH: (
            Shot(
                "A school orders 15 boxes of 32 pencils. It gives 4 pencils to each of 97 pupils. How many remain?",
                "ordered = 15 * 32\ngiven = 4 * 97\nans = ordered - given",
            ),
            Shot(
                "A train leaves with 210 people. A third get off at the first stop, and 25 get on. How many are on it?",
                "people = 210\npeople -= people // 3\npeople += 25\nans = people",
            ),
            Shot(
                "How many integers from 1 to 200 are multiples of 6 or of 10?",
                "ans = sum(1 for i in range(1, 201) if i % 6 == 0 or i % 10 == 0)",
            ),
        ),
    },
    programs=True,
)

POT2 = PromptSet(
    name="pot2",
    revision="1",
    system=INSTRUCT.system,
    goal_label=INSTRUCT.goal_label,
    guideline_label=INSTRUCT.guideline_label,
    separator=INSTRUCT.separator,
    kinds=_KINDS,
    shots={
        Kind.MATH: (
            Shot(
                "Nora saves $35 a week and already has $80. After how many weeks does she have at least $500?",
                "saved = 80\nweeks = 0\nwhile saved < 500:\n    saved += 35\n    weeks += 1\nans = weeks",
            ),
            Shot(
                "A rectangle is 5 cm longer than it is wide, and its perimeter is 58 cm. What is its area in cm²?",
                "# 2 * (width + width + 5) = 58\nwidth = (58 / 2 - 5) / 2\nlength = width + 5\nans = width * length",
            ),
            Shot(
                "What fraction of the numbers 1 to 36 divides 36?",
                "from fractions import Fraction\n\ndivisors = [d for d in range(1, 37) if 36 % d == 0]\n"
                "ans = Fraction(len(divisors), 36)",
            ),
        ),
    },
    programs=True,
)
