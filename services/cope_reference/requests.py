"""Reading a chat request: what is honoured, and the refusal by name of everything else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cope_reference.sequences import Settings

MAX_N = 128
MAX_STOPS = 4
MAX_TOP_LOGPROBS = 20
_HONOURED = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "stop", "seed",
        "logprobs", "top_logprobs", "stream", "stream_options", "rid",
        # Labels: by their definition they don't change the answer.
        "user", "metadata", "safety_identifier", "prompt_cache_key",
    }
)  # fmt: skip
# Fields that can't be honoured, and the values that ask for nothing (null always does).
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "store": (False,),
}
_ROLES = frozenset({"system", "developer", "user", "assistant"})


class Refused(Exception):
    """The request can't be served: OpenAI's error fields, an HTTP status and headers."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        *,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Chat:
    """A request that can be served. `max_tokens` None: as many as the context leaves. `top` None: no scores."""

    model: str
    messages: list[dict[str, str]]
    n: int
    max_tokens: int | None
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    seed: int | None
    top: int | None
    stream: bool
    include_usage: bool
    rid: str | None

    def settings(self, prompt_tokens: int, context: int) -> list[Settings]:
        """How to sample each of the `n` choices. Raises `Refused` if prompt and limit exceed the context."""
        room = context - prompt_tokens
        if room < 1 or (self.max_tokens or 1) > room:
            asked = "" if self.max_tokens is None else f" and {self.max_tokens} for the answer"
            raise Refused(
                f"This model's context is {context} tokens; you asked for {prompt_tokens} in the messages{asked}.",
                "messages",
                "context_length_exceeded",
            )
        return [
            Settings(
                self.max_tokens or room,
                self.temperature,
                self.top_p,
                self.stop,
                None if self.seed is None else (self.seed & (2**64 - 1), index),
                self.top,
                self.stream,
            )
            for index in range(self.n)
        ]


def read_chat(body: Any) -> Chat:
    """The request in a decoded JSON body. Raises `Refused`."""
    if not isinstance(body, dict):
        raise Refused("The body must be a JSON object.")
    for name, value in body.items():
        if name not in _HONOURED and value is not None and value not in _NEUTRAL.get(name, ()):
            raise Refused(f"`{name}` can't be honoured by this server: remove it.", name, "unsupported_parameter")
    limits = [
        _whole(body[name], name, 1, 1 << 31)
        for name in ("max_completion_tokens", "max_tokens")
        if body.get(name) is not None
    ]
    scores, stream = _flag(body.get("logprobs"), "logprobs"), _flag(body.get("stream"), "stream")
    top = body.get("top_logprobs")
    if top is not None and not scores:
        raise Refused("`top_logprobs` needs `logprobs`: true.", "top_logprobs")
    return Chat(
        model=_text(body.get("model"), "model"),
        messages=_messages(body.get("messages")),
        n=_whole(body.get("n"), "n", 1, MAX_N, default=1),
        max_tokens=min(limits, default=None),
        temperature=_number(body.get("temperature"), "temperature", 0, 2),
        top_p=_number(body.get("top_p"), "top_p", 0, 1),
        stop=_stops(body.get("stop")),
        seed=None if body.get("seed") is None else _whole(body["seed"], "seed", -(2**63), 2**63 - 1),
        top=_whole(top, "top_logprobs", 0, MAX_TOP_LOGPROBS, default=0) if scores else None,
        stream=stream,
        include_usage=_include_usage(body.get("stream_options"), stream=stream),
        rid=None if body.get("rid") is None else _text(body["rid"], "rid"),
    )


def _text(value: object, param: str) -> str:
    if not isinstance(value, str) or not value:
        raise Refused(f"`{param}` must be a non-empty string.", param)
    return value


def _flag(value: object, param: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise Refused(f"`{param}` must be true or false.", param)
    return value is True


def _whole(value: object, param: str, low: int, high: int, *, default: int = 0) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refused(f"`{param}` must be a whole number from {low} to {high}.", param)
    return value


def _number(value: object, param: str, low: float, high: float, *, default: float = 1.0) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Refused(f"`{param}` must be a number from {low} to {high}.", param)
    return float(value)


def _stops(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return ()
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise Refused(f"`stop` must be a non-empty string or a list of at most {MAX_STOPS} of them.", "stop")
    return tuple(stops)


def _include_usage(value: object, *, stream: bool) -> bool:
    if value is None:
        return False
    if not isinstance(value, dict) or not stream:
        raise Refused("`stream_options` must be an object, and only with `stream`: true.", "stream_options")
    for name, option in value.items():
        # Obfuscation pads chunks against eavesdroppers; there are none between a caller and a loopback server.
        if name not in {"include_usage", "include_obfuscation"} or (name == "include_obfuscation" and option):
            param = f"stream_options.{name}"
            raise Refused(f"`{param}` can't be honoured by this server.", param, "unsupported_parameter")
    return _flag(value.get("include_usage"), "stream_options.include_usage")


def _messages(value: object) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise Refused("`messages` must be a non-empty list.", "messages")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(value)]


def _message(message: object, where: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise Refused(f"`{where}` must be an object.", where)
    for name, value in message.items():
        if name not in {"role", "content"} and value not in (None, [], {}):
            param = f"{where}.{name}"
            raise Refused(f"`{param}` can't be honoured by this server.", param, "unsupported_parameter")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in _ROLES:
        raise Refused(f"`{where}.role` must be one of {', '.join(sorted(_ROLES))}.", f"{where}.role")
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise Refused(
                    f"`{where}.content` may hold text parts only.", f"{where}.content", "unsupported_parameter"
                )
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise Refused(f"`{where}.content` must be text.", f"{where}.content")
    return {"role": role, "content": content}
