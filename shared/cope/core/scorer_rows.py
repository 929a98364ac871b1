"""What a scorer is trained on: one model's answer to one problem, what it cost, and whether it is right.

Rows come from a project's own labelled file, or from the results of its batches beside the problems and their golds.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cope.core.answers import Unkeyable, extract, quick_key
from cope.core.history import Sample, SampleStatus
from cope.core.money import MAX_NANO, NanoUSD, parse_usd
from cope.core.problem import Kind, Message, Problem

GRADED = frozenset({Kind.MATH, Kind.CHOICE, Kind.EXACT})
"""The kinds whose answers can be compared with a gold one; the others need `correct` and `answer`."""


class BadRow(Exception):
    """A row that says too little or contradicts itself; the message names what and how to mend it."""


@dataclass(frozen=True, slots=True)
class Row:
    """`sample.key` is not set: `readable` says whether there is one. Exactly one of `correct` and `gold` is given."""

    problem: Problem
    model: str
    sample: Sample
    cost: NanoUSD
    correct: bool | None
    gold: str | None

    @property
    def group(self) -> str:
        """Rows of one problem are never split between training and testing, whatever their ids."""
        return "\n".join(message.content for message in self.problem.conversation)

    @property
    def readable(self) -> bool:
        """Whether the policy would score it at all: an answer without a key is never accepted. One whose key only a
        helper can find is taken to have one."""
        answer, kind = self.sample.answer, self.problem.kind
        if answer is None or not answer.strip():
            return False
        return kind not in GRADED or not isinstance(quick_key(kind, answer), Unkeyable)


def labelled_row(data: Mapping[str, Any]) -> Row:
    """A row of a labelled file: `problem` or `messages`, `model`, `text`, `cost_nanousd` or `cost_usd`, `correct` or
    `gold`; optional `answer` (else read out of the text), `kind` (math), `choices`, `finish_reason`. Raises `BadRow`.
    """
    kind = _kind(data.get("kind", Kind.MATH.value))
    choices = data.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise BadRow("`choices` must be a list of texts")
    problem = Problem(kind, _conversation(data), tuple(choices))
    text = _text(data, "text")
    given = data.get("answer")
    correct, gold = data.get("correct"), data.get("gold")
    if (correct is None) is (gold is None):
        raise BadRow("give one of `correct` (true or false) and `gold` (the right answer)")
    if correct is not None and not isinstance(correct, bool):
        raise BadRow(f"`correct` must be true or false, not {correct!r}")
    if kind not in GRADED and (correct is None or given is None):
        raise BadRow(f"answers of kind {kind.value!r} can't be compared with a gold one: give `answer` and `correct`")
    if given is None and kind is Kind.CHOICE and not choices:
        raise BadRow("an answer of kind 'choice' can't be read without the options: give `choices`, or `answer`")
    answer = extract(problem, text) if given is None and "answer" not in data else _answer(given)
    return Row(
        problem,
        _text(data, "model"),
        _sample(text, answer, data.get("finish_reason")),
        _cost(data),
        correct,
        _gold(gold),
    )


def result_row(line: Mapping[str, Any], conversation: tuple[Message, ...], gold: str) -> Row | str:
    """The row of one line of a batch's output file, or why it has none. The problem is not in that file.

    The answer is that of the step it was taken from, at the price of one of that step's samples (rounded up). A line
    whose answer came for nothing, from a pool or a retry, does not say what it costs.
    """
    body = (line.get("response") or {}).get("body") or {}
    cope = body.get("cope")
    if not isinstance(cope, Mapping) or not cope.get("steps"):
        return "have no answer"
    kind = Kind(cope["kind"])
    if kind not in GRADED:
        return f"are of kind {kind.value!r}, whose answers can't be compared with a gold one"
    steps = [step for step in cope["steps"] if step["stage"] == cope["stage"] and "executor" in step["role"]]
    if len({step["model"] for step in steps}) != 1:
        return "have answers of several models in one stage"
    step = steps[-1]
    if cope.get("cached") or any(one.get("reused_from") for one in steps):
        return "were answered from a stored result, which cost nothing"
    text, finish_reason = _returned(body)
    if text is None:
        return "hold no text"
    cost = NanoUSD(-(-step["cost_nanousd"] // max(1, step["n"])))
    sample = _sample(text, _answer(cope.get("answer")), finish_reason)
    return Row(Problem(kind, conversation), step["model"], sample, cost, None, gold)


def conversation_of(body: Mapping[str, Any]) -> tuple[Message, ...]:
    """The messages of a request's body: of a chat completion, or a Response's `input`. Raises `BadRow`."""
    if "messages" not in body and isinstance(body.get("input"), list):
        return _conversation({"messages": body["input"]})
    return _conversation({"problem": body["input"]} if isinstance(body.get("input"), str) else body)


def with_labels(rows: Iterable[Row], verdicts: Iterable[bool]) -> Iterator[Row]:
    """The rows that had a gold answer, with what its comparison said."""
    for row, correct in zip(rows, verdicts, strict=True):
        yield Row(row.problem, row.model, row.sample, row.cost, correct, None)


def _returned(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    if body.get("choices"):
        first = body["choices"][0]
        return first["message"].get("content"), first.get("finish_reason")
    for item in body.get("output") or []:
        for part in item.get("content") or []:
            cut = (body.get("incomplete_details") or {}).get("reason") == "max_output_tokens"
            return part.get("text"), "length" if cut else "stop"
    return None, None


def _sample(text: str, answer: str | None, finish_reason: object) -> Sample:
    if finish_reason is not None and not isinstance(finish_reason, str):
        raise BadRow("`finish_reason` must be a text, such as stop or length")
    return Sample(0, SampleStatus.FINISHED, solution=text, answer=answer, finish_reason=finish_reason)


def _conversation(data: Mapping[str, Any]) -> tuple[Message, ...]:
    if "messages" not in data:
        return (Message("user", _text(data, "problem")),)
    messages = data["messages"]
    if "problem" in data or not isinstance(messages, list) or not messages:
        raise BadRow("give `problem` (a text) or `messages` (a list that is not empty), and not both")
    return tuple(_message(message) for message in messages)


def _message(message: object) -> Message:
    if isinstance(message, dict):
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if message.get("role") in {"system", "developer", "user", "assistant"} and isinstance(content, str):
            return Message(message["role"], content)
    raise BadRow("each of `messages` needs a `role` and a `content` of text")


def _kind(value: object) -> Kind:
    try:
        return Kind(str(value))
    except ValueError:
        raise BadRow(f"`kind` is none of {', '.join(Kind)}: {value!r}") from None


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or (key != "text" and not value.strip()):
        raise BadRow(f"needs `{key}`, a text")
    return value


def _answer(value: object) -> str | None:
    return None if value is None else str(value)


def _gold(value: object) -> str | None:
    if isinstance(value, bool | list | dict):
        raise BadRow("`gold` must be the right answer, a text or a number")
    return _answer(value)


def _cost(data: Mapping[str, Any]) -> NanoUSD:
    nano, usd = data.get("cost_nanousd"), data.get("cost_usd")
    if (nano is None) is (usd is None):
        raise BadRow('give one of `cost_nanousd` (a whole number) and `cost_usd` (a text such as "0.0004"); 0 is free')
    if nano is not None:
        if isinstance(nano, bool) or not isinstance(nano, int) or not 0 <= nano <= MAX_NANO:
            raise BadRow(f"`cost_nanousd` must be a whole number of nano-dollars from 0, not {nano!r}")
        return NanoUSD(nano)
    if not isinstance(usd, str):
        raise BadRow('`cost_usd` must be a text such as "0.0004", so that no digit is lost')
    try:
        return parse_usd(usd)
    except ValueError as wrong:
        raise BadRow(f"`cost_usd`: {wrong}") from None
