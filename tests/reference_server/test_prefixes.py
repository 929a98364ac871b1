"""Kept prompts: the longest common beginning by blocks, whole prompts to the token, never more memory than allowed."""

import numpy as np

from cope_reference.prefixes import BLOCK, Prefixes


def cache_of(tokens: list[int]) -> np.ndarray:
    """Keys whose content tells their token: [1 layer, 1 head, tokens, 1]."""
    return np.array(tokens, dtype=np.float32).reshape(1, 1, -1, 1)


def keep(prefixes: Prefixes, tokens: list[int]) -> None:
    prefixes.keep(tokens, prefixes.find(tokens), cache_of(tokens), -cache_of(tokens))


def found(prefixes: Prefixes, tokens: list[int]) -> list[int]:
    return [int(token) for block in prefixes.find(tokens) for token in block.keys.ravel()]


def test_a_prompt_seen_before_is_known_to_its_last_token() -> None:
    prefixes, tokens = Prefixes(1 << 20), list(range(BLOCK * 2 + 5))
    keep(prefixes, tokens)
    assert found(prefixes, tokens) == tokens


def test_of_another_prompt_the_common_whole_blocks_are_known() -> None:
    prefixes, tokens = Prefixes(1 << 20), list(range(BLOCK * 3))
    keep(prefixes, tokens)
    other = [*tokens[: BLOCK * 2 + 3], 999, 998]
    assert found(prefixes, other) == tokens[: BLOCK * 2]


def test_equal_blocks_behind_different_beginnings_are_different() -> None:
    prefixes = Prefixes(1 << 20)
    keep(prefixes, [1] * BLOCK + [5] * BLOCK)
    assert found(prefixes, [2] * BLOCK + [5] * BLOCK) == []


def test_the_end_of_a_new_prompt_goes_before_its_beginning() -> None:
    prefixes = Prefixes(2 * 4 * BLOCK * 3)
    keep(prefixes, [1] * BLOCK + [2] * BLOCK + [3] * BLOCK)
    keep(prefixes, [4] * BLOCK)
    assert found(prefixes, [1] * BLOCK + [2] * BLOCK + [3] * BLOCK) == [1] * BLOCK + [2] * BLOCK


def test_above_its_bytes_the_ends_of_the_oldest_prompts_go_first() -> None:
    prefixes = Prefixes(2 * 4 * BLOCK * 3)  # three blocks of keys and values
    old, new = [1] * BLOCK + [2] * BLOCK, [3] * BLOCK
    keep(prefixes, old)
    keep(prefixes, new)
    found(prefixes, old)
    keep(prefixes, [4] * BLOCK)
    assert found(prefixes, new) == []
    assert found(prefixes, old) == old
    keep(prefixes, [6] * BLOCK)
    keep(prefixes, [7] * BLOCK)
    assert found(prefixes, old) == [1] * BLOCK
    assert prefixes.bytes <= 2 * 4 * BLOCK * 3
