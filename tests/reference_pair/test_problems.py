"""The generator: same problems every time, held out by numbers, answers true."""

import json
import random
import re
from itertools import islice
from pathlib import Path

import examples
import problems
import pytest
import sample

from cope.core.problem import Message
from tests.reference_pair.story import fits, follow

FOLDER = Path(problems.__file__).parent


def many(held_out: bool, count: int = 700) -> list[problems.Problem]:
    rng = random.Random("tests")
    return [problems.make(rng, problems.LEVELS[i % 7], held_out=held_out) for i in range(count)]


def numbers(problem: problems.Problem) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Start and operations in the order told."""
    if not problem.backward:
        return problem.known, problem.steps
    inverse = {"+": "-", "-": "+", "*": "/", "/": "*"}
    return problem.answer, tuple((inverse[op], x) for op, x in reversed(problem.steps))


def test_equal_seeds_give_equal_problems() -> None:
    assert many(False, 50) == many(False, 50)


def test_a_known_seed_gives_this_very_problem_on_every_machine() -> None:
    problem = problems.make(random.Random(1), 2, held_out=False)
    assert problem.text == (
        "At first Paul has 6 lamps. On Monday the lamps become 2 times as many. A cousin is 24 years old. "
        "On Tuesday Paul loses 3 lamps. How many lamps does Paul have in the end?"
    )
    assert problem.question == "How many lamps does Paul have in the end?"
    assert problem.goal == "Find how many lamps Paul has in the end."
    assert problem.goals[0] == problem.goal
    assert problem.guideline == "Start from 6, Monday multiply by 2, Tuesday subtract 3."
    assert problem.terse() == r"Monday 6 * 2 = 12; Tuesday 12 - 3 = 9. \boxed{9}"
    assert problem.answer == 9


@pytest.mark.parametrize("held_out", [True, False])
def test_every_answer_solves_its_story_when_the_story_is_lived_through(held_out: bool) -> None:
    for problem in many(held_out):
        assert fits(problem.text, problem.answer), problem.text


def test_an_answer_that_is_off_by_one_does_not_solve_a_forward_story() -> None:
    forward = [p for p in many(held_out=True) if not p.backward]
    assert not any(fits(p.text, p.answer + 1) for p in forward)


def test_every_guideline_leads_to_the_answer() -> None:
    for problem in many(held_out=True):
        assert follow(problem.guideline) == problem.answer


def test_every_equation_of_both_ways_of_writing_is_true_and_the_box_holds_the_answer() -> None:
    for problem in many(held_out=True):
        for solution in (problem.terse(), problem.verbose()):
            equations = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", solution)
            assert len(equations) == problem.level
            for left, op, right, result in equations:
                a, b = int(left), int(right)
                assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[op] == int(result)
            assert solution.endswith(rf"\boxed{{{problem.answer}}}")


def test_the_large_models_way_of_writing_is_the_longer_one() -> None:
    assert all(len(p.verbose()) > 1.3 * len(p.terse()) for p in many(held_out=True, count=70))


def test_stories_of_all_levels_are_told_forward_and_backward_with_and_without_distraction() -> None:
    told = many(held_out=True)
    assert {(p.level, p.backward) for p in told} == {(level, b) for level in range(1, 8) for b in (True, False)}
    sentences = [p.text.count(".") + p.text.count("?") - p.level for p in told]
    assert len(set(sentences)) > 2


def test_no_held_out_combination_of_numbers_is_ever_trained_on() -> None:
    for problem in many(held_out=True):
        assert problems.is_held_out(*numbers(problem))
    for problem in many(held_out=False):
        assert not problems.is_held_out(*numbers(problem))


@pytest.mark.parametrize("which", ["small", "large"])
def test_training_never_shows_a_story_of_the_benchmark_or_the_sample(which: str) -> None:
    kept = {p.text for p in examples.benchmark(700)} | {str(row["problem"]) for row in sample.rows()}
    for messages, _ in islice(examples.stream(which, seed=0, drawn=10**9), 2_000):
        assert not any(messages[-1].content.startswith(text) for text in kept)


def test_a_tenth_of_the_combinations_is_held_out() -> None:
    rng = random.Random(5)
    share = sum(problems.is_held_out(rng.randint(2, 40), (("+", i),)) for i in range(5_000)) / 5_000
    assert 0.08 < share < 0.12


def test_the_benchmark_holds_each_level_equally_often() -> None:
    levels = [p.level for p in examples.benchmark(70)]
    assert all(levels.count(level) == 10 for level in problems.LEVELS)


def test_the_committed_sample_is_what_the_generator_gives() -> None:
    lines = (FOLDER / "sample_problems.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows == sample.rows()
    assert len({row["id"] for row in rows}) == 64
    assert all(fits(row["problem"], int(row["answer"])) for row in rows if row["level"] != sample.FOREIGN_LEVEL)
    assert [row["level"] for row in rows].count(sample.FOREIGN_LEVEL) == 4


def test_the_curriculum_starts_with_short_stories_and_ends_with_all() -> None:
    def longest(drawn: int) -> int:
        return max(len(m[-1].content) for m, _ in islice(examples.stream("large", 3, drawn), 300))

    assert longest(0) < longest(10_000) < longest(10**6)


def test_a_problem_becomes_one_user_message() -> None:
    problem = many(held_out=True, count=1)[0]
    assert examples.as_task(problem).conversation == (Message("user", problem.text),)
