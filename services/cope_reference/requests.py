"""Reading a chat request: what is honoured, and the refusal by name of everything else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cope_reference.engine import Settings

_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "frequency_penalty": (None, 0, 0.0),
    "presence_penalty": (None, 0, 0.0),
    "logit_bias": (None, {}),
    "tools": (None, []),
    "tool_choice": (None, "none"),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "service_tier": (None, "auto", "default"),
    "parallel_tool_calls": (None, True, False),
}
_HONOURED = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "stop", "seed",
        "logprobs", "top_logprobs", "stream", "stream_options", "rid", "user", "metadata", "store",
    }
)  # fmt: skip
MAX_N = 128


class Refused(Exception):
    """The request can't be served: OpenAI's error fields and an HTTP status."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
        self.status = status


@dataclass(frozen=True, slots=True)
class Chat:
    """A request that can be served. `max_tokens` None: as many as the context leaves."""

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

    def settings(self, room: int, index: int) -> Settings:
        """How to sample choice `index`; `room` is what the context leaves. Raises `Refused` if that is too little."""
        if self.max_tokens is not None and self.max_tokens > room:
            raise Refused(
                f"The prompt leaves room for {max(0, room)} tokens, but {self.max_tokens} are asked for.",
                "messages",
                "context_length_exceeded",
            )
        if room < 1:
            raise Refused("The prompt fills the whole context.", "messages", "context_length_exceeded")
        seed = None if self.seed is None else self.seed + index
        return Settings(self.max_tokens or room, self.temperature, self.top_p, self.stop, seed, self.top)


def read_chat(body: Any) -> Chat:
    """The request in a decoded JSON body. Raises `Refused`."""
    if not isinstance(body, dict):
        raise Refused("The body must be a JSON object.")
    for name, value in body.items():
        if name in _HONOURED or any(value == neutral for neutral in _NEUTRAL.get(name, ())):
            continue
        raise Refused(f"`{name}` can't be honoured by this server: remove it.", name, "unsupported_parameter")
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    wants_scores = body.get("logprobs") is True
    return Chat(
        model=_text(body.get("model"), "model"),
        messages=_messages(body.get("messages")),
        n=int(_number(body.get("n"), "n", 1, 1, MAX_N, whole=True)),
        max_tokens=None if limit is None else int(_number(limit, "max_tokens", 1, 1, 1 << 20, whole=True)),
        temperature=_number(body.get("temperature"), "temperature", 1.0, 0, 2),
        top_p=_number(body.get("top_p"), "top_p", 1.0, 1e-6, 1),
        stop=_stops(body.get("stop")),
        seed=None if body.get("seed") is None else int(_number(body["seed"], "seed", 0, -(2**63), 2**63, whole=True)),
        top=int(_number(body.get("top_logprobs"), "top_logprobs", 0, 0, 20, whole=True)) if wants_scores else None,
        stream=body.get("stream") is True,
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        rid=None if body.get("rid") is None else _text(body["rid"], "rid"),
    )


def _text(value: object, param: str) -> str:
    if not isinstance(value, str) or not value:
        raise Refused(f"`{param}` must be a non-empty string.", param)
    return value


def _number(value: Any, param: str, default: float, low: float, high: float, *, whole: bool = False) -> float:
    if value is None:
        return default
    allowed = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        raise Refused(f"`{param}` must be a {'whole ' if whole else ''}number from {low} to {high}.", param)
    return value


def _stops(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return ()
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(stop, str) and stop for stop in stops):
        raise Refused("`stop` must be a string or a list of at most four strings.", "stop")
    return tuple(stops)


def _messages(value: object) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise Refused("`messages` must be a non-empty list.", "messages")
    messages = []
    for index, message in enumerate(value):
        where = f"messages[{index}]"
        if not isinstance(message, dict) or message.get("role") not in {"system", "developer", "user", "assistant"}:
            raise Refused(f"`{where}.role` must be system, developer, user or assistant.", f"{where}.role")
        content = message.get("content")
        if isinstance(content, list):
            if not all(isinstance(p, dict) and p.get("type") == "text" for p in content):
                raise Refused(f"`{where}.content` may hold text parts only.", f"{where}.content")
            content = "".join(str(part.get("text", "")) for part in content)
        if not isinstance(content, str):
            raise Refused(f"`{where}.content` must be text.", f"{where}.content")
        messages.append({"role": str(message["role"]), "content": content})
    return messages
