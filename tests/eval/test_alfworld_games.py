"""ALFWorld's games: what can be said of them without its engine, and a whole game where the engine is installed."""

import importlib.util
import json
from pathlib import Path
from random import Random

import pytest

from cope_eval.alfworld_games import GameFiles, GeneratedGames, alfworld_games
from cope_eval.alfworld_make import KINDS, make_problem
from cope_eval.game import NoGames

needs_engine = pytest.mark.skipif(importlib.util.find_spec("alfworld") is None, reason="the extra alfworld")


def game_file(folder: Path, name: str, *, solvable: object = True) -> None:
    place = folder / name / "trial_1"
    place.mkdir(parents=True)
    (place / "game.tw-pddl").write_text(json.dumps({"solvable": solvable}))


def test_problems_are_seeded_balanced_in_their_brackets_and_not_solved_already() -> None:
    made = [make_problem(Random(str(i))) for i in range(200)]
    assert made == [make_problem(Random(str(i))) for i in range(200)]
    assert {kind for kind, _, _ in made} == set(KINDS)
    for kind, goal, problem in made:
        assert problem.count("(") == problem.count(")")
        thing, _, where = goal.removeprefix("put ").partition(" in/on ")
        word = thing.rsplit(" ", 1)[1]
        init = problem.partition("(:init")[2].partition("(:goal")[0].lower()
        assert f"(inreceptacle {word}_bar_1 " in init
        assert f"(inreceptacle {word}_bar_1 {where}_bar_" not in init
        assert kind != "two" or f"(inreceptacle {word}_bar_2 " in init
        assert "(receptacletype sink_bar_1_bar_sinkbasin sinkbasintype)" in init


def test_game_files_are_found_in_a_seeded_order_and_the_unplayable_left_out(tmp_path: Path) -> None:
    for i in range(5):
        game_file(tmp_path, f"pick_heat_then_place_in_recep-Apple-None-Fridge-{i}")
    game_file(tmp_path, "pick_and_place_simple-Mug-None-Desk-1", solvable=False)
    game_file(tmp_path, "pick_and_place_with_movable_recep-Mug-Bowl-Desk-1")
    game_file(tmp_path, "pick_and_place_simple-TomatoSliced-None-Desk-1")
    found = GameFiles.found(tmp_path, games=134, seed=1)

    assert len(found) == 5
    assert found.files == GameFiles.found(tmp_path, games=134, seed=1).files
    assert len(GameFiles.found(tmp_path, games=2, seed=1)) == 2
    with pytest.raises(NoGames, match="alfworld-download"):
        GameFiles.found(tmp_path / "none", games=1, seed=0)
    with pytest.raises(NoGames, match=r"no playable game\.tw-pddl"):
        GameFiles.found(tmp_path / "pick_and_place_simple-Mug-None-Desk-1", games=1, seed=0)


@pytest.mark.skipif(importlib.util.find_spec("alfworld") is not None, reason="it is installed")
def test_without_the_extra_the_way_to_get_it_is_told() -> None:
    with pytest.raises(NoGames, match=r"cope-service\[alfworld\]"):
        alfworld_games(None, games=1, seed=0)


@needs_engine
def test_a_generated_game_is_won_by_searching_every_place() -> None:
    games = GeneratedGames(seed=1, count=20)
    number = next(i for i in range(20) if make_problem(Random(f"1:{i}"))[0] == "place")
    game = games.open(number)
    try:
        turn = game.begin()
        assert "Your task is to: put a " in turn.observation
        task = turn.observation.rpartition("put a ")[2].rstrip(".")
        thing, _, where = task.partition(" in/on ")
        taken = None
        for place in [action for action in turn.actions if action.startswith("go to ")]:
            turn = game.act(place)
            for action in [one for one in turn.actions if one.startswith("open ")]:
                turn = game.act(action)
            taken = next((one for one in turn.actions if one.startswith(f"take {thing} ")), None)
            if taken is not None and f" from {where} " not in taken:
                break
        assert taken is not None
        turn = game.act(taken)
        turn = game.act(next(one for one in turn.actions if one.startswith(f"go to {where} ")))
        for action in [one for one in turn.actions if one.startswith("open ")]:
            turn = game.act(action)
        turn = game.act(next(one for one in turn.actions if one.startswith(f"move {thing} ")))
        assert (turn.won, turn.over, turn.actions) == (True, True, ())
    finally:
        game.close()
