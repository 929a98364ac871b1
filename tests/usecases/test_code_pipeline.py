"""Kind `code` from an uploaded line to a result, on the shipped in-memory adapters."""

from dataclasses import replace

from cope.adapters.answer_helper import in_process_judge
from cope.adapters.memory import TrustedPrograms
from cope.adapters.sandbox_runner import CodeJudge, SandboxValues
from cope.core.errors import SandboxUnavailable
from cope.core.models import ModelCatalog
from cope.core.prompts import BUILT_IN
from cope.ports.model import ChatAnswer, ChatRequest
from cope.usecases.finalise import finalise_next
from tests.usecases.test_pipeline import (
    LARGE,
    LEASE_S,
    SMALL,
    Parts,
    Script,
    current,
    line,
    make_parts,
    results,
    says,
    settle,
    submit,
)

RIGHT = "```python\ndef double(x):\n    return 2 * x\n```"
HALF = "```python\ndef double(x):\n    return x if x < 1 else 3\n```"
WRONG = "```python\ndef double(x):\n    return None\n```"
CODE = {"kind": "code", "tests": ["assert double(0) == 0", "assert double(4) == 8"], "entry_point": "double", "n": 4}
INSTRUCTED = ModelCatalog(
    {"small": replace(SMALL, prompt_set="instruct"), "large": replace(LARGE, prompt_set="instruct")},
    "small",
    "large",
    BUILT_IN,
    runs_programs=True,
)


def code_parts(script: Script, runner: TrustedPrograms) -> Parts:
    return replace(make_parts(script), judge=CodeJudge(in_process_judge(), runner), catalog=INSTRUCTED)


async def answered(parts: Parts, *lines: str) -> tuple[list[dict], list[dict]]:  # type: ignore[type-arg]
    batch = await submit(parts, *lines)
    await settle(parts)
    while await finalise_next(parts, lease_s=LEASE_S):
        pass
    ended = await current(parts, batch)
    return await results(parts, ended.output_file_id), await results(parts, ended.error_file_id)


def only_the_third_plans_well(request: ChatRequest) -> ChatAnswer:
    text = request.messages[-1].content
    if "Do not write any code" in text:
        return says(f"plan {request.request_id[-2]}")
    return says(RIGHT if "Goal: plan 2" in text else WRONG)


async def test_the_only_program_that_passes_is_the_answer_and_nothing_is_paid_for() -> None:
    output, _ = await answered(code_parts(only_the_third_plans_well, TrustedPrograms()), line("a", **CODE))
    body = output[0]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == RIGHT
    assert body["cope"]["answer"] == "def double(x):\n    return 2 * x"
    assert (body["cope"]["stage"], body["cope"]["accepted"], body["cope"]["cost_nanousd"]) == (1, True, 0)


def passes_nowhere_until_the_large_model_writes_it(request: ChatRequest) -> ChatAnswer:
    text = request.messages[-1].content
    if request.model.name == "large":
        return says("Multiply." if "guideline of one" in text else RIGHT)
    if "Do not write any code" in text:
        return says(f"plan {request.request_id[-2]}")
    return says(HALF if "Goal: plan 1" in text else WRONG)


async def test_where_nobody_passes_the_best_partial_plan_goes_on_and_the_large_model_s_program_is_not_run() -> None:
    runner = TrustedPrograms()
    parts = code_parts(passes_nowhere_until_the_large_model_writes_it, runner)
    output, _ = await answered(parts, line("a", **CODE))
    body = output[0]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == RIGHT
    assert (body["cope"]["stage"], body["cope"]["accepted"]) == (3, True)
    assert "p1* is plan 1, whose program passes 1 of 2 visible tests" in body["cope"]["steps"][2]["reason"]
    assert len(runner.runs) == 8


async def test_without_a_sound_sandbox_the_line_fails_by_name_and_no_program_is_run() -> None:
    runner = TrustedPrograms(refuses=SandboxUnavailable("No sound sandbox here: TCP."))
    _, errors = await answered(code_parts(only_the_third_plans_well, runner), line("a", **CODE))
    response = errors[0]["response"]
    assert (response["status_code"], response["body"]["error"]["code"]) == (503, "sandbox_unavailable")
    assert runner.runs == []


async def test_a_paid_program_that_no_sandbox_can_run_is_given_back_as_it_was_written() -> None:
    runner = TrustedPrograms(refuses=SandboxUnavailable("No sound sandbox here: TCP."))
    judge = CodeJudge(in_process_judge(programs=SandboxValues(runner)), runner)
    parts = replace(make_parts(lambda request: says("ans = 6 * 7")), judge=judge, catalog=INSTRUCTED)

    output, errors = await answered(parts, line("a", policy="large", prompt_set="pot1"))

    assert errors == []
    body = output[0]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == "ans = 6 * 7"
    assert body["cope"]["answer"] is None
    assert body["cope"]["cost_nanousd"] > 0


async def test_kinds_mix_in_one_batch() -> None:
    def script(request: ChatRequest) -> ChatAnswer:
        return says("\\boxed{5}") if "boxed" in request.messages[-1].content else only_the_third_plans_well(request)

    lines = [line("a", **CODE), line("b"), line("c", **{**CODE, "policy": "small-multi", "stop": "first_pass"})]
    output, _ = await answered(code_parts(script, TrustedPrograms()), *lines)
    told = {one["custom_id"]: one["response"]["body"]["cope"] for one in output}
    assert {key: (cope["kind"], cope["policy"], cope["accepted"]) for key, cope in told.items()} == {
        "a": ("code", "cope", True),
        "b": ("math", "cope", True),
        "c": ("code", "small-multi", False),
    }
