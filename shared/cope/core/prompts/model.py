"""What a prompt set is made of."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cope.core.problem import Kind

PROGRAM_ANSWER = "ans"
"""The variable that a program leaves its answer in."""


_FIRST_KINDS = frozenset({Kind.MATH, Kind.CHOICE, Kind.EXACT})


class Role(StrEnum):
    """Who speaks (cascade vocabulary): planners write plans, the executor solves."""

    GOAL_PLANNER = "goal_planner"
    GUIDELINE_PLANNER = "guideline_planner"
    EXECUTOR = "executor"


@dataclass(frozen=True, slots=True)
class RolePrompts:
    """The role instructions of one kind. `{choices}` stands for the listed options of kind `choice`, `{entry_point}`
    and `{tests}` for what a program of kind `code` must define and pass, `{actions}` for the admissible ones of kind
    `action`."""

    goal_planner: str
    guideline_planner: str
    executor: str


@dataclass(frozen=True, slots=True)
class Shot:
    """A solved example that an executor is shown. `choices` are its own options of kind `choice`, or its own
    actions of kind `action`."""

    problem: str
    solution: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptSet:
    """One prompt per (role, kind), and the words around plans.

    `system` is sent first (empty: no system message of ours); a caller's own system message follows in the same one.
    `goal_label` and `guideline_label` introduce the plans an executor is given. `separator` stands between the
    problem, the instruction and each plan. `shots` stand before the caller's conversation, as turns of their own,
    for executors only. With `programs` a solution is a Python program that leaves its answer in
    `PROGRAM_ANSWER`.
    """

    name: str
    revision: str
    system: str
    goal_label: str
    guideline_label: str
    separator: str
    kinds: Mapping[Kind, RolePrompts]
    shots: Mapping[Kind, tuple[Shot, ...]] = field(default_factory=dict)
    programs: bool = False

    def version(self, kind: Kind) -> str:
        """Name, revision and a hash of every word that a task of this kind may be sent: stored with each step, so a
        changed prompt is never unseen. The first three kinds are hashed together and each later one alone, so that a
        set which learns a kind keeps its versions for those it knew: a batch under way through an upgrade."""
        together = _FIRST_KINDS if kind in _FIRST_KINDS else {kind}
        words: list[object] = [self.system, self.goal_label, self.guideline_label, self.separator]
        words += [
            [kind.value, p.goal_planner, p.guideline_planner, p.executor]
            for kind, p in sorted(self.kinds.items())
            if kind in together
        ]
        words += [
            [kind.value, [[shot.problem, shot.solution, *shot.choices] for shot in shots]]
            for kind, shots in sorted(self.shots.items())
            if kind in together
        ]
        if self.programs:
            words.append("programs")
        digest = hashlib.sha256(json.dumps(words, ensure_ascii=False).encode()).hexdigest()
        return f"{self.name}-{self.revision}-{digest[:12]}"
