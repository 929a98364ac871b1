"""From examples to padded tensors of few different shapes (many shapes make a CPU's memory pools grow without end)."""

from collections.abc import Iterator

import torch
from examples import Example
from tokenizer import END, prompt_text
from tokenizers import Tokenizer

POOL = 1_024
ROUNDED_TO = 16
IGNORED = -100


def encode(tokenizer: Tokenizer, example: Example) -> tuple[list[int], int]:
    """Token ids of the whole conversation, and where the target starts."""
    messages, target = example
    before = tokenizer.encode(prompt_text(messages)).ids
    return before + tokenizer.encode(target + END).ids, len(before)


def batches(
    tokenizer: Tokenizer, source: Iterator[Example], tokens: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Endless (ids, targets, number of examples): `ids` is [rows, width] with about `tokens` elements.

    `targets` is 1 where a token belongs to a target, 0 in prompts, `IGNORED` in padding. Examples of a pool are sorted
    by length, so little is padding.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        pool = sorted((encode(tokenizer, next(source)) for _ in range(POOL)), key=lambda e: len(e[0]), reverse=True)
        groups = []
        while pool:
            width = -(-len(pool[0][0]) // ROUNDED_TO) * ROUNDED_TO
            rows = tokens // width
            groups.append((width, pool[:rows]))
            pool = pool[rows:]
        for index in torch.randperm(len(groups), generator=generator).tolist():
            width, group = groups[index]
            ids = torch.zeros(len(group), width, dtype=torch.long)
            targets = torch.full((len(group), width), IGNORED, dtype=torch.long)
            for row, (pieces, start) in enumerate(group):
                ids[row, : len(pieces)] = torch.tensor(pieces)
                targets[row, :start] = 0
                targets[row, start : len(pieces)] = 1
            yield ids, targets, torch.tensor(len(group))
