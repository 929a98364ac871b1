"""The program in a solution: the last fenced block that defines the entry point, else the longest text that parses."""

import pytest

from cope.core.answers.programs import extract_program

ADD = "def add(a, b):\n    return a + b"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (f"Sure:\n```python\n{ADD}\n```\nDone.", ADD),
        (f"```\n{ADD}\n```", ADD),
        (f"~~~py\n{ADD}\n~~~", ADD),
        (f"```python\ndef add(a, b): return 0\n```\nBetter:\n```python\n{ADD}\n```", ADD),
        (f"```python\n{ADD}\n```\nUse it so:\n```python\nprint(add(1, 2))\n```", ADD),
        (f"```python\n{ADD}\n```\nA test:\n```python\ndef test(): assert add(1, 2) == 3\n```", ADD),
        (f"```bash\npip install x\n```\n```python\n{ADD}\n```\n```text\n3\n```", ADD),
        ("1. So:\n   ```python\n   def add(a, b):\n       return a + b\n   ```", ADD),
        (f"```python\n{ADD}", ADD),
        (f"```python\n{ADD}\n```python\nprint(add(1, 2))\n```", ADD),
        (f"{ADD}\n\nThis adds the two numbers.", ADD),
        (f"Here is the function you asked for.\n\n{ADD}\n\nIt's simple: it adds.", ADD),
        (f"```python\n{ADD}\n\ndef unfinished(a:\n    for x in", ADD),
        ("```python\nadd = lambda a, b: a + b\n```", "add = lambda a, b: a + b"),
        ("```python\nclass add:\n    pass\n```", "class add:\n    pass"),
        (
            f'```python\n"""A docstring with a ``` inside."""\n{ADD}\n```',
            f'"""A docstring with a ``` inside."""\n{ADD}',
        ),
    ],
)
def test_the_program_that_defines_the_entry_point_is_found(text: str, program: str) -> None:
    assert extract_program(text, "add") == program


def test_where_no_block_defines_the_entry_point_the_last_that_defines_anything_is_taken() -> None:
    text = f"```python\nx = 1\n```\n```python\ndef plus(a, b): return a + b\n```\n```python\nprint(3)\n```\n{ADD[:3]}"
    assert extract_program(text, "add") == "def plus(a, b): return a + b"


def test_code_outside_the_fences_is_preferred_where_only_it_defines_the_entry_point() -> None:
    assert extract_program(f"```python\nprint(add(1, 2))\n```\n\n{ADD}\n", "add") == ADD


def test_without_an_entry_point_the_last_block_with_a_definition_is_taken() -> None:
    assert extract_program(f"```python\n{ADD}\n```\n```python\nprint(add(1, 2))\n```", None) == ADD


@pytest.mark.parametrize("text", ["", "I can't do that.", "```python\n```", "```\nnot ( python\n```", "x, y and z"])
def test_text_without_a_program_has_none(text: str) -> None:
    assert extract_program(text, "add") is None


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "-" * 100_000 + "1",
        "not " * 30_000 + "1",
        "lambda: " * 20_000,
        "a = " * 20_000 + "1",
        "```python\n" * 10_000,
        "def f(:\n" * 10_000,
        "x = '\\d'\nx = (\n" * 5_000,
        "f'{" * 20_000,
        "if 1:\n" + "".join(" " * i + "if 1:\n" for i in range(1, 200)),
    ],
)
def test_hostile_text_raises_nothing_and_hangs_nobody(text: str) -> None:
    found = extract_program(text, "add")
    assert found is None or found in text
