"""What no JSON from outside may hold, wherever it stands: deep nesting, NUL, and (in bodies) a key given twice.

Looked for once, at the edge: behind it a deep value would end in somebody's recursion limit, NUL in an error of the
database, and of two equal keys one would win without a word. The usual text pays for a few counts of bytes only.
"""

import re

from cope.core.errors import BadRequest

MAX_DEPTH = 64
_LONGEST_COUNTED = 1024 * 1024  # in more than that, looking would hold the server's other callers up
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')


def check_json(raw: bytes, value: object, *, unique_keys: bool = True) -> None:
    """`value` is what `raw` was read as, and read well: this does not parse. Raises `BadRequest` naming the place."""
    nul, deep = b"\\u0000" in raw, raw.count(b"[") + raw.count(b"{") > MAX_DEPTH
    unique_keys = unique_keys and len(raw) <= _LONGEST_COUNTED
    if not (nul or deep or unique_keys):
        return
    pairs = _walk(value, nul=nul)
    # A colon outside strings stands between every key and its value, so more of them than pairs were read means that
    # a later pair has replaced an earlier one.
    if unique_keys and raw.count(b":") > pairs and _STRINGS.sub(b"", raw).count(b":") > pairs:
        raise BadRequest(
            "An object in the body has the same key twice: it can't be told which is meant.", code="duplicate_key"
        )


def _walk(root: object, *, nul: bool) -> int:
    """The number of pairs in all objects. Without recursion: the depth is what is being looked for."""
    pairs = 0
    stack: list[tuple[object, str, int]] = [(root, "", 1)]
    while stack:
        item, place, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise BadRequest(f"The JSON is nested deeper than {MAX_DEPTH} levels.", code="too_deep")
        if isinstance(item, dict):
            pairs += len(item)
            for key, inner in item.items():
                if nul and "\x00" in key:
                    raise _nul(f"a key of {place or 'the body'}", place)
                if isinstance(inner, (dict, list)):
                    stack.append((inner, f"{place}.{key}" if place else key, depth + 1))
                elif nul and isinstance(inner, str) and "\x00" in inner:
                    raise _nul(f"{place}.{key}" if place else key, f"{place}.{key}" if place else key)
        elif isinstance(item, list):
            for at, inner in enumerate(item):
                if isinstance(inner, (dict, list)):
                    stack.append((inner, f"{place}[{at}]", depth + 1))
                elif nul and isinstance(inner, str) and "\x00" in inner:
                    raise _nul(f"{place}[{at}]", f"{place}[{at}]")
    return pairs


def _nul(where: str, param: str) -> BadRequest:
    return BadRequest(
        f"`{where}` holds the character NUL (\\u0000), which can't be stored: remove it.", param=param or None
    )
