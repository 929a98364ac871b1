"""Prompt sets: named, versioned data, and the one way in which they become messages.

The order is fixed (see `render`): system message | the caller's conversation and problem | role instruction | plans;
the solved examples of a few-shot set stand right after the system message, so that all tasks share them as a prefix.
So the problem is prefilled once per task and model for planner, executors and Stage 2 alike, and the samples of a
step share the longest possible prefix. Role instruction and plans are appended to the caller's last user message
rather than sent as a further one, because many chat templates refuse two user messages in a row.

The paper's own prompts (its appendix G) are not public: these are ours.
"""

from cope.core.prompts.few_shot import COT1, COT2
from cope.core.prompts.few_shot_programs import POT1, POT2
from cope.core.prompts.instruct import INSTRUCT
from cope.core.prompts.model import PromptSet, Role, RolePrompts, Shot
from cope.core.prompts.reference import REFERENCE
from cope.core.prompts.render import render_executor, render_goal_planner, render_guideline_planner

BUILT_IN: dict[str, PromptSet] = {one.name: one for one in (INSTRUCT, REFERENCE, COT1, COT2, POT1, POT2)}

__all__ = [
    "BUILT_IN",
    "COT1",
    "COT2",
    "INSTRUCT",
    "POT1",
    "POT2",
    "REFERENCE",
    "PromptSet",
    "Role",
    "RolePrompts",
    "Shot",
    "render_executor",
    "render_goal_planner",
    "render_guideline_planner",
]
