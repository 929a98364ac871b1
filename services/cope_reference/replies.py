"""What the server says: OpenAI's completion and chunk objects, and Prometheus text."""

from collections.abc import Iterable
from typing import Any

from tokenizers import pre_tokenizers

from cope_reference.sequences import Sequence, TokenScore
from cope_reference.served import Call, Served

Json = dict[str, Any]


def _byte_alphabet() -> dict[str, int]:
    """The byte behind each character of a byte-level piece: printable Latin-1 is itself, the rest starts at U+0100."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    letters = {chr(byte): byte for byte in own} | {chr(256 + i): byte for i, byte in enumerate(others)}
    assert set(letters) == set(pre_tokenizers.ByteLevel.alphabet())
    return letters


_BYTES = _byte_alphabet()


def completion(call: Call, head: Json) -> Json:
    """The whole answer, `head` giving id, created and model."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": sequence.text, "refusal": None},
            "logprobs": logprobs(call.served, sequence, 0),
            "finish_reason": sequence.finish,
        }
        for index, sequence in enumerate(call.sequences)
    ]
    return {**head, "object": "chat.completion", "choices": choices, "usage": usage(call)}


def chunk(head: Json, index: int, delta: Json, scores: Json | None = None, finish: str | None = None) -> Json:
    """One piece of a streamed choice."""
    choice = {"index": index, "delta": delta, "logprobs": scores, "finish_reason": finish}
    return {**head, "object": "chat.completion.chunk", "choices": [choice]}


def usage_chunk(call: Call, head: Json) -> Json:
    """The last piece of a stream that asked for usage."""
    return {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage(call)}


def usage(call: Call) -> Json:
    """The prompt once, every choice's completion (end marks included); cached: what no choice had to compute."""
    prompt = len(call.sequences[0].prompt)
    completions = sum(len(sequence.tokens) for sequence in call.sequences)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completions,
        "total_tokens": prompt + completions,
        "prompt_tokens_details": {"cached_tokens": min(sequence.cached for sequence in call.sequences)},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def logprobs(served: Served, sequence: Sequence, first: int) -> Json | None:
    """Scores from the `first` token on, the end mark's included; None if none were asked for."""
    if sequence.settings.top is None:
        return None
    return {"content": [_scored(served, score) for score in sequence.scores[first:]], "refusal": None}


def _scored(served: Served, score: TokenScore) -> Json:
    alternatives = [_token(served, token, logprob) for token, logprob in score.alternatives]
    return {**_token(served, score.token, score.logprob), "top_logprobs": alternatives}


def _token(served: Served, token: int, logprob: float) -> Json:
    piece = served.engine.tokenizer.id_to_token(token) or ""
    if not all(letter in _BYTES for letter in piece) or token in served.engine.weights.end_ids:
        return {"token": piece, "logprob": logprob, "bytes": None}
    raw = bytes(_BYTES[letter] for letter in piece)
    return {"token": raw.decode(errors="replace"), "logprob": logprob, "bytes": list(raw)}


def metrics(served: Iterable[Served]) -> str:
    """Prometheus text. Token counts rise as tokens are computed, those of aborted samples too."""
    readings = {one.name: _readings(one) for one in served}
    lines = []
    for name in next(iter(readings.values()), {}):
        lines.append(f"# TYPE cope_reference_{name} {'counter' if name.endswith('_total') else 'gauge'}")
        lines += [f'cope_reference_{name}{{model="{model}"}} {values[name]}' for model, values in readings.items()]
    return "".join(f"{line}\n" for line in lines)


def _readings(one: Served) -> dict[str, int]:
    counters = one.engine.counters
    return {
        "samples_total": counters.samples,
        "samples_aborted_total": counters.aborted,
        "prompt_tokens_total": counters.prompt_tokens,
        "cached_prompt_tokens_total": counters.cached_tokens,
        "completion_tokens_total": counters.completion_tokens,
        "steps_total": counters.steps,
        "running": one.engine.running,
        "queued": one.engine.queued,
        "requests_open": len(one.calls),
    }
