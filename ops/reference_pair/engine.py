"""Sampling from a shipped model with CTranslate2: no torch, float32 on the CPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ctranslate2
from tokenizer import prompt_text
from tokenizers import Tokenizer

from cope.core.problem import Message

BATCH = 64  # sequences at once


@dataclass(frozen=True)
class Sample:
    """One completion. `tokens` counts the end mark too, as a server's usage does; `prompt_tokens` are its prompt's."""

    text: str
    tokens: int
    prompt_tokens: int


class Model:
    """A model folder as `convert.py` wrote it. `threads` cores are used."""

    def __init__(self, folder: Path, threads: int = 2) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._generator = ctranslate2.Generator(
            str(folder / "ctranslate2"), device="cpu", compute_type="float32", inter_threads=1, intra_threads=threads
        )

    def ask(
        self, prompts: Sequence[tuple[Message, ...]], *, n: int = 1, temperature: float = 0.0, limit: int = 300
    ) -> list[list[Sample]]:
        """`n` samples of every prompt, in the prompts' order. Temperature 0 is greedy."""
        encoded = [self._tokenizer.encode(prompt_text(messages)).tokens for messages in prompts]
        order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
        answers: list[list[Sample]] = [[] for _ in prompts]
        at_once = max(1, BATCH // n)
        for first in range(0, len(order), at_once):
            chosen = order[first : first + at_once]
            results = self._generator.generate_batch(
                [encoded[i] for i in chosen],
                beam_size=1,
                num_hypotheses=n,
                max_length=limit,
                sampling_topk=0 if temperature else 1,
                sampling_temperature=temperature or 1.0,
                include_prompt_in_result=False,
                end_token="<|end|>",
            )
            for i, result in zip(chosen, results, strict=True):
                answers[i] = [
                    Sample(self._tokenizer.decode(ids), len(ids) + 1, len(encoded[i])) for ids in result.sequences_ids
                ]
        return answers
