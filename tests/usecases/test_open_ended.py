"""A line of kind `open` through the whole pipeline, on the shipped in-memory adapters."""

from dataclasses import replace
from math import log
from typing import Any

from cope.core.models import ModelCatalog
from cope.core.problem import Kind, Message, Problem
from cope.core.prompts import BUILT_IN
from cope.ports.model import ChatAnswer, ChatRequest
from cope.usecases.finalise import finalise_next
from cope.usecases.worst_path import step_size, worst_path
from tests.support import make_price, make_spec
from tests.usecases.test_pipeline import (
    LARGE,
    LEASE_S,
    SMALL,
    USAGE,
    Parts,
    current,
    line,
    make_parts,
    results,
    settle,
    submit,
)


def writing(request: ChatRequest) -> ChatAnswer:
    """The small model is sure of the first turn (perplexity 1.5 down), and of the second with a guideline only."""
    last = request.messages[-1].content
    if not last.endswith("Solve.") and "Solve.\n" not in last:
        return ChatAnswer("Be brief.", "stop", USAGE, "id")
    chain = int(request.request_id[-4:-1])
    sure = "Shorter." not in last or "Guideline: " in last
    score = -log((1.5 if sure else 6.0) + chain) if request.logprobs else None
    return ChatAnswer(f"{request.model.name} {chain}", "stop", USAGE, "id", mean_logprob=score)


def open_parts() -> Parts:
    parts = make_parts(writing)
    small = replace(SMALL, logprobs="original")
    return replace(parts, catalog=ModelCatalog({"small": small, "large": LARGE}, "small", "large", BUILT_IN))


async def test_an_open_line_of_two_turns_comes_back_with_both_texts_and_its_scoring():
    parts = open_parts()
    batch = await submit(parts, line("a", kind="open", theta="2", n=3, turns=["Shorter."]))
    await settle(parts)
    assert await finalise_next(parts, lease_s=LEASE_S)
    done = await current(parts, batch)
    (row,) = await results(parts, done.output_file_id)
    body: Any = row["response"]
    cope = body["body"]["cope"]

    assert (done.done, done.failed) == (1, 0)
    assert [(turn["content"], turn["stage"]) for turn in cope["turns"]] == [("small 0", 1), ("small 0", 2)]
    assert [step["name"] for step in cope["steps"]] == [
        "stage1", "turn2/stage1", "turn2/stage2-plan", "turn2/stage2-execute",
    ]  # fmt: skip
    assert [step.get("confidence") for step in cope["steps"]] == [1.5, 6.0, None, 1.5]
    assert "sampled at temperature 0.8" in cope["steps"][3]["scoring"]
    assert cope["cost_nanousd"] == done.spent > 0
    asked = [request for request in parts.model.requests if request.logprobs]
    assert len(asked) == 9
    assert all(request.model.name == "small" for request in asked)


def test_a_quote_reserves_for_every_turn_and_for_the_longest_answers_before_it():
    spec = make_spec(Problem(Kind.OPEN, (Message("user", "Write a toast."),), turns=("Shorter.",)))
    path, price = worst_path(spec), make_price("2.5", "10")
    paid = {
        rung.longest.name: step_size(spec, rung, LARGE, BUILT_IN["instruct"], price).worst
        for rung in path
        if rung.longest.model == "large"
    }

    assert [rung.longest.name for rung in path] == [
        "stage1", "stage2-plan", "stage2-execute", "stage3",
        "turn2/stage1", "turn2/stage2-plan", "turn2/stage2-execute", "turn2/stage3",
    ]  # fmt: skip
    assert paid["turn2/stage3"] > paid["stage3"]
