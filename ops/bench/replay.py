"""An OpenAI-compatible server that says again what models said once.

It knows a recording by what a real server would be asked: the problem, the few-shot examples before it, the model.
Which sample is wanted stands in `rid`, SGLang's request id, whose last digits number the chains of a step; a call
without one is answered greedily.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from cope.core.prompts import BUILT_IN
from cope.core.prompts.model import PromptSet

FEW_SHOT = [prompts for prompts in BUILT_IN.values() if prompts.shots]


@dataclass(frozen=True)
class Recording:
    """One problem. `answers` are texts by model, prompt set and how they were decoded (``"greedy"`` or ``"sample"``),
    `values` what each program among them computed (None: it failed)."""

    problem: str
    answers: Mapping[tuple[str, str, str], list[str]]
    values: Mapping[str, str | None] = field(default_factory=dict)


class RecordedPrograms:
    """A `ProgramValues` over the values that the recorded programs had when they were run; it knows no others."""

    def __init__(self, recordings: list[Recording]) -> None:
        self._values = {text: value for one in recordings for text, value in one.values.items()}

    async def value_of(self, program: str, variable: str) -> str | None:
        assert variable == "ans"
        return self._values[program]


def recording(row: Mapping[str, Any]) -> Recording:
    """One line of a file of recorded answers: `problem`, and `samples` of `model`, `prompt_style`, `decode`, `k`,
    `text` and `answer`."""
    answers: dict[tuple[str, str, str], list[str]] = {}
    values: dict[str, str | None] = {}
    for said in sorted(row["samples"], key=lambda s: s["k"]):
        decode = "greedy" if said["decode"].startswith("greedy") else "sample"
        answers.setdefault((said["model"], said["prompt_style"], decode), []).append(said["text"])
        if said["prompt_style"].startswith("pot"):
            values[said["text"]] = None if said["answer"] is None else str(said["answer"])
    return Recording(row["problem"], answers, values)


class Replay:
    """Answers from recordings, and counts calls by model."""

    def __init__(self, recordings: list[Recording]) -> None:
        self._by_problem = {one.problem: one for one in recordings}
        self.calls: dict[str, int] = {}

    async def chat(self, request: web.Request) -> web.Response:
        """`POST /v1/chat/completions`."""
        body = await request.json()
        model, messages = body["model"], body["messages"]
        prompts = _examples(messages)
        problem = messages[-1]["content"].removesuffix(prompts.separator + _instruction(prompts))
        rid = body.get("rid")
        decode, number = ("greedy", 0) if rid is None else ("sample", int(rid[-4:-1]))
        self.calls[model] = self.calls.get(model, 0) + 1
        try:
            text = self._by_problem[problem].answers[model, prompts.name, decode][number]
        except (KeyError, IndexError):
            missing = {"message": f"nothing recorded of {model} with {prompts.name}, {decode} {number}"}
            return web.json_response({"error": missing}, status=400)
        words = sum(len(message["content"].split()) for message in messages)
        usage = {"prompt_tokens": words, "completion_tokens": len(text.split())}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return web.json_response({"id": "recorded", "choices": [choice], "usage": usage})

    async def abort(self, request: web.Request) -> web.Response:
        """`POST /abort_request`: it was answered at once."""
        return web.json_response({})


def _examples(messages: list[dict[str, Any]]) -> PromptSet:
    """The set whose first example comes right after the system message."""
    for prompts in FEW_SHOT:
        first = next(shots[0] for kind, shots in prompts.shots.items() if kind.value == "math")
        if messages[1]["content"].startswith(first.problem):
            return prompts
    raise AssertionError("asked without examples, and nothing was recorded so")


def _instruction(prompts: PromptSet) -> str:
    return next(p.executor for kind, p in prompts.kinds.items() if kind.value == "math")


@asynccontextmanager
async def replaying(recordings: list[Recording]) -> AsyncIterator[tuple[Replay, str]]:
    """The server, and its base URL that ends in /v1, for as long as a `with` lasts."""
    replay, app = Replay(recordings), web.Application()
    app.router.add_post("/v1/chat/completions", replay.chat)
    app.router.add_post("/abort_request", replay.abort)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield replay, f"http://{host}:{port}/v1"
    finally:
        await runner.cleanup()
