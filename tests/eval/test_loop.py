"""The agent loop through a whole service with the unmodified client: what it plays, pays, keeps and takes up again."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from openai import OpenAI
from typer.testing import CliRunner

from cope_eval.__main__ import app
from cope_eval.dialogue import Decision
from cope_eval.journal import Journal, OtherRun, Result
from cope_eval.own.make import OwnGames
from cope_eval.play import Diverged, play
from cope_eval.report import seconds_left, summarise
from cope_eval.service import Ask, Batches, Decider, Live, NotAnswered, Request
from tests.api.whole import KEY, Whole, whole_service
from tests.eval.players import Players

GAMES = OwnGames(seed=1, count=6)
ASKED = Request("cope", {"prompt_set": "instruct"})
Opened = Callable[[Path], Journal]
RUN = {"games": GAMES.name, "model": "cope", "options": {"prompt_set": "instruct"}, "max_steps": 30}


@pytest.fixture
def players() -> Players:
    return Players(GAMES, range(6))


@pytest.fixture
def whole(players: Players) -> Iterator[Whole]:
    with whole_service(says=players.answer) as service:
        yield service


@pytest.fixture
def client(whole: Whole) -> Iterator[OpenAI]:
    with OpenAI(base_url=whole.url, api_key=KEY, max_retries=0) as opened:
        yield opened


@pytest.fixture
def opened() -> Iterator[Opened]:
    with ExitStack() as opening:

        def open_journal(path: Path) -> Journal:
            return opening.enter_context(closing(Journal.open(path, RUN)))

        yield open_journal


def decider_of(way: str, client: OpenAI, journal: Journal) -> Decider:
    if way == "live":
        return Live(client, ASKED, concurrency=4)
    return Batches(client, ASKED, journal, sleep=lambda _: time.sleep(0.02))


class Cut:
    """A decider that is cut off after so many decisions, as a killed process is."""

    def __init__(self, inner: Decider, most: int) -> None:
        self.inner, self.left = inner, most

    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Decision]]:
        for made in self.inner.decide(asks):
            yield made
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize("way", ["live", "batch"])
def test_games_are_won_one_decision_per_request_and_the_large_model_is_asked_where_votes_lack_agreement(
    way: str, client: OpenAI, players: Players, tmp_path: Path, opened: Opened
) -> None:
    journal = opened(tmp_path / "r.jsonl")
    play(GAMES, range(2), decider_of(way, client, journal), journal, max_steps=30)
    found = summarise(journal)

    assert (found.games, found.won, found.invalid) == (2, 2, 0)
    assert found.decisions == sum(players.steps[i] for i in range(2))
    hard = sum(players.hard(i) for i in range(2))
    assert (found.escalated, found.large_calls) == (hard, hard)
    assert found.by_stage == {1: found.decisions - hard, 2: hard}
    assert found.spent == hard * (100 * 2_500 + 10 * 10_000)  # nano-dollars: the price of `tests.api.whole`


@pytest.mark.parametrize("way", ["live", "batch"])
def test_a_run_that_was_cut_off_goes_on_from_its_decisions_and_asks_for_none_again(
    way: str, client: OpenAI, players: Players, tmp_path: Path, opened: Opened
) -> None:
    path = tmp_path / "r.jsonl"
    journal = opened(path)
    with pytest.raises(KeyboardInterrupt):
        play(GAMES, range(2), Cut(decider_of(way, client, journal), 10), journal, max_steps=30)
    journal.close()
    with path.open("a") as file:
        file.write('{"type": "decision", "game": 1, "act')  # what a kill leaves of a line

    again = opened(path)
    assert sum(map(len, again.decisions.values())) == 10
    play(GAMES, range(2), decider_of(way, client, again), again, max_steps=30)
    found = summarise(again)
    assert (found.games, found.won) == (2, 2)
    assert found.decisions == sum(players.steps[i] for i in range(2))
    if way == "batch":  # the batch that was under way was read, not submitted again
        assert len(client.batches.list(limit=100).data) == max(players.steps[i] for i in range(2))


def test_a_killed_process_loses_no_game(whole: Whole, players: Players, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    command = [sys.executable, "-m", "cope_eval", "household", "--games", "3", "--seed", "1", "--results", str(path)]
    command += ["--base-url", whole.url, "--api-key", KEY, "-o", "prompt_set=instruct", "--concurrency", "2", "--json"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < 8):
        time.sleep(0.01)
    running.kill()
    assert running.wait() == -9

    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["games"], found["won"], found["decisions"]) == (3, 3, sum(players.steps[i] for i in range(3)))
    assert (found["success"], found["success_95"][1]) == (1.0, 1.0)


def test_the_command_says_what_came_of_it_and_refuses_to_mix_two_runs(whole: Whole, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    given = ["household", "--games", "2", "--seed", "1", "--results", str(path), "--base-url", whole.url]
    given += ["--api-key", KEY, "-o", "prompt_set=instruct", "--batch"]
    said = CliRunner().invoke(app, given)
    assert said.exit_code == 0
    assert "2 (100.0 %, 95 % interval 34.2 to 100.0)" in said.output
    assert "asked the large model" in said.output

    more = CliRunner().invoke(app, [*given, "--max-steps", "9"])
    assert more.exit_code == 2
    assert "holds a run with max_steps 30, not 9" in more.output


def test_what_the_service_refuses_is_told_and_nothing_is_lost(client: OpenAI, tmp_path: Path, opened: Opened) -> None:
    journal = opened(tmp_path / "r.jsonl")
    with pytest.raises(NotAnswered, match=r"game-0-step-0: Prompt set 'reference' of model 'small'"):
        play(GAMES, range(1), Live(client, Request("cope", {}), concurrency=1), journal, max_steps=30)
    refused = Batches(client, Request("cope", {}), journal, sleep=time.sleep)
    with pytest.raises(NotAnswered, match=r"Prompt set 'reference' of model 'small'"):
        play(GAMES, range(1), refused, journal, max_steps=30)
    assert journal.waiting is None
    play(GAMES, range(1), decider_of("batch", client, journal), journal, max_steps=30)
    assert journal.results[0].won


class Fixed:
    """Says one thing, whatever is asked."""

    def __init__(self, action: str | None) -> None:
        self.action = action
        self.asked: list[Ask] = []

    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Decision]]:
        self.asked += asks
        for ask in asks:
            yield ask, Decision(self.action, 1, 0, 0, 8, "task_1")


def test_a_decision_without_an_admissible_action_costs_a_step_and_changes_nothing(
    tmp_path: Path, opened: Opened
) -> None:
    journal, nobody = opened(tmp_path / "r.jsonl"), Fixed(None)
    play(GAMES, [0], nobody, journal, max_steps=3)

    assert journal.results == {0: Result(0, GAMES.open(0).kind, won=False, steps=3, invalid=3)}
    assert [m["content"] for m in nobody.asked[2].messages[1:]] == ["Action: none", "Nothing happens."] * 2
    assert nobody.asked[2].actions == nobody.asked[0].actions


def test_a_game_ends_after_its_steps(tmp_path: Path, opened: Opened) -> None:
    journal = opened(tmp_path / "r.jsonl")
    play(GAMES, [0, 1], Fixed("look"), journal, max_steps=2)
    assert [(r.won, r.steps, r.invalid) for r in journal.results.values()] == [(False, 2, 0)] * 2


def test_games_that_have_changed_since_are_told(tmp_path: Path, opened: Opened) -> None:
    journal = opened(tmp_path / "r.jsonl")
    journal.decided(0, Decision("fly", 1, 0, 0, 8, "task_1"))
    with pytest.raises(Diverged, match="'fly'"):
        play(GAMES, [0], Fixed("look"), journal, max_steps=2)


@pytest.mark.parametrize("text", ["[1]\n", "hello\n", '{"type": "other"}\n', '{"id": 1}\n'])
def test_a_file_of_another_program_is_left_alone(text: str, tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(OtherRun, match="--results"):
        opened(path)
    assert path.read_text() == text


def test_the_time_left_goes_by_the_decisions_of_this_run(tmp_path: Path, opened: Opened) -> None:
    journal = opened(tmp_path / "r.jsonl")
    assert seconds_left(summarise(journal), games=2, max_steps=10, now_made=0, elapsed_s=9.0) is None
    journal.decided(0, Decision("look", 1, 0, 0, 8, "task_1"))
    assert seconds_left(summarise(journal), games=2, max_steps=10, now_made=1, elapsed_s=2.0) == 18.0


def test_no_more_games_than_allowed_are_under_way_at_once(opened: Opened, tmp_path: Path) -> None:
    journal, seen = opened(tmp_path / "r.jsonl"), Fixed("look")
    play(GAMES, range(3), seen, journal, max_steps=2, at_once=2)
    assert [ask.custom_id for ask in seen.asked] == [
        "game-0-step-0", "game-1-step-0", "game-0-step-1", "game-1-step-1", "game-2-step-0", "game-2-step-1",
    ]  # fmt: skip
    assert sorted(journal.results) == [0, 1, 2]
