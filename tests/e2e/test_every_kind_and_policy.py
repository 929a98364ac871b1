"""Every kind under every policy that serves it in one batch, by the command line and live, on real servers, with
programs in the sandbox."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from cope_local.children import free_port
from cope_local.stack import Stack
from tests.faults.stand_in import StandIn

pytestmark = [pytest.mark.integration, pytest.mark.e2e, pytest.mark.timeout(300)]

SMALL, LARGE = "stand-in-small", "stand-in-large"
OPTIONS: dict[str, dict[str, Any]] = {
    "abc": {"tiers": [[SMALL], [LARGE]]},
    "frugalgpt": {"scorer": "sure"},
    "plan-execute": {"plan": "guideline"},
}
VOTES = {"cope", "cope-s2", "small-majority", "cascade-vote", "cascade-verify", "abc", "small-guided"}
ALONE = {"small", "large", "frugalgpt", "plan-execute", "large-plan"}
SERVED = {
    "math": VOTES | ALONE,
    "choice": VOTES | ALONE,
    "exact": VOTES | ALONE,
    "code": (VOTES | ALONE | {"small-multi"}) - {"cascade-verify"},
    "open": ALONE | {"cope", "cope-s2"},
    "action": (VOTES | ALONE) - {"cascade-vote", "cascade-verify"},
}
OF_KIND: dict[str, dict[str, Any]] = {
    "math": {},
    "choice": {"choices": ["yes", "no"]},
    "exact": {},
    "code": {"tests": ["assert double(4) == 8"], "entry_point": "double"},
    "open": {},
    "action": {"actions": ["open drawer 2", "go to desk 1"]},
}
ANSWERS = {
    "math": "5",
    "choice": "yes",
    "exact": "blue",
    "code": "def double(x):\n    return 2 * x",
    "open": None,
    "action": "go to desk 1",
}
SCORER = {
    "format": "cope-scorer/1",
    "name": "sure",
    "version": "1",
    "tiers": [{"model": SMALL, "bias": 3.0, "weights": {}, "threshold": "0.5"}],
    "last": LARGE,
}


def says(prompt: str) -> str:
    """What any model here answers, by what it is asked for."""
    if "sets the variable ans" in prompt:
        return "ans = 2 + 3"
    if "```python" in prompt:
        return "Like this:\n```python\ndef double(x):\n    return 2 * x\n```"
    if "boxed" in prompt:
        return "So it is \\boxed{5}."
    if "'Action: '" in prompt:
        return "The book is there.\nAction: go to desk 1"
    if "Choose exactly one" in prompt:
        return "Surely.\nAnswer: yes"
    if "'Answer: '" in prompt:
        return "The sky.\nAnswer: blue"
    return "Look at it closely."


def lines() -> list[dict[str, Any]]:
    found = []
    for kind, policies in SERVED.items():
        for policy in sorted(policies):
            cope = {"kind": kind, **OF_KIND[kind], **OPTIONS.get(policy, {})}
            if kind == "open" and policy.startswith("cope"):
                cope["theta"] = "2"
            body = {"model": policy, "messages": [{"role": "user", "content": "What is it?"}], "cope": cope}
            found.append(
                {"custom_id": f"{kind} {policy}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            )
    return found


@pytest.fixture(scope="module")
def stack(scratch: Path) -> Iterator[Stack]:
    folder = scratch / "every-kind"
    (folder / "scorers").mkdir(parents=True)
    (folder / "scorers" / "sure.json").write_text(json.dumps(SCORER))
    small, large = StandIn(script=says), StandIn(script=says)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")}
    environment.pop("DATABASE_URL", None)
    environment |= {
        "COPE_EMBEDDED_ONLY": "1",
        "COPE_SMALL_BASE_URL": small.base_url,
        "COPE_SMALL_MODEL": SMALL,
        "COPE_SMALL_API_KEY": "none",
        "COPE_SMALL_LOGPROBS": "original",
        "COPE_LARGE_BASE_URL": large.base_url,
        "COPE_LARGE_MODEL": LARGE,
        "COPE_LARGE_API_KEY": "none",
        "COPE_LARGE_PRICE": "gpt-4o-2024-08-06",
        "COPE_SCORERS_DIR": str(folder / "scorers"),
    }
    made = Stack(folder / "stack", port=free_port(), environment=environment)
    made.start()
    yield made
    made.stop()
    small.close()
    large.close()


def cope_command(stack: Stack, *arguments: str) -> dict[str, Any]:
    environment = {**os.environ, "COPE_BASE_URL": stack.base_url, "COPE_API_KEY": stack.secrets.api_key}
    command = [sys.executable, "-c", "from cope_cli.main import run; run()", *arguments, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_one_batch_mixes_every_kind_under_every_policy_that_serves_it(stack: Stack, scratch: Path):
    file = scratch / "every.jsonl"
    file.write_text("\n".join(map(json.dumps, lines())))

    ended = cope_command(stack, "submit", str(file), "--watch")

    assert ended["status"] == "completed"
    assert (ended["request_counts"]["completed"], ended["request_counts"]["failed"]) == (len(lines()), 0)
    with OpenAI(base_url=stack.base_url, api_key=stack.secrets.api_key) as client:
        output = [json.loads(line) for line in client.files.content(ended["output_file_id"]).text.splitlines()]
    told = {line["custom_id"]: line["response"]["body"]["cope"] for line in output}
    assert {name: f"{block['kind']} {block['policy']}" for name, block in told.items()} == {name: name for name in told}
    assert {name: block["answer"] for name, block in told.items()} == {
        f"{kind} {policy}": ANSWERS[kind] for kind, policies in SERVED.items() for policy in policies
    }
    paid = {name for name, block in told.items() if block["cost_nanousd"]}
    large = {"large", "large-plan", "plan-execute", "small-guided"}
    assert paid == {f"{kind} {policy}" for kind, policies in SERVED.items() for policy in policies & large}


@pytest.mark.parametrize("kind", SERVED)
def test_the_command_line_gives_a_whole_file_its_kind_policy_and_options(stack: Stack, scratch: Path, kind: str):
    file = scratch / f"{kind}.csv"
    file.write_text("id,problem\n1,What is it?\n2,And this?\n")
    given = {"kind": kind, **OF_KIND[kind], **({"theta": "2"} if kind == "open" else {"waves": [6, 2]})}
    options = [
        f"--option={name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in given.items()
    ]

    ended = cope_command(stack, "submit", str(file), "--policy", "cope", *options, "--watch")

    assert (ended["status"], ended["request_counts"]["completed"]) == ("completed", 2)


@pytest.mark.parametrize("kind", SERVED)
def test_a_live_call_answers_every_kind(stack: Stack, kind: str):
    cope = {"kind": kind, **OF_KIND[kind], **({"theta": "2"} if kind == "open" else {})}
    with OpenAI(base_url=stack.base_url, api_key=stack.secrets.api_key) as client:
        answer = client.chat.completions.create(
            model="cope", messages=[{"role": "user", "content": "What is it?"}], extra_body={"cope": cope}
        )

    assert answer.model_extra is not None
    assert (answer.model_extra["cope"]["answer"], answer.model_extra["cope"]["stage"]) == (ANSWERS[kind], 1)


@pytest.mark.parametrize(
    ("cope", "param"),
    [
        ({"policy": "cascade-verify", "kind": "code", "tests": ["assert 1"]}, "cope.policy"),
        ({"policy": "small-multi"}, "cope.policy"),
        ({"policy": "small-majority", "kind": "open"}, "cope.policy"),
        ({"policy": "cope", "kind": "open"}, "cope.theta"),
        ({"policy": "small", "n": 4}, "cope.n"),
        ({"policy": "large", "waves": [6, 2]}, "cope.waves"),
        ({"policy": "cope", "tiers": [["a"], ["b"]]}, "cope.tiers"),
        ({"policy": "cope", "kind": "math", "tests": ["assert 1"]}, "cope.tests"),
        ({"policy": "cope", "kind": "math", "turns": ["And then?"]}, "cope.turns"),
        ({"policy": "cope", "kind": "action"}, "cope.actions"),
        ({"policy": "cope", "kind": "math", "actions": ["look"]}, "cope.actions"),
        ({"policy": "cascade-vote", "kind": "action", "actions": ["look"]}, "cope.prompt_sets"),
        ({"policy": "cope", "temprature": 1}, "cope.temprature"),
    ],
)
def test_unknown_and_contradictory_options_are_refused_by_name(stack: Stack, cope: dict[str, Any], param: str):
    with (
        OpenAI(base_url=stack.base_url, api_key=stack.secrets.api_key) as client,
        pytest.raises(openai.BadRequestError) as refusal,
    ):
        client.chat.completions.create(
            model="cope", messages=[{"role": "user", "content": "?"}], extra_body={"cope": cope}
        )

    assert refusal.value.param == param
