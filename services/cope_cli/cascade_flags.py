"""`--waves`, `--stop`, `--p1-star` and `--cache`: options of the cascade that have a flag of their own.

They end up in the batch's `cope` block, as `-o` does. There a batch's default is for those of its lines that it fits;
on a command line that names one policy, a flag which that policy has no use for is a mistake, and said to be one.
"""

from typing import Annotated, Any

import typer

from cope.core.errors import BadRequest
from cope.core.policies.spec import PolicyName
from cope.core.request_baselines import options_for
from cope.core.request_policy import SELECTABLE, VOTING
from cope.core.stages import StopRule, StragglerRule
from cope.core.task import Cache as CacheRule
from cope.core.waves import as_waves, check_waves

Waves = Annotated[str | None, typer.Option("--waves", help="Samples of a vote launched together: 6,2")]
StopFlag = Annotated[
    str | None, typer.Option("--stop", help="When a vote ends: lossless or off; first_pass of programs.")
]
P1Star = Annotated[str | None, typer.Option("--p1-star", help="On escalation: full waits for all plans, or arrived.")]
Cache = Annotated[str | None, typer.Option("--cache", help="read: answer from the project's stored results.")]

_CHOICES: dict[str, tuple[str, ...]] = {
    "stop": tuple(StopRule),
    "p1_star": tuple(StragglerRule),
    "cache": tuple(CacheRule),
}
_FLAGS = {"waves": "--waves", "stop": "--stop", "p1_star": "--p1-star", "cache": "--cache"}


def cascade_block(
    block: dict[str, Any],
    policy: str,
    *,
    waves: str | None = None,
    stop: str | None = None,
    p1_star: str | None = None,
    cache: str | None = None,
) -> dict[str, Any]:
    """`block` (of `-o`) with these flags. Raises `typer.BadParameter` naming the flag for a value there is none of,
    something given twice, and what contradicts another option or the policy."""
    given = {key: value for key, value in (("stop", stop), ("p1_star", p1_star), ("cache", cache)) if value is not None}
    for key, value in given.items():
        if value not in _CHOICES[key]:
            raise _bad(key, f"must be {' or '.join(_CHOICES[key])}, not {value!r}.")
    flags: dict[str, Any] = {**given} if waves is None else {**given, "waves": _waves(waves)}
    for key in flags:
        if key in block:
            raise _bad(key, f"says the same as -o {key}=…: leave one of them out.")
    _check(flags, {**block, **flags}, str(block.get("policy", policy)))
    of_policy = flags.keys() - {"cache"}
    # The policy beside its options, so that they hold for lines whose `model` names none.
    return {**({"policy": policy} if of_policy else {}), **block, **flags}


def _check(flags: dict[str, Any], whole: dict[str, Any], policy: str) -> None:
    name = policy.partition("@")[0]
    if name not in SELECTABLE:
        for key in flags.keys() - {"cache"}:
            raise _bad(key, f"needs a policy, and {policy!r} is none: name one of {', '.join(SELECTABLE)} in --policy.")
        return
    for key in flags.keys() & {"stop", "p1_star"}:
        try:
            options_for(PolicyName(name), {key: flags[key]}, {})
        except BadRequest:
            raise _bad(key, f"says nothing to policy {name!r}: leave it out.") from None
    if "waves" in flags:
        if name not in VOTING:
            raise _bad("waves", f"needs a vote, and policy {name!r} launches none in waves: leave it out.")
        if whole.get("stop") == StopRule.OFF:
            raise _bad("waves", "only delays a vote that never stops early: leave it out, or the stop that is off.")
        n = whole.get("n", 8)
        if isinstance(n, int):
            try:
                check_waves(flags["waves"], n, "--waves")
            except BadRequest as wrong:
                raise _bad("waves", f"does not fit n: {wrong}") from None


def _waves(text: str) -> list[int]:
    try:
        parts = [int(part) for part in text.strip("[] ").split(",")]
        return list(as_waves(parts, "--waves"))
    except (ValueError, BadRequest):
        raise _bad("waves", f"must be sample counts from 1 to 64, such as 6,2, not {text!r}.") from None


def _bad(key: str, said: str) -> typer.BadParameter:
    return typer.BadParameter(f"{_FLAGS[key]} {said}", param_hint=_FLAGS[key])
