"""Further inputs, made from the visible tests, that tell programs apart which pass the same tests.

A call of the entry point whose arguments are literals is repeated with each argument varied a little. No right value is
known for them: programs are only compared with one another, and most of those that are right agree.
"""

import ast
import copy
from collections.abc import Iterator

MAX_PROBES = 24
_MAX_PROBE_CHARS = 4_000


def probes_of(tests: tuple[str, ...], entry_point: str | None) -> tuple[str, ...]:
    """At most `MAX_PROBES` expressions, in an order that depends on the tests alone; none without an entry point."""
    found: dict[str, None] = {}
    for call in _calls(tests, entry_point) if entry_point is not None else ():
        for position in range(len(call.args)):
            for other in _varied(call.args[position]):
                probe = copy.deepcopy(call)
                probe.args[position] = other
                text = ast.unparse(ast.fix_missing_locations(probe))
                if len(text) <= _MAX_PROBE_CHARS:
                    found.setdefault(text)
    # Evenly from all of them, so that the first test does not take every place.
    stride = max(1, -(-len(found) // MAX_PROBES))
    return tuple(list(found)[::stride])


def _calls(tests: tuple[str, ...], entry_point: str) -> Iterator[ast.Call]:
    for test in tests:
        try:
            tree = ast.parse(test)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == entry_point:
                yield node


def _varied(argument: ast.expr) -> Iterator[ast.expr]:
    try:
        value = ast.literal_eval(argument)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return
    for other in _near(value):
        yield ast.parse(repr(other), mode="eval").body


def _near(value: object) -> list[object]:
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, value - 1, 0, -value]
        case float():
            return [value + 0.5, -value, 0.0]
        case str():
            return ["", value[::-1], value + value, value[:-1]]
        case list():
            return [[], value[::-1], value + value, value[:-1]]
        case tuple():
            return [(), value[::-1], value + value, value[:-1]]
        case dict():
            return [{}, dict(list(value.items())[:-1])]
        case _:
            return []
