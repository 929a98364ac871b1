"""`--option KEY=VALUE`: what a policy is given beside its name, as it stands in the request's `cope` block."""

import json
from typing import Annotated, Any

import typer

Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="Of the policy, as KEY=VALUE (text or JSON), such as -o n=8; may be repeated."),
]


def options_of(given: list[str] | None, policy: str) -> dict[str, Any]:
    """The `cope` block of these options, with the policy they belong to; empty without any.

    A value is JSON where it can be read as such (`n=8`, `tiers=[["a","b"],["c"]]`), else text; amounts and thresholds
    stay text, so that no digit is lost. Raises `typer.BadParameter`.
    """
    block: dict[str, Any] = {}
    for one in given or []:
        key, equals, value = one.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{one!r} is not of the form KEY=VALUE, such as n=8.", param_hint="--option")
        if key in block:
            raise typer.BadParameter(f"{key!r} is given twice.", param_hint="--option")
        block[key] = _value(value)
    return {"policy": policy, **block} if block else {}


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, float) else value
