"""ALFWorld's household games, played by its own engine: generated from its shipped domain, or from the games' files.

Needs the extra `alfworld`. Its benchmark (134 games of `valid_unseen`) is downloaded by `alfworld-download`; a folder
given as --game-files is searched for ``game.tw-pddl``. Current versions say `move X to Y` where older ones, and the
games' literature, say `put X in/on Y`: whatever a game lists is admissible, and kind `action` reads one as the other
where that is plain.
"""

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from cope_eval.alfworld_make import make_problem
from cope_eval.game import Game, NoGames, Turn

GAME_FILE = "game.tw-pddl"
_KIND = re.compile(r"(?P<kind>(?:pick|look)[a-z_]+)-")
_UNSUPPORTED = ("movable", "Sliced")  # by the engine, whose own loader leaves them out


@dataclass(frozen=True, slots=True)
class GameFiles:
    """`Games` from files, in an order drawn from the seed: the first of the `of` that there are, each once."""

    folder: Path
    files: tuple[Path, ...]
    seed: int
    of: int

    @classmethod
    def found(cls, folder: Path, *, games: int, seed: int) -> "GameFiles":
        """At most `games` of those in `folder` and below it. Raises `NoGames`."""
        if not folder.is_dir():
            raise NoGames(f"--game-files: {folder} is no folder. ALFWorld's are fetched by: alfworld-download")
        files = sorted(path for path in folder.rglob(GAME_FILE) if _playable(path))
        if not files:
            raise NoGames(f"--game-files: no playable {GAME_FILE} lies in or below {folder}.")
        Random(seed).shuffle(files)  # noqa: S311 - an order, no secret
        return cls(folder, tuple(files[:games]), seed, of=len(files))

    @property
    def name(self) -> str:
        """The folder's name, how many lie in it, and the seed of their order."""
        return f"alfworld, {self.of} games of {self.folder.name}, seed {self.seed}"

    def __len__(self) -> int:
        return len(self.files)

    def open(self, number: int) -> Game:
        """Game `number`."""
        path = self.files[number]
        found = _KIND.match(path.parent.parent.name)
        return EngineGame(path, kind=found["kind"] if found else "game")


@dataclass(frozen=True, slots=True)
class GeneratedGames:
    """`Games` generated from the shipped domain: equal seeds are equal games."""

    seed: int
    count: int

    @property
    def name(self) -> str:
        """Which games these are."""
        return f"alfworld's domain, seed {self.seed}"

    def __len__(self) -> int:
        return self.count

    def open(self, number: int) -> Game:
        """Game `number`."""
        kind, goal, problem = make_problem(Random(f"{self.seed}:{number}"))  # noqa: S311 - a game, no secret
        domain, grammar = _shipped()
        data = {
            "pddl_domain": domain,
            "grammar": grammar.replace("UNKNOWN GOAL", goal),
            "pddl_problem": problem,
            "solvable": True,
        }
        with tempfile.TemporaryDirectory() as folder:  # the engine goes by the file's name, and reads it at once
            path = Path(folder) / GAME_FILE
            path.write_text(json.dumps(data))
            return EngineGame(path, kind=kind)


class EngineGame:
    """A `Game` that ALFWorld's engine plays."""

    def __init__(self, path: Path, *, kind: str) -> None:
        textworld, demangler = _engine()
        asked = textworld.EnvInfos(won=True, admissible_commands=True)
        self._env = textworld.start(str(path), asked, wrappers=[demangler()])
        self._kind = kind

    @property
    def kind(self) -> str:
        """ALFWorld's name of the task's kind, such as ``pick_heat_then_place_in_recep``."""
        return self._kind

    def begin(self) -> Turn:
        """The room and the task, without the engine's greeting."""
        state = self._env.reset()
        return _turn(state, state["feedback"].removeprefix("-= Welcome to TextWorld, ALFRED! =-").strip())

    def act(self, action: str) -> Turn:
        """What follows one of the admissible commands."""
        state, _, _ = self._env.step(action)
        return _turn(state, state["feedback"].strip())

    def close(self) -> None:
        """End the engine."""
        self._env.close()


def alfworld_games(folder: Path | None, *, games: int, seed: int) -> GameFiles | GeneratedGames:
    """Those of a folder, or generated ones. Raises `NoGames`, also where the extra is not installed."""
    _engine()
    return GeneratedGames(seed, games) if folder is None else GameFiles.found(folder, games=games, seed=seed)


def _turn(state: Any, observation: str) -> Turn:
    won = bool(state["won"])
    # "help" lists the commands, which every request does; an agent would spend a step on it.
    actions = () if won else tuple(command for command in state["admissible_commands"] if command != "help")
    return Turn(observation, actions, won=won, over=won)


def _playable(path: Path) -> bool:
    if any(word in str(path.parent) for word in _UNSUPPORTED):
        return False
    try:
        return json.loads(path.read_text()).get("solvable") is True
    except (OSError, ValueError, AttributeError):
        return False


def _engine() -> tuple[Any, Any]:
    try:
        import textworld
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    except ImportError as missing:
        raise NoGames(
            f"--source alfworld needs the extra (pip install 'cope-service[alfworld]'), and {missing.name} is not "
            "installed. --source own needs nothing."
        ) from None
    return textworld, AlfredDemangler


def _shipped() -> tuple[str, str]:
    """The domain and the grammar that the package brings along."""
    from alfworld.info import ALFRED_PDDL_PATH, ALFRED_TWL2_PATH

    return Path(ALFRED_PDDL_PATH).read_text(), Path(ALFRED_TWL2_PATH).read_text()
