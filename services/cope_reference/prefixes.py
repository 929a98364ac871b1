"""Computed prompts, kept in blocks, so that prompts with a common beginning compute it once."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from cope_reference.weights import Array

BLOCK = 16  # tokens; only the end of a prompt makes a shorter block
_Name = tuple[int, tuple[int, ...]]


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
        self._blocks: OrderedDict[_Name, Block] = OrderedDict()
        self._serials = count(1)
        self.bytes = 0

    def find(self, tokens: list[int]) -> list[Block]:
        """The blocks of the longest known beginning of `tokens`, in order; empty if none is known."""
        path: list[Block] = []
        for name in self._names(tokens, path):
            block = self._blocks.get(name)
            if block is None:
                break
            path.append(block)
        self._touch(tokens, path)
        return path

    def keep(self, tokens: list[int], known: list[Block], keys: Array, values: Array) -> None:
        """Remember `tokens` behind the blocks that `find` gave; `keys` and `values` cover all of `tokens`."""
        path = list(known)
        for name in self._names(tokens, path):
            first = len(path) * BLOCK
            piece = slice(first, first + len(name[1]))
            block = Block(next(self._serials), keys[:, :, piece].copy(), values[:, :, piece].copy())
            self._blocks[name] = block
            self.bytes += block.keys.nbytes + block.values.nbytes
            path.append(block)
        self._touch(tokens, path)
        while self.bytes > self._most_bytes:
            _, gone = self._blocks.popitem(last=False)
            self.bytes -= gone.keys.nbytes + gone.values.nbytes

    def _names(self, tokens: list[int], path: list[Block]) -> Iterator[_Name]:
        """The name of the block after `path`, again and again while the caller makes the path longer."""
        while (first := len(path) * BLOCK) < len(tokens):
            yield path[-1].serial if path else 0, tuple(tokens[first : first + BLOCK])

    def _touch(self, tokens: list[int], path: list[Block]) -> None:
        """Count as used now: ends first, so that a beginning outlives what follows it."""
        for index in reversed(range(len(path))):
            parent = path[index - 1].serial if index else 0
            self._blocks.move_to_end((parent, tuple(tokens[index * BLOCK : (index + 1) * BLOCK])))
