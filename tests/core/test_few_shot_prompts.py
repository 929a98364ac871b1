"""Few-shot prompt sets: the examples stand before the problem, count in the version, and are billed like every word."""

from dataclasses import replace
from pathlib import Path

import pytest

from cope.adapters.answer_helper import in_process_judge
from cope.catalog import load_catalog
from cope.core.answers import Keyed, extract, quick_key
from cope.core.answers.program import printed_value, printing, program_answer, program_of
from cope.core.answers.programs import extract_program
from cope.core.errors import AnswerHelperUnavailable, Misconfigured
from cope.core.plans import GuidelinePlan
from cope.core.problem import Kind, Message, Problem
from cope.core.prompts import (
    BUILT_IN,
    COT1,
    COT2,
    INSTRUCT,
    POT1,
    POT2,
    REFERENCE,
    render_executor,
    render_guideline_planner,
)
from cope.settings import Settings
from tests.support import make_problem

FEW_SHOT = (COT1, COT2, POT1, POT2)


def test_examples_are_turns_between_the_system_message_and_the_conversation():
    messages = render_executor(COT1, make_problem("What is 2 + 3?"))

    assert [message.role for message in messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert messages[1].content.startswith("A baker fills 6 trays")
    assert messages[2].content.endswith("\\boxed{25}")
    asked = COT1.kinds[Kind.MATH].executor
    assert messages[-1].content == f"What is 2 + 3?\n\n{asked}"
    assert messages[1].content.endswith(asked)  # an example looks as the problem itself does


def test_a_callers_system_message_and_plans_keep_their_places():
    problem = Problem(Kind.MATH, (Message("system", "Be brief."), Message("user", "2 + 3?")))
    messages = render_executor(COT1, problem, guideline=GuidelinePlan("Add."))

    assert messages[0].content.endswith("Be brief.")
    assert messages[-1].content.endswith("Guideline: Add.")
    assert len(messages) == 8


def test_examples_of_kind_choice_have_options_of_their_own():
    messages = render_executor(COT2, Problem(Kind.CHOICE, (Message("user", "Is it?"),), ("yes", "no")))

    assert "- it warms\n- it cools\n- nothing" in messages[1].content
    assert "- yes\n- no" in messages[-1].content


def test_planners_see_no_examples():
    assert len(render_guideline_planner(COT1, make_problem())) == 2


def test_every_word_of_an_example_is_in_the_version_and_sets_without_examples_keep_theirs():
    (first, *rest) = COT1.shots[Kind.MATH]
    changed = replace(COT1, shots={**COT1.shots, Kind.MATH: (replace(first, solution="?"), *rest)})

    assert changed.version(Kind.MATH) != COT1.version(Kind.MATH)
    assert len({prompts.version(Kind.MATH) for prompts in BUILT_IN.values()}) == len(BUILT_IN) == 6
    assert replace(INSTRUCT, shots={}).version(Kind.MATH) == INSTRUCT.version(Kind.MATH)
    assert replace(POT1, programs=False).version(Kind.MATH) != POT1.version(Kind.MATH)


def test_a_set_that_learns_a_kind_keeps_its_versions_for_those_it_knew():
    before = replace(INSTRUCT, kinds={kind: INSTRUCT.kinds[kind] for kind in (Kind.MATH, Kind.CHOICE, Kind.EXACT)})

    assert INSTRUCT.version(Kind.MATH) == before.version(Kind.MATH) == before.version(Kind.EXACT)
    assert len({INSTRUCT.version(kind) for kind in INSTRUCT.kinds}) == 4
    assert REFERENCE.version(Kind.MATH) == "reference-1-f7b19990413e"  # as it was before kind `open`


@pytest.mark.parametrize("prompts", [COT1, COT2])
def test_every_example_of_a_cot_set_states_an_answer_that_can_be_read(prompts):
    for kind, shots in prompts.shots.items():
        for shot in shots if kind is not Kind.CODE else ():
            stated = extract(Problem(kind, (Message("user", shot.problem),), shot.choices), shot.solution)
            assert stated is not None, shot.problem
            assert isinstance(quick_key(kind, stated), Keyed)


@pytest.mark.parametrize("prompts", [COT1, COT2])
def test_every_example_of_kind_code_is_a_program_that_passes_the_test_it_was_shown(prompts):
    for shot in prompts.shots[Kind.CODE]:
        names: dict[str, object] = {}
        exec(str(extract_program(shot.solution, None)), names)  # our own examples, written in this repository
        exec(shot.problem.splitlines()[-1], names)


def test_the_tests_of_the_task_itself_are_not_shown_with_an_example():
    asked = Problem(Kind.CODE, (Message("user", "Double it."),), tests=("assert f(2) == 4",), entry_point="f")

    messages = render_executor(COT1, asked)

    assert ["assert f(2) == 4" in message.content for message in messages] == [False] * 5 + [True]
    assert not any("{tests}" in message.content or "{entry_point}" in message.content for message in messages)


@pytest.mark.parametrize(("prompts", "values"), [(POT1, ("92", "165", "47")), (POT2, ("12", "204.0", "1/4"))])
def test_every_example_of_a_pot_set_computes_the_right_answer(prompts, values):
    for shot, value in zip(prompts.shots[Kind.MATH], values, strict=True):
        names: dict[str, object] = {}
        exec(shot.solution, names)  # our own examples, written in this repository
        assert str(names["ans"]) == value, shot.problem


# ---- programs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("ans = 2 + 3", "ans = 2 + 3"),
        ("Here it is:\n```python\nans = 5\n```\nDone.", "ans = 5\n"),
        ("```\nans = 1\n```\nno:\n```py\nans = 2\n```", "ans = 2\n"),
        ("```python\nans = 5\n```\nIt prints\n```\n5\n```", "ans = 5\n"),
        ("```python\nx = 5\n```", "x = 5\n"),
        ("  \n", None),
    ],
)
def test_the_program_is_the_last_block_that_sets_the_answer(text: str, program: str | None):
    assert program_of(text) == program


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("18", "18"),
        ("18.0", "18"),
        ("109.00000000000001", "109"),
        ("0.30000000000000004", "0.3"),
        ("0.6666666666666666", "0.666666666667"),
        ("-2.5", "-2.5"),
        ("1e+16", "10000000000000000"),
        ("1e-07", "0.0000001"),
        ("123456789012345678", "123456789012345678"),
        ("1/3", "1/3"),
        ("[1, 2]", "[1, 2]"),
        ("None", None),
        ("nan", None),
        ("-inf", None),
        (" ", None),
    ],
)
def test_what_a_program_computed_is_an_answer_without_the_noise_of_floats(value: str, answer: str | None):
    assert program_answer(value) == answer


@pytest.mark.parametrize(
    ("program", "value"),
    [
        ("ans = 6 * 7", "42"),
        ("print('thinking')\nprint(1)\nans = 'x = 2'", "x = 2"),
        ("def f():\n    return 5\n\nans = f()  # five", "5"),
    ],
)
def test_a_runner_of_scripts_gives_the_value_back_behind_what_else_was_printed(
    program: str, value: str, capsys: pytest.CaptureFixture[str]
):
    exec(printing(program), {})  # literal programs of this test

    assert printed_value(capsys.readouterr().out) == value


def test_a_script_that_printed_no_value_has_none():
    assert printed_value("42\n") is None


class Computes:
    """A `ProgramValues` that knows the values of a few programs; any other fails."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values

    async def value_of(self, program: str, variable: str) -> str | None:
        return self.values.get(program) if variable == "ans" else None


async def test_the_judge_reads_a_program_by_what_it_computes():
    judge = in_process_judge(programs=Computes({"ans = 2 * 9": "18", "ans = 36 / 2": "18.0", "ans = w": "None"}))
    texts = ["ans = 2 * 9", "ans = 36 / 2", "ans = w", "ans = 1 / 0", ""]

    first, second, *others = await judge.judge(make_problem(), texts, programs=True)

    assert (first.answer, first.key) == (second.answer, second.key)
    assert first.answer == "18"
    assert [(one.answer, one.key) for one in others] == [(None, None)] * 3


async def test_without_a_runner_no_answer_is_made_up():
    with pytest.raises(AnswerHelperUnavailable, match="nothing that runs them"):
        await in_process_judge().judge(make_problem(), ["ans = 2"], programs=True)


# ---- files ----------------------------------------------------------------------------------------------------------

MODELS = (
    '[[model]]\nname = "s"\nbase_url = "http://s/v1"\ntier = "small"\ncontext_length = 4096\n'
    '[[model]]\nname = "l"\nbase_url = "http://l/v1"\ntier = "paid"\ncontext_length = 4096\nprice_id = "gpt-4o"\n'
)
PROMPTS = """[mine]
revision = "1"
system = ""
goal_label = "G: "
guideline_label = "P: "
separator = "\\n"
programs = true
[mine.kinds.math]
goal_planner = "Goal?"
guideline_planner = "Guideline?"
executor = "Program!"
[[mine.shots.math]]
problem = "1 + 1?"
solution = "ans = 1 + 1"
"""
SCORER = (
    '{"format": "cope-scorer/1", "name": "n", "version": "1", "last": "l", "tiers": [{"model": "s", "bias": 0.5, '
    '"weights": {"hedges": -1}, "threshold": "0.25"}]}'
)


def settings(tmp_path: Path, *, prompts: str = PROMPTS, scorers: dict[str, str] | None = None) -> Settings:
    (tmp_path / "models.toml").write_text(MODELS)
    (tmp_path / "prompts.toml").write_text(prompts)
    (tmp_path / "scorers").mkdir()
    for name, text in (scorers or {}).items():
        (tmp_path / "scorers" / name).write_text(text)
    return Settings(
        models_file=tmp_path / "models.toml",
        prompts_file=tmp_path / "prompts.toml",
        scorers_dir=tmp_path / "scorers",
    )


def test_without_sandboxes_no_programs_are_run(tmp_path: Path):
    assert not load_catalog(settings(tmp_path).model_copy(update={"sandbox_processes": 0})).runs_programs


def test_users_bring_few_shot_sets_and_scorers_by_file(tmp_path: Path):
    catalog = load_catalog(settings(tmp_path, scorers={"n.json": SCORER, "notes.txt": "not one"}))

    mine = catalog.prompt_sets["mine"]
    assert [shot.solution for shot in mine.shots[Kind.MATH]] == ["ans = 1 + 1"]
    assert mine.programs
    assert list(catalog.scorers) == ["n"]
    assert catalog.runs_programs


@pytest.mark.parametrize(
    ("prompts", "scorers", "said"),
    [
        (PROMPTS.replace("shots.math", "shots.choice"), {}, "there are shots for kind 'choice', and no prompts"),
        (PROMPTS, {"a.json": "{}"}, "a.json: `format` must be"),
        (PROMPTS, {"a.json": "{"}, "a.json"),
        (PROMPTS, {"a.json": SCORER, "b.json": SCORER}, "another scorer named 'n'"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start_with_its_name(
    tmp_path: Path, prompts: str, scorers: dict[str, str], said: str
):
    with pytest.raises(Misconfigured, match=said):
        load_catalog(settings(tmp_path, prompts=prompts, scorers=scorers))
