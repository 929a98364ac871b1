"""The shipped pair: this engine and CTranslate2, which was written by others, agree on every token's probability."""

import queue
from pathlib import Path

import ctranslate2
import numpy as np
import pytest
from tokenizers import Tokenizer

from cope_reference.engine import Engine
from cope_reference.sequences import Sequence, Settings

WEIGHTS = Path(__file__).resolve().parents[2] / "ops" / "reference_pair" / "weights"
STORIES = (
    "Mia starts with 12 coins. Mia gives 5 away. Then Mia doubles what is left. How many coins does Mia have?",
    "Someone ended with 9 shells after giving 3 away and finding 4. How many were there at first?",
    "Was ist 17 mal 3? Antworte mit einer Zahl – ohne Worte.",
)


@pytest.mark.parametrize("size", ["small", "large"])
def test_log_probabilities_equal_those_of_ctranslate2(size: str) -> None:
    folder = WEIGHTS / size
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompts = [tokenizer.encode(f"<|user|>{story}<|end|><|assistant|>").ids for story in STORIES]
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    samples = [Sequence(prompt, Settings(60, 1.0, top=0), lambda: ended.put(None)) for prompt in prompts]
    engine = Engine(folder, seed=3)
    engine.submit(samples)
    for _ in samples:
        ended.get(timeout=60)
    engine.close()

    judge = ctranslate2.Generator(str(folder / "ctranslate2"), device="cpu", compute_type="float32", intra_threads=1)
    for sample in samples:
        pieces = [tokenizer.id_to_token(token) for token in sample.prompt + sample.tokens]
        judged = judge.score_batch([pieces])[0].log_probs[len(sample.prompt) - 1 :]
        # Tight on every token: a converted form with the wrong head size was off by a tenth here and there, no more.
        np.testing.assert_allclose([score.logprob for score in sample.scores], judged, atol=0.02)
