"""The engine: requests join and leave at any token, stop when nobody wants them, and share what they have in common."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cope_reference.engine import Engine, EngineDown, QueueFull
from cope_reference.sequences import Sequence, Settings
from tests.reference_server.tiny import plain_logits, write_tiny

PROMPT = [2, 77, 101, 108, 108, 3]
Start = Callable[..., Engine]


class Watched(Sequence):
    """A sequence whose end, or n-th token, can be waited for."""

    def __init__(self, settings: Settings, prompt: list[int] | None = None) -> None:
        self.changed = threading.Condition()
        super().__init__(prompt or PROMPT, settings, self._tell)

    def _tell(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def until(self, what: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(what, 30)

    def result(self) -> tuple[list[int], str | None]:
        self.until(lambda: self.finish is not None)
        return self.tokens, self.finish


def greedy_reference(folder: Path, prompt: list[int], tokens: int) -> list[int]:
    text = list(prompt)
    for _ in range(tokens):
        text.append(int(np.argmax(plain_logits(folder, text))))
    return text[len(prompt) :]


def test_greedy_tokens_are_those_of_the_formula_without_any_cache(tiny: Path, start: Start) -> None:
    one = Watched(Settings(12, 0.0))
    start(tiny).submit([one])
    assert one.result() == (greedy_reference(tiny, PROMPT, 12), "length")


def test_a_request_gets_the_same_answer_alone_and_among_many(tiny: Path, start: Start) -> None:
    alone = Watched(Settings(40, 0.0))
    start(tiny).submit([alone])
    alone.result()
    engine = start(tiny, most=8)
    crowd = [Watched(Settings(5 + i % 17, 1.0), [2, *range(10, 11 + i), 3]) for i in range(30)]
    among = Watched(Settings(40, 0.0))
    engine.submit(crowd[:15])
    engine.submit([among])
    engine.submit(crowd[15:])
    assert among.result() == alone.result()
    assert [len(one.result()[0]) for one in crowd] == [5 + i % 17 for i in range(30)]


def test_a_seed_gives_the_same_sample_again_and_another_for_another_choice(tiny: Path, start: Start) -> None:
    engine = start(tiny)
    samples = [Watched(Settings(30, 1.0, seed=seed)) for seed in ((5, 0), (5, 1), (5, 0), (6, 0))]
    engine.submit(samples)
    texts = [one.result()[0] for one in samples]
    assert texts[0] == texts[2]
    assert texts[0] != texts[1] != texts[3] != texts[0]


def test_scores_are_log_probabilities_before_temperature_with_the_likeliest_beside(tiny: Path, start: Start) -> None:
    one = Watched(Settings(4, 2.0, top=2))
    start(tiny).submit([one])
    tokens, _ = one.result()
    logits = plain_logits(tiny, PROMPT)
    expected = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    first = one.scores[0]
    assert first.logprob == pytest.approx(expected[tokens[0]], abs=1e-3)
    assert [token for token, _ in first.alternatives] == np.argsort(expected)[::-1][:2].tolist()
    assert len(one.scores) == len(tokens)


def test_the_end_mark_ends_a_sample_and_counts_as_a_token(tmp_path: Path, start: Start) -> None:
    folder = write_tiny(tmp_path, endless=False, eos_token_id=list(range(5, 261)))
    one = Watched(Settings(50, 1.0))
    start(folder).submit([one])
    tokens, finish = one.result()
    assert (len(tokens), finish) == (1, "stop")


def test_a_full_context_ends_a_sample_as_length(tiny: Path, start: Start) -> None:
    one = Watched(Settings(10_000, 1.0))
    start(tiny).submit([one])
    tokens, finish = one.result()
    assert (len(tokens), finish) == (256 - len(PROMPT), "length")


def test_an_aborted_sample_gets_no_further_token_and_frees_its_row(long_winded: Path, start: Start) -> None:
    engine = start(long_winded, most=2)
    doomed, other = Watched(Settings(100_000, follow=True)), Watched(Settings(100_000, follow=True))
    engine.submit([doomed, other])
    doomed.until(lambda: len(doomed.tokens) > 5)
    doomed.aborted = True
    _, finish = doomed.result()
    had = len(doomed.tokens)
    more = len(other.tokens) + 50
    other.until(lambda: len(other.tokens) >= more)
    assert (finish, len(doomed.tokens)) == ("abort", had)
    assert engine.running == 1
    other.aborted = True
    other.result()
    computed = engine.counters.completion_tokens
    assert computed == len(doomed.tokens) + len(other.tokens)
    assert (engine.running, engine.counters.aborted) == (0, 2)


def test_who_is_aborted_in_line_never_begins(long_winded: Path, start: Start) -> None:
    engine = start(long_winded, most=1)
    first, waiting = Watched(Settings(100_000, follow=True)), Watched(Settings(5))
    engine.submit([first, waiting])
    first.until(lambda: len(first.tokens) > 5)
    waiting.aborted = True
    assert waiting.result() == ([], "abort")
    assert engine.counters.samples == 1


def test_a_full_line_refuses_and_takes_again_when_it_is_shorter(long_winded: Path, start: Start) -> None:
    engine = start(long_winded, most=1, waiting=2)
    running = Watched(Settings(100_000, follow=True))
    engine.submit([running])
    running.until(lambda: len(running.tokens) > 0)
    engine.submit([Watched(Settings(1)), last := Watched(Settings(1))])
    with pytest.raises(QueueFull):
        engine.submit([Watched(Settings(1))])
    running.aborted = True
    last.result()
    again = Watched(Settings(1))
    engine.submit([again])
    assert again.result()[1] == "length"


def test_siblings_compute_their_common_prompt_once(tiny: Path, start: Start) -> None:
    engine = start(tiny)
    prompt = [2, *range(20, 60), 3]
    siblings = [Watched(Settings(8, 0.0), prompt) for _ in range(8)]
    engine.submit(siblings)
    answers = [one.result()[0] for one in siblings]
    assert [one.cached for one in siblings] == [0] + [len(prompt) - 1] * 7
    assert answers == [greedy_reference(tiny, prompt, 8)] * 8


def test_a_prompt_with_the_same_beginning_reuses_its_whole_blocks(tiny: Path, start: Start) -> None:
    engine = start(tiny)
    first, second = Watched(Settings(1), [2, *range(20, 70)]), Watched(Settings(3, 0.0), [2, *range(20, 60), 99, 98])
    engine.submit([first, second])
    assert second.result()[0] == greedy_reference(tiny, second.prompt, 3)
    assert second.cached == 32


def test_closing_ends_what_is_under_way_and_takes_nothing_more(long_winded: Path) -> None:
    engine = Engine(long_winded, most=1)
    running, waiting = Watched(Settings(100_000, follow=True)), Watched(Settings(5))
    engine.submit([running, waiting])
    running.until(lambda: len(running.tokens) > 0)
    engine.close()
    assert (running.finish, waiting.finish) == ("abort", "abort")
    with pytest.raises(EngineDown):
        engine.submit([Watched(Settings(1))])


def test_when_the_engine_fails_everyone_is_told_and_nobody_waits_for_ever(tiny: Path) -> None:
    engine = Engine(tiny)
    one, beside = Watched(Settings(5), [9_999]), Watched(Settings(5))  # no such token
    engine.submit([one, beside])
    assert one.result() == ([], "error")
    assert beside.result() == ([], "error")
    assert engine.failed
    with pytest.raises(EngineDown):
        engine.submit([Watched(Settings(1))])
