"""The prompt set `instruct`: the default, for real instruction-tuned models."""

from cope.core.problem import Kind
from cope.core.prompts.acting import ACTING
from cope.core.prompts.model import PromptSet, RolePrompts

GOAL = (
    "Do not solve this yet. State in one short sentence the goal: what exactly has to be found or produced, and in "
    "which form. Name no method and give no result."
)
GUIDELINE = (
    "Do not solve this. Write a guideline of one or two sentences for a less experienced solver: the approach to take "
    "and the mistake to avoid. Give no result and no intermediate value."
)

INSTRUCT = PromptSet(
    name="instruct",
    revision="1",
    system="You are a careful problem solver. Follow the last instruction exactly.",
    goal_label="Goal: ",
    guideline_label="Guideline: ",
    separator="\n\n",
    kinds={
        Kind.MATH: RolePrompts(
            goal_planner=GOAL,
            guideline_planner=GUIDELINE,
            executor=(
                "Solve this step by step. If a goal or a guideline follows, use it. End with the final answer alone "
                "inside \\boxed{}."
            ),
        ),
        Kind.CHOICE: RolePrompts(
            goal_planner=GOAL,
            guideline_planner=GUIDELINE,
            executor=(
                "Choose exactly one of these options:\n{choices}\n"
                "Think step by step. If a goal or a guideline follows, use it. End with a last line of the form "
                "'Answer: ' followed by the chosen option, word for word."
            ),
        ),
        Kind.EXACT: RolePrompts(
            goal_planner=GOAL,
            guideline_planner=GUIDELINE,
            executor=(
                "Work this out step by step. If a goal or a guideline follows, use it. End with a last line of the "
                "form 'Answer: ' followed by the answer and nothing else."
            ),
        ),
        Kind.OPEN: RolePrompts(
            goal_planner=(
                "Do not answer this yet. State in one short sentence the goal: what the answer has to achieve for the "
                "person who asks, and in which form. Write no part of the answer."
            ),
            guideline_planner=(
                "Do not answer this. Write a guideline of one or two sentences for a less experienced writer: what the "
                "answer should contain and the mistake to avoid. Write no part of the answer."
            ),
            executor=(
                "Answer this in full. If a goal or a guideline follows, use it without mentioning it. Write the answer "
                "alone."
            ),
        ),
        Kind.CODE: RolePrompts(
            goal_planner=(
                "Do not write any code yet. State in one short sentence the goal: what exactly the program takes and "
                "what it gives back. Name no method."
            ),
            guideline_planner=(
                "Do not write any code. Write a guideline of one or two sentences for a less experienced programmer: "
                "the approach to take and the case that is easily overlooked."
            ),
            executor=(
                "Write a Python program for this{entry_point}, using the standard library only. If a goal or a "
                "guideline follows, use it. Give the whole program in one block fenced by ```python and ```, without "
                "tests or examples in it.{tests}"
            ),
        ),
        Kind.ACTION: ACTING,
    },
)
