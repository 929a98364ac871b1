"""A sample's text as tokens arrive: characters whole, stop strings never shown."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from cope_reference.sequences import Sequence, Settings


@pytest.fixture
def tokenizer(tiny: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny / "tokenizer.json"))


def sequence(*stop: str) -> Sequence:
    return Sequence([2], Settings(100, stop=stop, follow=True), lambda: None)


def fed(tokenizer: Tokenizer, one: Sequence, text: str) -> list[str]:
    """What is shown after each token (one token a byte here), up to a stop string."""
    shown = []
    for token in tokenizer.encode(text, add_special_tokens=False).ids:
        one.tokens.append(token)
        stopped = one.read(tokenizer)
        shown.append(one.shown())
        if stopped:
            break
    return shown


def test_a_character_is_shown_when_its_last_byte_has_come(tokenizer: Tokenizer) -> None:
    assert fed(tokenizer, sequence(), "a€b") == ["a", "a", "a", "a€", "a€b"]


def test_text_ends_before_a_stop_string_and_nothing_of_it_is_ever_shown(tokenizer: Tokenizer) -> None:
    one = sequence("END")
    assert fed(tokenizer, one, "12 EN, END later") == [
        "1", "12", "12 ", "12 ", "12 ", "12 EN,", "12 EN, ", "12 EN, ", "12 EN, ", "12 EN, ",
    ]  # fmt: skip
    assert one.text == "12 EN, "


def test_of_two_stop_strings_the_earlier_in_the_text_counts(tokenizer: Tokenizer) -> None:
    one = sequence("cd", "bcde")
    fed(tokenizer, one, "abcdef")
    assert one.text == "ab"


def test_bytes_that_never_become_a_character_are_shown_in_the_end(tokenizer: Tokenizer) -> None:
    one = sequence()
    one.tokens = tokenizer.encode("a€", add_special_tokens=False).ids[:-1]
    assert one.read(tokenizer) is False
    one.read(tokenizer, last=True)
    assert one.text == "a�"
