"""The words of kind `action`: one decision of an agent, so both plans are for one step (cascade, section 3).

The admissible actions come first in all three, right behind the caller's observation: they belong to the problem, and
planners and executors share them as a prefix.
"""

from cope.core.prompts.model import RolePrompts

_ADMISSIBLE = "The actions possible now, one a line:\n{actions}\n\n"

ACTING = RolePrompts(
    goal_planner=(
        _ADMISSIBLE + "Do not choose an action yet. State in one short sentence the goal of the next step alone: what "
        "it has to bring about, given what has happened so far. Name none of the actions."
    ),
    guideline_planner=(
        _ADMISSIBLE + "Do not choose an action. Write a guideline of one or two sentences for a less experienced "
        "player, for the next step alone: what matters now and the mistake to avoid. Name none of the actions."
    ),
    executor=(
        _ADMISSIBLE + "Choose exactly one of them. Think in a few sentences. If a goal or a guideline for this step "
        "follows, use it. End with a last line of the form 'Action: ' followed by the chosen action, word for word."
    ),
)
