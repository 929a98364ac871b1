"""What is shipped: sizes, standard form, tokenizer and chat template. No torch here."""

import json
import struct
from pathlib import Path
from typing import Any

import examples
import jinja2
import problems
import pytest
import tokenizer as own
from tokenizers import Tokenizer

from cope.core.plans import GoalPlan, GuidelinePlan
from cope.core.problem import Message
from cope.core.prompts import REFERENCE, render_executor, render_goal_planner, render_guideline_planner

WEIGHTS = Path(problems.__file__).parent / "weights"
MEBI = 2**20
BOTH = pytest.mark.parametrize("which", ["small", "large"])


def loaded(which: str) -> Tokenizer:
    return Tokenizer.from_file(str(WEIGHTS / which / "tokenizer.json"))


def settings(which: str, name: str) -> dict[str, Any]:
    return json.loads((WEIGHTS / which / name).read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize(("which", "most"), [("small", 3 * MEBI), ("large", 12 * MEBI)])
def test_each_form_of_each_model_stays_within_its_size(which: str, most: int) -> None:
    assert sum(p.stat().st_size for p in (WEIGHTS / which).glob("*") if p.is_file()) <= most
    assert sum(p.stat().st_size for p in (WEIGHTS / which / "ctranslate2").glob("*")) <= most


@BOTH
def test_the_configuration_is_a_standard_llama_with_a_context_of_1024(which: str) -> None:
    config = settings(which, "config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] == 1024
    assert config["head_dim"] == 64
    assert config["eos_token_id"] == loaded(which).token_to_id(own.END)
    assert config["vocab_size"] == loaded(which).get_vocab_size() == 1024


@BOTH
def test_every_tensor_of_the_safetensors_file_is_bfloat16_and_inside_the_file(which: str) -> None:
    data = (WEIGHTS / which / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    assert {entry["dtype"] for entry in tensors.values()} == {"BF16"}
    assert max(entry["data_offsets"][1] for entry in tensors.values()) == len(data) - 8 - length
    assert tensors["model.embed_tokens.weight"]["shape"] == [1024, settings(which, "config.json")["hidden_size"]]


@BOTH
@pytest.mark.parametrize(
    "text",
    [
        "12 plus 345",
        "Ünïcödé, 漢字, Кириллица, 🙂\n\tTabs",
        "",
        "\\frac{1}{2} \\boxed{-3}",
        "\x00\x7f \r\n  two spaces",
    ],
)
def test_any_text_comes_back_byte_for_byte(which: str, text: str) -> None:
    tokenizer = loaded(which)
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@BOTH
def test_every_number_of_the_stories_is_one_piece(which: str) -> None:
    tokenizer = loaded(which)
    for number in range(1, problems.LARGEST + 1):
        assert len(tokenizer.encode(f" {number}").ids) == len(tokenizer.encode(f"{{{number}}}").ids) - 2 == 1


def test_a_story_with_plans_and_solution_stays_well_under_256_tokens() -> None:
    tokenizer = loaded("small")
    for p in examples.benchmark(140):
        prompt = render_executor(REFERENCE, examples.as_task(p), guideline=GuidelinePlan(p.guideline))
        assert len(tokenizer.encode(own.prompt_text(prompt)).ids) + len(tokenizer.encode(p.verbose()).ids) < 300
        both = render_executor(
            REFERENCE, examples.as_task(p), goal=GoalPlan(p.goal), guideline=GuidelinePlan(p.guideline)
        )
        assert len(tokenizer.encode(own.prompt_text(both)).ids) + len(tokenizer.encode(p.terse()).ids) < 256


@BOTH
def test_the_chat_template_renders_exactly_what_training_saw(which: str) -> None:
    template = jinja2.Environment(autoescape=False).from_string(
        settings(which, "tokenizer_config.json")["chat_template"]
    )
    conversations = [
        (Message("system", "Be brief."), Message("user", "Hello?")),
        (Message("user", "a"), Message("assistant", "b"), Message("user", "c")),
        (Message("developer", "x"), Message("user", "y")),
    ]
    for messages in conversations:
        given = [{"role": m.role, "content": m.content} for m in messages]
        assert template.render(messages=given, add_generation_prompt=True) == own.prompt_text(messages)


def test_training_prompts_are_the_products_own_forms() -> None:
    problem = examples.benchmark(1)[0]
    task, text = examples.as_task(problem), problem.text
    goal, guideline = GoalPlan("G."), GuidelinePlan("U.")
    assert render_goal_planner(REFERENCE, task) == (Message("user", f"{text}\nGoal?"),)
    assert render_guideline_planner(REFERENCE, task) == (Message("user", f"{text}\nGuideline?"),)
    assert render_executor(REFERENCE, task) == (Message("user", f"{text}\nSolve."),)
    assert render_executor(REFERENCE, task, goal=goal, guideline=guideline) == (
        Message("user", f"{text}\nSolve.\nGoal: G.\nGuideline: U."),
    )


@BOTH
def test_everything_a_model_is_trained_on_ends_in_one_of_those_forms(which: str) -> None:
    source = examples.stream(which, seed=4, drawn=10**9)
    endings = ("\nGoal?", "\nGuideline?", "\nSolve.")
    for _ in range(300):
        (message,), target = next(source)
        assert message.role == "user"
        asked = message.content
        assert asked.endswith(endings) or "\nSolve.\nGoal: " in asked or "\nSolve.\nGuideline: " in asked
        assert target
