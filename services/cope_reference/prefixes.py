"""Computed prompts, kept in blocks, so that prompts with a common beginning compute it once."""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import count

from cope_reference.weights import Array

BLOCK = 16  # tokens; only the end of a prompt makes a shorter block


@dataclass(frozen=True, slots=True)
class Block:
    """Keys and values of up to 16 tokens that follow one certain prefix; both [layers, heads, tokens, head_dim]."""

    serial: int
    keys: Array
    values: Array


class Prefixes:
    """Blocks by (the block before, own tokens): no hash of tokens is trusted. Above `most_bytes` the oldest use goes.

    A block whose predecessor went is never found again, so it ages and goes too.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._blocks: OrderedDict[tuple[int, tuple[int, ...]], Block] = OrderedDict()
        self._serials = count(1)
        self.bytes = 0

    def find(self, tokens: list[int]) -> list[Block]:
        """The blocks of the longest known beginning of `tokens`, in order; empty if none is known."""
        path, parent = [], 0
        for first in range(0, len(tokens), BLOCK):
            name = parent, tuple(tokens[first : first + BLOCK])
            block = self._blocks.get(name)
            if block is None:
                break
            path.append((name, block))
            parent = block.serial
        # Ends first, so that a beginning outlives what follows it.
        for name, _ in reversed(path):
            self._blocks.move_to_end(name)
        return [block for _, block in path]

    def keep(self, tokens: list[int], known: list[Block], keys: Array, values: Array) -> None:
        """Remember `tokens` behind the blocks that `find` gave; `keys` and `values` cover all of `tokens`."""
        parent = known[-1].serial if known else 0
        for first in range(len(known) * BLOCK, len(tokens), BLOCK):
            piece = slice(first, min(first + BLOCK, len(tokens)))
            block = Block(next(self._serials), keys[:, :, piece].copy(), values[:, :, piece].copy())
            self._blocks[parent, tuple(tokens[piece])] = block
            self.bytes += block.keys.nbytes + block.values.nbytes
            parent = block.serial
        while self.bytes > self._most_bytes:
            _, gone = self._blocks.popitem(last=False)
            self.bytes -= gone.keys.nbytes + gone.values.nbytes
