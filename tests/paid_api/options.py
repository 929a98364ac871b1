"""The command line: how strict, how dear and how slow the provider is."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.paid_api.answers import Counting, Tariff, nano_per_million

TokenRule = Literal["reserve", "correct"]
OUTAGES = ("off", "503", "reset", "hang")


@dataclass(slots=True)
class Limits:
    """Per API key, in a window of `window_s` seconds; None is no limit.

    `rule` says what counts as tokens: `reserve` takes the prompt's tokens plus the whole output limit at admission and
    keeps them for the window (OpenAI's way); `correct` takes the same and puts the actual usage in its place once the
    answer is made, at the time of admission.
    """

    rpm: int | None
    tpm: int | None
    concurrency: int | None
    window_s: float
    rule: TokenRule


@dataclass(slots=True)
class Options:
    """Everything given at start; the control endpoint changes parts of it."""

    port: int
    log: Path
    limits: Limits
    tariff: Tariff
    counting: Counting
    models: tuple[str, ...]
    keys: tuple[str, ...]
    context: int
    default_max_tokens: int
    latency_s: tuple[float, float]
    answers: dict[str, Any]
    script: dict[str, Any]
    upstream: str | None
    upstream_model: str | None


def parse(arguments: Sequence[str]) -> Options:
    """The options of a command line. Ends the process with a message for what can't be used."""
    parser = argparse.ArgumentParser(prog="python -m tests.paid_api", description="A paid API to test against.")
    add = parser.add_argument
    add("--port", type=int, default=0, help="0 takes a free one; the line printed at start says which")
    add("--log", type=Path, required=True, help="the books, an SQLite file; books of an earlier run are continued")
    add("--rpm", type=int, help="requests a window and key")
    add("--tpm", type=int, help="tokens a window and key")
    add("--concurrency", type=int, help="calls in flight of a key")
    add("--window-s", type=float, default=60.0, help="length of the sliding window")
    add("--tpm-rule", choices=("reserve", "correct"), default="reserve", help="what counts as tokens: see options.py")
    add("--input-usd", default="2.50", help="dollars a million prompt tokens")
    add("--cached-usd", default="1.25", help="dollars a million cached prompt tokens")
    add("--output-usd", default="10.00", help="dollars a million output tokens")
    add("--cached-permille", type=int, default=0, help="share of every prompt that counts as cached")
    add("--bytes-per-token", type=int, default=4, help="the tokenizer; 1 is the dearest there can be")
    add("--model", action="append", default=[], help="a model served; may be repeated; without it any name is")
    add("--key", action="append", default=[], help="an API key let in; may be repeated; without it any is")
    add("--context", type=int, default=128_000, help="tokens of prompt and output together")
    add("--default-max-tokens", type=int, default=4096, help="output limit of a request that gives none")
    add("--latency-s", default="0", help="seconds until an answer, or LOW:HIGH, drawn by call number")
    add("--answers", type=Path, help="JSON of canned answers: see answers.py")
    add("--script", type=Path, help="JSON of faults: see faults.py")
    add("--upstream", help="base URL of an OpenAI-compatible server that answers instead, ending in /v1")
    add("--upstream-model", help="the model asked for there, if it has another name")
    given = parser.parse_args(arguments)
    try:
        if not given.bytes_per_token >= 1 or not 0 <= given.cached_permille <= 1000 or given.window_s <= 0:
            parser.error("--bytes-per-token is from 1, --cached-permille from 0 to 1000, --window-s above 0")
        return Options(
            port=given.port,
            log=given.log,
            limits=Limits(given.rpm, given.tpm, given.concurrency, given.window_s, given.tpm_rule),
            tariff=Tariff(*(nano_per_million(usd) for usd in (given.input_usd, given.cached_usd, given.output_usd))),
            counting=Counting(given.bytes_per_token, given.cached_permille),
            models=tuple(given.model),
            keys=tuple(given.key),
            context=given.context,
            default_max_tokens=given.default_max_tokens,
            latency_s=latency(given.latency_s),
            answers=_json(given.answers),
            script=_json(given.script),
            upstream=given.upstream,
            upstream_model=given.upstream_model,
        )
    except (OSError, ValueError, ArithmeticError) as wrong:
        parser.error(str(wrong))


def latency(text: str) -> tuple[float, float]:
    """``0.2`` or ``0.1:0.9`` as seconds from and to. Raises `ValueError`."""
    low, _, high = text.partition(":")
    between = float(low), float(high or low)
    if not 0 <= between[0] <= between[1]:
        raise ValueError(f"{text} is no range of seconds")
    return between


def _json(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    source = json.loads(path.read_text())
    if not isinstance(source, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return source
