"""The chain-of-thought sets `cot1` and `cot2`: the same instruction, other examples (Yue et al. 2023 vary both; the
examples here are ours)."""

from cope.core.problem import Kind
from cope.core.prompts.instruct import GOAL, GUIDELINE, INSTRUCT
from cope.core.prompts.model import PromptSet, RolePrompts, Shot

_KINDS = {
    Kind.MATH: RolePrompts(
        GOAL,
        GUIDELINE,
        "Solve this step by step, as in the examples. End with the final answer alone inside \\boxed{}.",
    ),
    Kind.CHOICE: RolePrompts(
        GOAL,
        GUIDELINE,
        "Choose exactly one of these options:\n{choices}\nThink step by step, as in the examples. End with a last line "
        "of the form 'Answer: ' followed by the chosen option, word for word.",
    ),
    Kind.EXACT: RolePrompts(
        GOAL,
        GUIDELINE,
        "Work this out step by step, as in the examples. End with a last line of the form 'Answer: ' followed by the "
        "answer and nothing else.",
    ),
    Kind.CODE: RolePrompts(
        INSTRUCT.kinds[Kind.CODE].goal_planner,
        INSTRUCT.kinds[Kind.CODE].guideline_planner,
        "Think it through in a sentence or two, as in the examples. Then write the whole program{entry_point}, using "
        "the standard library only, in one block fenced by ```python and ```, without tests in it.{tests}",
    ),
}

COT1 = PromptSet(
    name="cot1",
    revision="1",
    system=INSTRUCT.system,
    goal_label=INSTRUCT.goal_label,
    guideline_label=INSTRUCT.guideline_label,
    separator=INSTRUCT.separator,
    kinds=_KINDS,
    shots={
        Kind.MATH: (
            Shot(
                "A baker fills 6 trays with 24 rolls each and sells 119 of the rolls. How many rolls are left?",
                "The trays hold 6 · 24 = 144 rolls. After the sale 144 − 119 = 25 are left. \\boxed{25}",
            ),
            Shot(
                "A tank holds 84 litres when it is three sevenths full. How many litres does it hold when full?",
                "Three sevenths are 84 litres, so one seventh is 84 / 3 = 28 litres and the whole is 7 · 28 = 196. "
                "\\boxed{196}",
            ),
            Shot(
                "What is the sum of all integers x with x^2 - 5x - 14 = 0?",
                "The left side factors as (x − 7)(x + 2), so x is 7 or −2. Their sum is 7 + (−2) = 5. \\boxed{5}",
            ),
        ),
        Kind.CHOICE: (
            Shot(
                "Which of these is heaviest?",
                "A gram is a thousandth of a kilogram and a tonne is a thousand kilograms. So a tonne is heaviest.\n"
                "Answer: a tonne",
                ("a gram", "a kilogram", "a tonne"),
            ),
            Shot(
                "All roses in this garden are red. This flower is white. Is it a rose of this garden?",
                "Were it one of the roses it would be red. It is white, so it is none of them.\nAnswer: no",
                ("yes", "no"),
            ),
        ),
        Kind.EXACT: (
            Shot(
                "Take the last letter of each word in 'quiet blue morning' and join them.",
                "The last letters are t, e and g. Joined they are teg.\nAnswer: teg",
            ),
            Shot(
                "On which day of the week is the meeting, if today is Friday and it is in four days?",
                "Saturday, Sunday, Monday, Tuesday: the fourth day is Tuesday.\nAnswer: Tuesday",
            ),
        ),
        Kind.CODE: (
            Shot(
                "Write a function `second_largest(values)` that gives the second largest of the distinct values in a "
                "list, or None where there is none.\nassert second_largest([4, 9, 9, 7]) == 7",
                "Equal values count once, so a set comes first. With fewer than two distinct values there is no second."
                "\n```python\ndef second_largest(values):\n    distinct = sorted(set(values))\n"
                "    return distinct[-2] if len(distinct) > 1 else None\n```",
            ),
            Shot(
                "Write a function `digits_only(text)` that gives the digits of a text in their order, as a text."
                "\nassert digits_only('a1b22') == '122'",
                "Each character is looked at once and kept if it is one of 0 to 9.\n```python\ndef digits_only(text):\n"
                "    return ''.join(c for c in text if c in '0123456789')\n```",
            ),
        ),
    },
)

COT2 = PromptSet(
    name="cot2",
    revision="1",
    system=INSTRUCT.system,
    goal_label=INSTRUCT.goal_label,
    guideline_label=INSTRUCT.guideline_label,
    separator=INSTRUCT.separator,
    kinds=_KINDS,
    shots={
        Kind.MATH: (
            Shot(
                "A hiker walks 4 km an hour for 2.5 hours, rests, and walks the remaining 8 km. How long is the trail?",
                "In 2.5 hours the hiker covers 4 · 2.5 = 10 km. With the remaining 8 km that is 10 + 8 = 18 km. "
                "\\boxed{18}",
            ),
            Shot(
                "A coat costs $120. Its price falls by 25% and the new price then rises by 10%. What does it cost?",
                "A quarter of 120 is 30, so the price falls to 90. A tenth of 90 is 9, so it rises to 99. \\boxed{99}",
            ),
            Shot(
                "In how many ways can two of five different books be lent out?",
                "The first can be any of 5 and the second any of 4, and each pair comes up twice: 5 · 4 / 2 = 10. "
                "\\boxed{10}",
            ),
        ),
        Kind.CHOICE: (
            Shot(
                "Ice is put into a warm glass of water. What happens to the water?",
                "The ice takes up heat while it melts, and that heat comes from the water. So the water cools.\n"
                "Answer: it cools",
                ("it warms", "it cools", "nothing"),
            ),
            Shot(
                "Lena is older than Max, and Max is older than Ida. Who is the youngest?",
                "From oldest to youngest they are Lena, Max, Ida. The last of them is Ida.\nAnswer: Ida",
                ("Lena", "Max", "Ida"),
            ),
        ),
        Kind.EXACT: (
            Shot(
                "Sort these by length, shortest first, joined by commas: pear, fig, banana.",
                "fig has 3 letters, pear 4 and banana 6.\nAnswer: fig,pear,banana",
            ),
            Shot(
                "Write 14 in binary.",
                "14 is 8 + 4 + 2, so its digits are 1, 1, 1 and 0.\nAnswer: 1110",
            ),
        ),
        Kind.CODE: (
            Shot(
                "Write a function `running_total(numbers)` that gives the list of sums of the first 1, 2, 3, … numbers."
                "\nassert running_total([2, 5, 1]) == [2, 7, 8]",
                "One pass with the sum so far, which is kept after each number. An empty list gives an empty list."
                "\n```python\ndef running_total(numbers):\n    totals, so_far = [], 0\n    for number in numbers:\n"
                "        so_far += number\n        totals.append(so_far)\n    return totals\n```",
            ),
            Shot(
                "Write a function `same_letters(first, second)` that says whether two words are made of the same "
                "letters, each as often, whatever their case.\nassert same_letters('Tea', 'eat') is True",
                "Two words are so if their letters, in lower case and sorted, are equal.\n```python\n"
                "def same_letters(first, second):\n    return sorted(first.lower()) == sorted(second.lower())\n```",
            ),
        ),
    },
)
