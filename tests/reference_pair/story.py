"""An independent reader of the stories: what is checked here shares no code with the generator."""

import re
from collections.abc import Callable


def _parted(have: int, parts: int) -> int:
    whole, rest = divmod(have, parts)
    if rest:
        raise ValueError(f"{have} things make no {parts} equal parts")
    return whole


_CHANGES: tuple[tuple[re.Pattern[str], Callable[[int, int], int]], ...] = (
    (re.compile(r"^\S+ (?:buys|finds) (\d+)"), lambda have, x: have + x),
    (re.compile(r"^.+ gives [A-Z]\w+ (\d+) \w+$"), lambda have, x: have + x),
    (re.compile(r"^\S+ gives (\d+) away$"), lambda have, x: have - x),
    (re.compile(r"^\S+ loses (\d+)"), lambda have, x: have - x),
    (re.compile(r"^(\d+) of the \w+ break$"), lambda have, x: have - x),
    (re.compile(r"^(?:the \w+ become|\S+ gets) (\d+) times as many$"), lambda have, x: have * x),
    (re.compile(r"keeps only one part of (\d+)$"), _parted),
    (re.compile(r"^only one in (\d+) of the \w+ is left$"), _parted),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ON_A_DAY = re.compile(r"^On (\w+day) (.+)$")
_START = re.compile(r"(?:^\S+ starts with|^At first \S+ has) (\d+)")
_END = re.compile(r"(?:^In the end \S+ has|^Now there are) (\d+)")


def fits(text: str, answer: int) -> bool:
    """Whether `answer` solves the story, by living through it in the order told."""
    sentences = [s.strip() for s in re.split(r"[.?]", text) if s.strip()]
    start = next((int(m.group(1)) for s in sentences if (m := _START.search(s))), None)
    end = next((int(m.group(1)) for s in sentences if (m := _END.search(s))), None)
    assert (start is None) != (end is None), "a story tells its start or its end"
    have = answer if start is None else start
    told = [found.groups() for s in sentences if (found := _ON_A_DAY.match(s))]
    assert [day for day, _ in told] == list(_DAYS[: len(told)]), "the days follow each other, from Monday"
    for _, happened in told:
        change, x = next((c, int(m.group(1))) for pattern, c in _CHANGES if (m := pattern.search(happened)))
        have = change(have, x)
    return have == (answer if end is None else end)


def follow(guideline: str) -> int:
    """What a guideline leads to, read literally."""
    first, *rest = guideline.rstrip(".").split(", ")
    value = int(re.fullmatch(r"(?:Start from|Work back from) (\d+)", first)[1])  # type: ignore[index]
    for part in rest:
        word, number = re.fullmatch(r"\w+day (add|subtract|multiply by|divide by) (\d+)", part).groups()  # type: ignore[union-attr]
        x = int(number)
        match word:
            case "add":
                value += x
            case "subtract":
                value -= x
            case "multiply by":
                value *= x
            case _:
                value = _parted(value, x)
    return value
