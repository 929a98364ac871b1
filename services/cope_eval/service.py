"""Asking a COPE service for decisions with the stock `openai` client: live, several at once, or as a batch."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Protocol

import openai
from openai import OpenAI

from cope_eval.dialogue import Decision
from cope_eval.journal import Journal

_FIRST_POLL_S, _LONGEST_POLL_S = 0.1, 5.0
_TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})


class NotAnswered(Exception):
    """A request got no answer that could be used. The message says which and why; a run goes on from its results."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One decision to be made: of which game, as which of its steps (from 0), in which situation."""

    game: int
    step: int
    messages: list[dict[str, str]]
    actions: tuple[str, ...]

    @property
    def custom_id(self) -> str:
        """The line of a batch."""
        return f"game-{self.game}-step-{self.step}"


class Decider(Protocol):
    """Makes decisions, each handed over as soon as it is known."""

    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Decision]]:
        """Every ask once, in any order. Raises `NotAnswered` after those that were answered."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """What every decision is asked with: the policy or model, and the `cope` block's own options."""

    model: str
    options: Mapping[str, Any]

    def cope(self, ask: Ask) -> dict[str, Any]:
        """The `cope` block of one decision."""
        return {"kind": "action", "actions": list(ask.actions), **self.options}


class Live:
    """One live request per decision, `concurrency` at once."""

    def __init__(self, client: OpenAI, request: Request, *, concurrency: int) -> None:
        self._client = client
        self._request = request
        self._concurrency = concurrency

    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Decision]]:
        """See `Decider.decide`."""
        wrong: NotAnswered | None = None
        with ThreadPoolExecutor(self._concurrency) as pool:
            running = {pool.submit(self._one, ask): ask for ask in asks}
            try:
                for done in as_completed(running):
                    if done.cancelled():
                        continue
                    try:
                        decision = done.result()
                    except NotAnswered as error:  # what is under way is paid for: it is still waited for and kept
                        wrong = wrong or error
                        _cancel(running)
                    else:
                        yield running[done], decision
            finally:
                _cancel(running)  # whoever stops listening does not pay for what has not begun
        if wrong is not None:
            raise wrong

    def _one(self, ask: Ask) -> Decision:
        try:
            answer = self._client.chat.completions.create(
                model=self._request.model,
                messages=ask.messages,  # type: ignore[arg-type]
                extra_body={"cope": self._request.cope(ask)},
            )
        except openai.APIError as error:
            raise NotAnswered(f"{ask.custom_id}: {said(error)}") from error
        return decision_of(ask, (answer.model_extra or {}).get("cope"))


class Batches:
    """One batch per step of all games that are under way. A batch that an earlier run left is waited for first."""

    def __init__(self, client: OpenAI, request: Request, journal: Journal, *, sleep: Callable[[float], None]) -> None:
        self._client = client
        self._request = request
        self._journal = journal
        self._sleep = sleep

    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Decision]]:
        """See `Decider.decide`."""
        left = {ask.custom_id: ask for ask in asks}
        try:
            while left:
                batch = self._journal.waiting
                if batch is None:
                    batch = self._submit(list(left.values()))
                    self._journal.submitted(batch)
                yield from self._answers(batch, left)
                self._journal.submitted(None)
        except openai.APIError as error:
            raise NotAnswered(f"a batch: {said(error)}") from error

    def _submit(self, asks: Sequence[Ask]) -> str:
        lines = [
            {
                "custom_id": ask.custom_id,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": self._request.model, "messages": ask.messages, "cope": self._request.cope(ask)},
            }
            for ask in asks
        ]
        data = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()
        file = self._client.files.create(file=("decisions.jsonl", data), purpose="batch")
        batch = self._client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        return batch.id

    def _answers(self, batch_id: str, left: dict[str, Ask]) -> Iterator[tuple[Ask, Decision]]:
        """Every decision of a batch that is wanted, taken from `left`. Raises `NotAnswered` if it left one out."""
        pause = _FIRST_POLL_S
        while (batch := self._client.batches.retrieve(batch_id)).status not in _TERMINAL:
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_S)
        for line in self._lines(batch.output_file_id):
            ask = left.pop(line["custom_id"], None)
            if ask is not None:
                yield ask, decision_of(ask, line["response"]["body"].get("cope"))
        refused = [line for line in self._lines(batch.error_file_id) if line["custom_id"] in left]
        if refused or batch.status != "completed":
            self._journal.submitted(None)  # what is left is asked again in a batch of its own, when the run goes on
            whole = [str(error.message) for error in (batch.errors.data or ())] if batch.errors else []
            why = [*map(_line_error, refused[:1]), *whole, "nothing was answered"][0]
            raise NotAnswered(f"batch {batch_id} is {batch.status}: {why}")

    def _lines(self, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        return [json.loads(line) for line in self._client.files.content(file_id).text.splitlines()]


def _cancel(running: Iterable[Future[Decision]]) -> None:
    for future in running:
        future.cancel()


def decision_of(ask: Ask, cope: object) -> Decision:
    """The decision in a completion's `cope` block. Raises `NotAnswered` where there is none."""
    if not isinstance(cope, dict) or cope.get("kind") != "action":
        raise NotAnswered(f"{ask.custom_id}: the answer has no `cope` block of kind `action`; is this a COPE service?")
    answer, usage = cope["answer"], cope["usage"]
    return Decision(
        action=answer if answer in ask.actions else None,
        stage=cope["stage"],
        cost_nanousd=cope["cost_nanousd"],
        large_calls=usage["large"]["calls"],
        small_calls=usage["small"]["calls"],
        task_id=cope["task_id"],
    )


def said(error: openai.APIError) -> str:
    """What the service said, or why it could not be reached."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return str(message or error.message)


def _line_error(line: dict[str, Any]) -> str:
    error = line.get("error") or (line.get("response") or {}).get("body", {}).get("error") or {}
    return f"{line['custom_id']}: {error.get('message', 'no answer')}"
