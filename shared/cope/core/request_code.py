"""The `cope` keys of kind `code`: visible tests, what runs around them, and options that only programs have."""

from collections.abc import Mapping
from dataclasses import replace
from keyword import iskeyword

from cope.core.errors import BadRequest
from cope.core.models import ModelCatalog
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.problem import Kind, Problem
from cope.core.programs import MAX_TESTS
from cope.core.request_values import as_choice, as_text, as_text_list
from cope.core.stages import StopRule

CODE_KEYS = frozenset({"tests", "setup", "entry_point", "choose"})
_UNGATED = frozenset(
    {PolicyName.SMALL, PolicyName.LARGE, PolicyName.LARGE_PLAN, PolicyName.PLAN_EXECUTE, PolicyName.FRUGALGPT}
)
MAX_SETUP = 100_000
MAX_NAME = 200
CHOOSE = ("random", "behaviour")


def code_problem(problem: Problem, cope: Mapping[str, object], policy: PolicyName) -> Problem:
    """`problem` with the keys of kind `code`; as it is for any other kind, which may have none of them.

    Raises `BadRequest` naming the key.
    """
    if problem.kind is not Kind.CODE:
        for key in CODE_KEYS & cope.keys():
            if cope[key] is not None:
                raise BadRequest(f"`{key}` belongs to kind `code`.", param=f"cope.{key}")
        return problem
    tests, setup, entry_point = cope.get("tests"), cope.get("setup"), cope.get("entry_point")
    if tests is None and policy not in _UNGATED:
        raise BadRequest(
            f"Kind `code` under policy {policy.value!r} needs `cope.tests`: the visible tests a program must pass, "
            'such as ["assert add(1, 2) == 3"]. Policies that draw one program (`small`, `large`, …) do without.',
            param="cope.tests",
        )
    by_behaviour = as_choice(cope.get("choose") or "random", "cope.choose", CHOOSE) == "behaviour"
    if by_behaviour and (entry_point is None or policy in _UNGATED):
        raise BadRequest(
            "`choose: behaviour` compares what several programs do: it needs `cope.entry_point`, and a policy that "
            "draws several.",
            param="cope.choose",
        )
    return replace(
        problem,
        tests=() if tests is None else as_text_list(tests, "cope.tests", fewest=1, most=MAX_TESTS),
        setup="" if setup is None else as_text(setup, "cope.setup", longest=MAX_SETUP, allow_empty=True),
        entry_point=None if entry_point is None else _name(entry_point),
        by_behaviour=by_behaviour,
    )


def refuse_code_options(kind: Kind, policy: PolicySpec, catalog: ModelCatalog) -> None:
    """Refuse what contradicts the kind: code's own options elsewhere, and policies that programs mean nothing to."""
    if kind is not Kind.CODE:
        if policy.stop is StopRule.FIRST_PASS:
            raise BadRequest(
                "`stop: first_pass` belongs to kind `code`; votes are ended by `lossless`.", param="cope.stop"
            )
        if policy.name is PolicyName.SMALL_MULTI:
            raise BadRequest(
                "Policy `small-multi` belongs to kind `code`; its counterpart for votes is `small-majority`.",
                param="cope.policy",
            )
        return
    if policy.stop is StopRule.FIRST_PASS and policy.name in _UNGATED:
        raise BadRequest(
            f"`stop: first_pass` needs a policy that runs programs; {policy.name.value!r} takes its only one.",
            param="cope.stop",
        )
    if policy.name not in _UNGATED and not catalog.runs_programs:
        raise BadRequest(
            f"Policy {policy.name.value!r} runs programs that a model wrote, and nothing here runs programs "
            "(COPE_SANDBOX_PROCESSES is 0): policies that draw one program, such as `small` and `large`, need not.",
            param="cope.kind",
            code="program_runner_not_configured",
        )
    if policy.name is PolicyName.CASCADE_VERIFY:
        raise BadRequest(
            "Policy `cascade-verify` compares two majorities, and programs have none: `cascade-vote` takes any program "
            "of either prompt set that passes.",
            param="cope.policy",
        )


def _name(value: object) -> str:
    name = as_text(value, "cope.entry_point", longest=MAX_NAME)
    if not name.isidentifier() or iskeyword(name):
        raise BadRequest(
            "`cope.entry_point` is the bare name of a function or class, such as `remove_duplicates`.",
            param="cope.entry_point",
        )
    return name
