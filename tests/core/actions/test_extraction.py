"""Which admissible action a solution names, and which texts are one vote."""

import pytest

from cope.core.answers import quick_key
from cope.core.answers.actions import extract_action, first_twins, normalised_action
from cope.core.answers.extract import extract
from cope.core.answers.keys import canonical_key
from cope.core.answers.model import Keyed, Unkeyable
from cope.core.problem import Kind, Message, Problem

ACTIONS = ("go to desk 1", "Go to desk 10", "open drawer 2", "take mug 1 from desk 1", "look", "inventory")


def named(text: str, actions: tuple[str, ...] = ACTIONS) -> str | None:
    return extract_action(actions, text)


@pytest.mark.parametrize(
    "text",
    [
        "go to desk 1",
        "Action: go to desk 1",
        "The mug may be there.\nAction: Go to Desk 1.",
        "**Action:** go to desk 1",
        "**Action**: `go to desk 1`",
        "> Action: “go to desk 1”!",
        "Next action: go to desk 1",
        "The chosen action: [go to desk 1]",
        "Action 3: go  to\tdesk 1",
        "action => 4. go to desk 1",
        "Action:\n\n- go to desk 1\n",
        "ACTION: ＧＯ to desk\u00a01",  # full-width letters, a hard space
        "Action: open drawer 2\nNo, better:\nAction: go to desk 1",
        "Open drawer 2 or go to desk 1?\nAction: Action: 'go to desk 1'",
        "I looked at it.\n\n  * (go to desk 1)",
        "I had better go to desk 1, where mugs are kept.",
        "Go to desk 1. Yes: go to desk 1 it is.",
        "I do not know where it is, but I will go to desk 1.",
    ],
)
def test_an_action_is_read_however_a_model_dresses_it(text: str) -> None:
    assert named(text) == "go to desk 1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "...",
        "Action:",
        "Action: fly to desk 1",
        "Action: go to desk 2",
        "Action: go to desk 1 and take mug 1 from desk 1",  # two at once are no single action
        "go to desk 1\nAction: eat the mug",  # the stated one decides
        "Either open drawer 2 or go to desk 1.",
        "Do not open drawer 2.",
        "You shouldn't open drawer 2.",
        "Rather than open drawer 2 wait.",
        "Let me look for the mug.",  # prose, where other actions have several words
        "go to desk 11",
        "go to desk",
    ],
)
def test_nothing_is_guessed(text: str) -> None:
    assert named(text) is None


def test_the_longer_action_is_meant_where_it_holds_a_shorter_one() -> None:
    assert named("I will go to desk 10 now, I think.") == "Go to desk 10"
    assert named("So click buy now, then.", ("click buy", "click buy now")) == "click buy now"


def test_a_single_word_in_prose_counts_where_it_is_quoted_or_all_actions_are_single_words() -> None:
    assert named("I will `look` first.") == "look"
    assert named("I turn left here.", ("left", "right", "jump")) == "left"
    assert named("Action: look") == "look"
    assert named("Look.") == "look"


def test_actions_that_are_signs_can_be_stated() -> None:
    assert named("Action: ?", ("?", "+")) == "?"


@pytest.mark.parametrize(
    ("stated", "actions", "wanted"),
    [
        ("move mug 1 to desk 1", ("put mug 1 in/on desk 1",), "put mug 1 in/on desk 1"),
        ("put mug 1 in/on desk 1", ("move mug 1 to desk 1",), "move mug 1 to desk 1"),
        ("put mug 1 on desk 1", ("move mug 1 to desk 1",), "move mug 1 to desk 1"),
        ("put mug 1 in/on desk 1", ("put mug 1 on desk 1",), "put mug 1 on desk 1"),
        # Both are admissible: each stands for itself.
        ("move mug 1 to desk 1", ("put mug 1 in/on desk 1", "move mug 1 to desk 1"), "move mug 1 to desk 1"),
        ("put mug 1 in/on desk 1", ("put mug 1 in/on desk 1", "move mug 1 to desk 1"), "put mug 1 in/on desk 1"),
        # Either may be meant.
        ("move mug 1 to desk 1", ("put mug 1 in desk 1", "put mug 1 on desk 1"), None),
        # Another act, thing or place.
        ("put mug 1 in desk 1", ("put mug 1 on desk 1",), None),
        ("move mug 1 to desk 1", ("put mug 2 in/on desk 1",), None),
        ("move mug 1 to desk 1", ("put mug 1 in/on desk 2",), None),
        ("place mug 1 to desk 1", ("put mug 1 in/on desk 1",), None),
        ("put mug 1 to desk 1", ("move mug 1 to desk 1",), None),
    ],
)
def test_moving_and_putting_are_one_act_only_where_one_action_can_be_meant(
    stated: str, actions: tuple[str, ...], wanted: str | None
) -> None:
    assert named(f"Action: {stated}", actions) == wanted


@pytest.mark.parametrize(
    "text", ["open drawer 2", " 1) Open  drawer 2. ", "“open drawer 2”", "Action: open drawer 2", "<OPEN DRAWER 2>"]
)
def test_equal_actions_share_a_key_that_is_a_function_of_the_action_alone(text: str) -> None:
    assert quick_key(Kind.ACTION, text) == Keyed(canonical_key(Kind.ACTION, "open drawer 2", None))  # type: ignore[arg-type]
    assert normalised_action(normalised_action(text)) == normalised_action(text) == "open drawer 2"


def test_an_action_beyond_the_limit_has_no_key() -> None:
    assert isinstance(quick_key(Kind.ACTION, "go " * 1_000), Unkeyable)
    assert isinstance(quick_key(Kind.ACTION, " "), Unkeyable)


def test_twins_are_found_by_their_canonical_form() -> None:
    assert first_twins(("look", "go", "2. Look!")) == (0, 2)
    assert first_twins(("look 1", "look 2")) is None


def test_extraction_goes_by_the_problems_own_actions() -> None:
    problem = Problem(Kind.ACTION, (Message("user", "You see a desk."),), actions=("Look", "Go to desk 1"))
    assert extract(problem, "Action: go to desk 1") == "Go to desk 1"


@pytest.mark.parametrize(
    "text",
    [
        "go " * 60_000,
        " " * 200_000,
        "Action:" * 30_000,
        "put a in b " * 20_000,
        "(" * 200_000,
        "- " * 100_000,
        "\n" * 100_000 + "my " * 1_000,
    ],
)
def test_hostile_texts_name_nothing(text: str) -> None:
    actions = tuple(f"go {'go ' * i}to desk {i}" for i in range(30)) + tuple(f"move a to b{i}" for i in range(480))
    assert named(text, actions) is None
