"""From a solution's text to the program in it: the last fenced block that defines the entry point.

Models put examples, tests and second thoughts into further blocks, so a block is judged by what it defines, read by
the language's own parser. Where no block will do (a fence was forgotten or cut off), the longest run of lines that
parses is taken.
"""

import ast
import re
import warnings

_FENCE = re.compile(r"^[ \t]*(?P<mark>```+|~~~+)[ \t]*(?P<language>[\w+#.-]*)[^\n]*$", re.MULTILINE)
_PYTHON = frozenset({"", "python", "python3", "py", "py3", "python2"})
_BEGINS = re.compile(r"^(?:from|import|def|async|class|@|\w+\s*=)", re.MULTILINE)
_MAX_BLOCKS = 32
_MAX_LINES = 2_000
_MAX_CHARS = 40_000
_MAX_PARSED_CHARS = 400_000


def extract_program(text: str, entry_point: str | None) -> str | None:
    """The program, None where the text holds none. Among blocks that parse, the last that defines `entry_point` comes
    first, then the last that defines any function or class, then the last; where none parses, the fallback.

    Read are the last 40,000 characters; at most ten times as many go through the parser, however often it fails.
    """
    text = text[-_MAX_CHARS:]
    best: tuple[int, str] | None = None
    for block in _blocks(text):
        worth = _worth(block, entry_point)
        if worth and (best is None or worth >= best[0]):
            best = worth, block
    if best is not None and (best[0] == _DEFINES_IT or entry_point is None):
        return best[1]
    unfenced = _longest_that_parses(_FENCE.sub("", text), entry_point)
    if unfenced is not None and (best is None or _worth(unfenced, entry_point) == _DEFINES_IT):
        return unfenced
    return best[1] if best is not None else None


_PARSES, _DEFINES_SOMETHING, _DEFINES_IT = 1, 2, 3


def _worth(block: str, entry_point: str | None) -> int:
    tree = _parsed(block)
    if tree is None or not tree.body:
        return 0
    names = _defined(tree)
    if entry_point is not None and entry_point in names:
        return _DEFINES_IT
    return _DEFINES_SOMETHING if names else _PARSES


def _defined(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a model's string is no concern of ours
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _blocks(text: str) -> list[str]:
    """The fenced blocks in order, without the fences. A last fence that is never closed runs to the end."""
    blocks: list[str] = []
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence["language"]:  # such a fence opens, so the one before was never closed, or is a stray
            if opened["language"].lower() in _PYTHON - {""}:
                blocks.append(_dedented(text[opened.end() + 1 : fence.start()]))
            opened = fence
        elif fence["mark"].startswith(opened["mark"]):
            if opened["language"].lower() in _PYTHON:
                blocks.append(_dedented(text[opened.end() + 1 : fence.start()]))
            opened = None
    if opened is not None and opened["language"].lower() in _PYTHON:
        blocks.append(_dedented(text[opened.end() + 1 :]))
    return blocks[-_MAX_BLOCKS:]


def _dedented(block: str) -> str:
    """Without the indentation that a list item gives to every line."""
    lines = block.split("\n")
    margin = min((len(line) - len(line.lstrip(" ")) for line in lines if line.strip()), default=0)
    return "\n".join(line[margin:] for line in lines).strip("\n")


def _longest_that_parses(text: str, entry_point: str | None) -> str | None:
    """From a line that can begin a program, as far down as it parses: prose before and after is left out.

    Each failed parse says on which line it stumbled, so few tries are needed; both ends are bounded.
    """
    lines = text.split("\n")[-_MAX_LINES:]
    starts = [i for i, line in enumerate(lines) if _BEGINS.match(line)]
    best: tuple[int, int, str] | None = None
    parsed_chars, covered = 0, -1
    for start in starts:
        if start <= covered:
            continue
        end = len(lines)
        while end > start and parsed_chars < _MAX_PARSED_CHARS:
            code = "\n".join(lines[start:end]).strip("\n")
            parsed_chars += len(code) + 100
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    ast.parse(code)
            except SyntaxError as error:
                end = min(end - 1, start + max((error.lineno or 1) - 1, 0))
            except (ValueError, RecursionError, MemoryError):
                break
            else:
                worth = _worth(code, entry_point)
                if worth > _PARSES and (best is None or (worth, end - start) > best[:2]):
                    best = worth, end - start, code
                covered = end - 1
                break
    return None if best is None else best[2]
