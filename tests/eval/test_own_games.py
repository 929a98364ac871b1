"""The small household: always solvable, the same for the same seed, and nothing is possible that isn't listed."""

from random import Random

import pytest

from cope.core.answers.actions import extract_action, first_twins
from cope_eval.own.expert import expert_action
from cope_eval.own.make import OwnGames
from cope_eval.own.things import Treatment
from cope_eval.own.world import Goal, Household

GAMES = OwnGames(seed=3, count=200)
CLEAN_MUG = Goal("mug", Treatment.CLEAN, "cupboard")


def kitchen(goal: Goal = CLEAN_MUG) -> Household:
    rooms = {"kitchen": ("counter 1", "cupboard 1", "sink 1", "microwave 1"), "study": ("desk 1",)}
    lies = {"counter 1": ["mug 1"], "cupboard 1": [], "sink 1": [], "microwave 1": [], "desk 1": ["book 1"]}
    return Household(goal, rooms, lies, room="study")


def test_the_expert_wins_all_of_200_games_within_a_dozen_steps_and_each_kind_comes_up() -> None:
    kinds: set[str] = set()
    for number in range(len(GAMES)):
        game = GAMES.open(number)
        kinds.add(game.kind)
        turn, steps = game.begin(), 0
        while not turn.over:
            assert steps < 12
            turn, steps = game.act(expert_action(game)), steps + 1
        assert turn.won
        assert turn.actions == ()
    assert kinds == {"place", "clean", "heat", "cool"}


def test_a_game_is_won_from_wherever_a_bad_player_left_it() -> None:
    for number in range(50):
        draw, game = Random(number), GAMES.open(number)
        turn = game.begin()
        for _ in range(20):
            if not turn.over:
                turn = game.act(draw.choice(turn.actions))
        for _ in range(20):
            if not turn.over:
                turn = game.act(expert_action(game))
        assert turn.won


def test_equal_seeds_are_equal_games_and_others_differ() -> None:
    again, other = OwnGames(3, 200), OwnGames(4, 200)
    assert [GAMES.open(i).begin() for i in range(20)] == [again.open(i).begin() for i in range(20)]
    assert [GAMES.open(i).begin() for i in range(20)] != [other.open(i).begin() for i in range(20)]


def test_the_actions_of_every_turn_are_told_apart_and_read_back() -> None:
    for number in range(40):
        draw, game = Random(number), GAMES.open(number)
        turn = game.begin()
        for _ in range(15):
            if turn.over:
                break
            assert first_twins(turn.actions) is None
            action = draw.choice(turn.actions)
            assert extract_action(turn.actions, f"Action: {action}") == action
            turn = game.act(action)


def test_a_game_played_by_hand() -> None:
    game = kitchen()
    assert game.begin().observation == (
        "Your task: put a clean mug in a cupboard.\n"
        "You are in the study and see: desk 1. From here you can walk to: kitchen."
    )
    told = [
        game.act(action).observation
        for action in (
            "walk to kitchen",
            "go to counter 1",
            "take mug 1 from counter 1",
            "go to cupboard 1",
            "open cupboard 1",
            "go to sink 1",
            "clean mug 1 with sink 1",
            "inventory",
            "go to cupboard 1",
        )
    ]
    assert told[1:] == [
        "You stand at counter 1. You see mug 1 on it.",
        "You take mug 1 from counter 1.",
        "You stand at cupboard 1. It is closed.",
        "You open cupboard 1. There is nothing in it.",
        "You stand at sink 1. There is nothing on it.",
        "You clean mug 1 with sink 1: it is clean now.",
        "You carry mug 1 (clean).",
        "You stand at cupboard 1. There is nothing in it.",
    ]
    end = game.act("move mug 1 to cupboard 1")
    assert (end.won, end.over, end.actions) == (True, True, ())


def test_nothing_is_seen_or_taken_behind_a_door_and_one_thing_is_carried_at_a_time() -> None:
    game = kitchen()
    assert game.admissible() == ("walk to kitchen", "go to desk 1", "look", "inventory")
    game.act("go to desk 1")
    assert "take book 1 from desk 1" in game.admissible()
    game.act("take book 1 from desk 1")
    game.act("walk to kitchen")
    game.act("go to counter 1")
    assert "take mug 1 from counter 1" not in game.admissible()
    game.act("go to microwave 1")
    assert "move book 1 to microwave 1" not in game.admissible()
    assert "heat book 1 with microwave 1" not in game.admissible()
    with pytest.raises(ValueError, match="not possible now"):
        game.act("move book 1 to microwave 1")


def test_what_is_heated_is_not_cold_any_more() -> None:
    game = kitchen(Goal("mug", Treatment.HEAT, "counter"))
    game.traits["mug 1"] = {"cold", "clean"}
    for action in ("walk to kitchen", "go to counter 1", "take mug 1 from counter 1", "go to microwave 1"):
        game.act(action)
    game.act("heat mug 1 with microwave 1")
    assert game.traits["mug 1"] == {"clean", "hot"}
