"""The decoder computes Llama, whatever shares its rows, and reads only checkpoints that it can run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cope_reference.decoder import Decoder
from cope_reference.weights import UnsupportedModel, load_weights
from tests.reference_server.tiny import plain_logits, write_tiny

PROMPTS = [[2, 40, 41, 42, 3], [2, 99], [7] * 30, [2, 200, 17, 4, 4, 4, 9, 250]]


def begun(decoder: Decoder, prompt: list[int]) -> int:
    """A row with all of the prompt but its last token."""
    row = decoder.add(len(prompt))
    decoder.prefill(row, prompt[:-1])
    return row


def test_logits_equal_the_formulas_own_for_rows_of_different_lengths(tiny: Path) -> None:
    decoder = Decoder(load_weights(tiny), 8)
    for prompt in PROMPTS:
        begun(decoder, prompt)

    logits = decoder.step(np.array([prompt[-1] for prompt in PROMPTS]))

    for row, prompt in enumerate(PROMPTS):
        np.testing.assert_allclose(logits[row], plain_logits(tiny, prompt), atol=2e-4)


def test_tokens_fed_one_by_one_equal_tokens_fed_at_once(tiny: Path) -> None:
    decoder = Decoder(load_weights(tiny), 2)
    tokens = PROMPTS[3]
    begun(decoder, tokens)
    decoder.add(1)
    for token in tokens[:-1]:
        # The first row's length is put back, so that only the second one grows.
        decoder.step(np.array([0, token]))
        decoder.lengths[0] = len(tokens) - 1

    logits = decoder.step(np.array([tokens[-1]] * 2))

    np.testing.assert_allclose(logits[0], logits[1], atol=2e-4)


def test_a_prompt_computed_in_two_pieces_equals_one_computed_whole(tiny: Path) -> None:
    decoder = Decoder(load_weights(tiny), 2)
    tokens = list(range(5, 60))
    begun(decoder, tokens)
    keys, values = (part[:, :, :32].copy() for part in decoder.cached(0))
    row = decoder.add(len(tokens))
    decoder.load(row, keys, values)
    decoder.prefill(row, tokens[32:-1])

    logits = decoder.step(np.array([tokens[-1]] * 2))

    np.testing.assert_allclose(logits[0], logits[1], atol=2e-4)


def test_a_row_that_leaves_changes_nothing_for_those_that_stay(tiny: Path) -> None:
    decoder = Decoder(load_weights(tiny), 8)
    for prompt in PROMPTS:
        begun(decoder, prompt)
    decoder.remove(1)  # the last row moves into its place

    logits = decoder.step(np.array([PROMPTS[0][-1], PROMPTS[3][-1], PROMPTS[2][-1]]))

    for row, prompt in enumerate([PROMPTS[0], PROMPTS[3], PROMPTS[2]]):
        np.testing.assert_allclose(logits[row], plain_logits(tiny, prompt), atol=2e-4)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2'"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 1"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn'"),
    ],
)
def test_a_checkpoint_of_another_shape_is_refused_by_what_differs(
    tmp_path: Path, entry: dict[str, Any], named: str
) -> None:
    with pytest.raises(UnsupportedModel, match=named):
        load_weights(write_tiny(tmp_path, **entry))
