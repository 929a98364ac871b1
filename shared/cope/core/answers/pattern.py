"""A caller's regular expression for kind `exact`."""

import re
import warnings

MAX_PATTERN_CHARS = 1_000


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The compiled pattern. Raises `ValueError`, saying why, if it is invalid, too long or has more than one group.

    Compiling is bounded; *matching* may take exponential time and belongs where it can be killed.
    """
    if len(pattern) > MAX_PATTERN_CHARS:
        raise ValueError(f"a pattern has at most {MAX_PATTERN_CHARS} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a caller's questionable set notation is no fault of this process
            compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if compiled.groups > 1:
        raise ValueError("a pattern has at most one group")
    return compiled
