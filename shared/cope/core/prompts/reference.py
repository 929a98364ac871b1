"""The prompt set `reference`: the short forms that the reference pair was trained on.

`ops/reference_pair` imports this very object for training: the tiny models know no other words. Changing a word here
means training them again.
"""

from cope.core.problem import Kind
from cope.core.prompts.model import PromptSet, RolePrompts

_SHORT = RolePrompts(goal_planner="Goal?", guideline_planner="Guideline?", executor="Solve.")

REFERENCE = PromptSet(
    name="reference",
    revision="1",
    system="",
    goal_label="Goal: ",
    guideline_label="Guideline: ",
    separator="\n",
    kinds={Kind.MATH: _SHORT, Kind.CHOICE: _SHORT, Kind.EXACT: _SHORT, Kind.OPEN: _SHORT},
)
