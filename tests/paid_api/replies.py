"""The bytes of answers and refusals, in OpenAI's shapes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tests.paid_api.answers import Asked
from tests.paid_api.window import Meter


def error(message: str, kind: str, code: str | None, param: str | None = None) -> bytes:
    """An error body."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def completion(head: Mapping[str, Any], choices: Sequence[tuple[str, str]], usage: Any) -> bytes:
    """A whole answer; `choices` are texts with their finish reasons. `usage` None leaves it out."""
    body = {
        **head,
        "object": "chat.completion",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": reason,
            }
            for index, (text, reason) in enumerate(choices)
        ],
    }
    if usage is not None:
        body["usage"] = usage
    return _dumps(body)


def stream(asked: Asked, head: Mapping[str, Any], choices: Sequence[tuple[str, str]], usage: Any) -> bytes:
    """The same as server-sent events, 16 characters a chunk."""
    out = bytearray()

    def chunk(index: int, delta: dict[str, str], reason: str | None) -> None:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        out.extend(_event({**head, "object": "chat.completion.chunk", "choices": [choice]}))

    for index, (text, reason) in enumerate(choices):
        chunk(index, {"role": "assistant", "content": ""}, None)
        for start in range(0, len(text), 16):
            chunk(index, {"content": text[start : start + 16]}, None)
        chunk(index, {}, reason)
    if asked.include_usage and usage is not None:
        out.extend(_event({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}))
    out.extend(b"data: [DONE]\n\n")
    return bytes(out)


def usage(prompt: int, cached: int, completion_tokens: int) -> dict[str, Any]:
    """The usage of an answer."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def limit_headers(meter: Meter, now: float) -> dict[str, str]:
    """`x-ratelimit-*` of one key at this moment; a reset is the time until that window is empty, as ``1m3.5s``."""
    headers = {}
    for name, window in (("requests", meter.requests), ("tokens", meter.tokens)):
        if window.limit is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(window.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(window.remaining(now))
            headers[f"x-ratelimit-reset-{name}"] = duration(window.reset_s(now))
    return headers


def wait_headers(wait_s: float) -> dict[str, str]:
    """Both forms of a true wait, rounded up: who waits that long gets through."""
    return {"retry-after": str(max(1, math.ceil(wait_s))), "retry-after-ms": str(math.floor(wait_s * 1000) + 1)}


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them: ``0s``, ``20ms``, ``8.64s``, ``6m0s``."""
    ms = math.ceil(seconds * 1000)
    if ms < 1000:
        return f"{ms}ms" if ms else "0s"
    minutes, rest = divmod(ms, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"


def _event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + _dumps(body) + b"\n\n"


def _dumps(body: Any) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # whole numbers beyond 64 bits, in a strange usage
        import json

        return json.dumps(body).encode()
