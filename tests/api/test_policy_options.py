"""The baselines through the API with the stock client, and through the command line."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import typer
from openai import OpenAI

from cope_cli.options import options_of
from tests.api.whole import KEY, Whole, whole_service

ASKED = [{"role": "user", "content": "2 + 3?"}]
COT = {"prompt_sets": ["cot1", "cot2"], "n": 4}


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_service() as running:
        yield running


@pytest.fixture
def client(whole: Whole) -> OpenAI:
    return OpenAI(base_url=whole.url, api_key=KEY, max_retries=0)


@pytest.mark.parametrize(
    ("model", "cope", "policy", "steps"),
    [
        ("cascade-vote@0.5", COT, "cascade-vote", ["set1", "set2"]),
        ("large", {**COT, "policy": "cascade-verify"}, "cascade-verify", ["set1", "set2"]),
        ("abc", {"samples_per_model": 3}, "abc", ["tier1"]),
        (
            "plan-execute",
            {"plan": "guideline", "planner": "small", "executor": "large"},
            "plan-execute",
            ["plan", "solve"],
        ),
        ("large-plan", {}, "large-plan", ["plan", "solve"]),
        ("small", {"policy": "small-guided", "n": 2}, "small-guided", ["plan", "execute"]),
    ],
)
def test_a_live_call_names_its_policy_in_model_or_in_the_block(
    client: OpenAI, model: str, cope: dict[str, object], policy: str, steps: list[str]
):
    answer = client.chat.completions.create(model=model, messages=ASKED, extra_body={"cope": cope})  # type: ignore[arg-type]
    told = answer.model_extra["cope"]  # type: ignore[index]

    assert (told["policy"], told["answer"]) == (policy, "5")
    assert [step["name"] for step in told["steps"]] == steps


@pytest.mark.parametrize(
    ("model", "cope", "param", "code"),
    [
        ("cope", {"tiers": [["small"], ["large"]]}, "cope.tiers", "invalid_value"),
        ("cascade-vote", {"prompt_sets": ["cot1", "pot1"]}, "cope.prompt_sets", "program_runner_not_configured"),
        ("abc", {"tiers": [["small"], ["nobody"]]}, "cope.tiers[1]", "model_not_found"),
        ("frugalgpt", {}, "cope.scorer", "invalid_value"),
    ],
)
def test_what_cannot_be_is_refused_by_name(client: OpenAI, model: str, cope: dict[str, object], param: str, code: str):
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=model, messages=ASKED, extra_body={"cope": cope})  # type: ignore[arg-type]

    assert (refusal.value.param, refusal.value.code) == (param, code)


def test_the_policies_are_among_the_models(client: OpenAI):
    named = {model.id for model in client.models.list()}

    assert {"cascade-vote", "cascade-verify", "abc", "frugalgpt", "plan-execute", "large-plan", "small-guided"} <= named


def test_the_command_line_gives_a_policy_its_options(whole: Whole, tmp_path: Path):
    (tmp_path / "problems.csv").write_text('id,problem\na,"2 + 3?"\n')
    command = [
        sys.executable,
        "-m",
        "cope_cli.main",
        "--base-url",
        whole.url,
        "--api-key",
        KEY,
        "submit",
        "problems.csv",
    ]
    options = [
        "--policy",
        "abc",
        "-o",
        'tiers=[["small"],["large"]]',
        "-o",
        "samples_per_model=2",
        "-o",
        "agreement=0.5",
        "--stop",
        "off",
        "--cache",
        "read",
    ]

    done = subprocess.run(
        [*command, *options, "--watch", "--json"], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
    )
    wrong = subprocess.run(
        [*command, "--policy", "abc", "-o", "tau2=0.5"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )
    wrong_flag = subprocess.run(
        [*command, "--policy", "abc", "--waves", "6,2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["request_counts"]["completed"] == 1
    assert wrong.returncode == 2
    assert "cope.tau2" in wrong.stderr
    assert wrong_flag.returncode == 2
    assert "--waves" in wrong_flag.stderr


def test_options_are_json_or_text_and_amounts_stay_text():
    given = ["n=8", 'tiers=[["a"],["b"]]', "tau1=0.75", "scorer=gsm8k", "prompt_set=cot1"]

    assert options_of(given, "abc") == {
        "policy": "abc",
        "n": 8,
        "tiers": [["a"], ["b"]],
        "tau1": "0.75",
        "scorer": "gsm8k",
        "prompt_set": "cot1",
    }
    assert options_of([], "abc") == options_of(None, "abc") == {}
    for wrong in (["n"], ["=8"], ["n=8", "n=9"]):
        with pytest.raises(typer.BadParameter):
            options_of(wrong, "abc")
