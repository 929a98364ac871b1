"""What votes that stop early save: ``python -m ops.bench.early_stopping RECORDED.jsonl`` (add ``--n 8``).

A line of the file has `samples`, each with `model`, `prompt_style`, `decode`, `text` and `answer`, such as real
recorded answers; those of one model and prompt with decode ``sample`` are one vote's, `n` at a time. In
ops/reference_pair `python votes.py OUT.jsonl` draws such a file from the reference pair.

Each vote is played in full and once for every way of stopping, by the product's own rule and its own waves. A sample
takes as long as its text; the mean text of its file is one unit of time and 1 is what all its votes' samples take. A
sample that is cut off has cost what it had written by then. Nothing is random, so two runs print the same table.
Exit status 1 where a decision, a winner or (with `p1_star: full`) the drawn plan is not the full vote's.
"""

import argparse
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from cope.core.answers.model import AnswerKey
from cope.core.confidence import ThresholdRule, votes_needed
from cope.core.history import Sample, SampleStatus
from cope.core.policies.common import draw_priority
from cope.core.stages import StragglerRule
from cope.core.stopping import VoteState, may_stop
from cope.core.vote import Vote, tally
from cope.core.waves import Waves, launched

TAUS = tuple(map(Fraction, ("1/2", "5/8", "3/4", "7/8", "1")))


@dataclass(frozen=True, slots=True)
class Drawn:
    """One sample of a recorded vote. `length` > 0 is that of its text, in bytes."""

    sample: Sample
    length: int


@dataclass(frozen=True, slots=True)
class Played:
    """How a vote went: `ended` are the samples it had, `written` the bytes of these and of those cut off, `time` (in
    bytes written one after another) its length from the first launch to its decision."""

    ended: tuple[Sample, ...]
    written: int
    time: int


@dataclass(slots=True)
class Sums:
    """Over all votes of a file: samples awaited, bytes written, time taken, and decisions that differ."""

    samples: int = 0
    written: int = 0
    time: int = 0
    unlike: int = 0


def play(vote: Sequence[Drawn], waves: Waves, needed: int, stragglers: StragglerRule | None) -> Played:
    """One vote as the worker carries it out; `stragglers` None awaits every sample. Samples end in the order of their
    lengths, the lower index first where they are equal."""
    n, now, written = len(vote), 0, 0
    ended: list[Sample] = []
    running: list[tuple[int, int]] = []  # (when it ends, index)
    begun = 0
    while len(ended) < n:
        while begun < launched(waves, n, len(ended)):
            running.append((now + vote[begun].length, begun))
            begun += 1
        running.sort()
        now, index = running.pop(0)
        ended.append(vote[index].sample)
        written += vote[index].length
        if stragglers is not None and may_stop(ended, n, needed, stragglers) is not VoteState.OPEN:
            break
    cut_off = sum(vote[index].length - (ends - now) for ends, index in running)
    return Played(tuple(ended), written + cut_off, now)


def decision(vote: Vote, needed: int) -> AnswerKey | None:
    """The accepted answer's key, None for an escalation."""
    return vote.winner.key if vote.winner is not None and vote.winner.count >= needed else None


def p1_star(ended: Sequence[Sample], n: int, seed: int) -> int:
    """The index of the plan that an escalation would hand on."""
    winner = tally(tuple(ended), n).winner
    pool = range(n) if winner is None else winner.indices
    return min(pool, key=lambda index: draw_priority(seed, "p1_star", index))


def compare(
    votes: Sequence[Sequence[Drawn]], n: int, tau: Fraction, waves: Waves, stragglers: StragglerRule | None
) -> Sums:
    """Play every vote this way; what differs is counted against the full vote."""
    needed, sums = votes_needed(tau, n, ThresholdRule.AT_LEAST), Sums()
    for seed, vote in enumerate(votes):
        played = play(vote, waves, needed, stragglers)
        full = tuple(drawn.sample for drawn in vote)
        right = decision(tally(full, n), needed)
        same = decision(tally(played.ended, n), needed) == right
        if right is None and stragglers is StragglerRule.FULL:
            same &= p1_star(played.ended, n, seed) == p1_star(full, n, seed)
        sums.samples += len(played.ended)
        sums.written += played.written
        sums.time += played.time
        sums.unlike += not same
    return sums


def ways(n: int) -> list[Waves]:
    """All at once, two and three waves, and one by one."""
    half, quarter = n // 2, n // 4
    split = [(), (half, n - half), (n - quarter, quarter), (half, quarter, n - half - quarter), (1,) * n]
    ones = (half, *(1,) * (n - half))
    return [waves for waves in dict.fromkeys([*split, ones]) if all(waves)]


def read(path: Path, n: int) -> dict[str, list[list[Drawn]]]:
    """The votes of a file by whose they are, `n` samples each; what is left over makes none."""
    votes: dict[str, list[list[Drawn]]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for one in json.loads(line)["samples"]:
            if one.get("decode", "sample") == "sample":
                groups[f"{one.get('model', 'samples')} {one.get('prompt_style', '')}".strip()].append(one)
        for name, samples in groups.items():
            votes[name] += (list(map(_drawn, range(n), chunk)) for chunk in _chunks(samples, n))
    return {name: found for name, found in votes.items() if found}


def _chunks(samples: Sequence[dict[str, Any]], n: int) -> list[Sequence[dict[str, Any]]]:
    return [samples[at : at + n] for at in range(0, len(samples) - n + 1, n)]


def _drawn(index: int, one: dict[str, Any]) -> Drawn:
    answer = None if one["answer"] is None else str(one["answer"])
    key = None if answer is None else AnswerKey(answer)
    return Drawn(
        Sample(index, SampleStatus.FINISHED, answer=answer, key=key),
        max(1, len(one["text"].encode("utf-8", "replace"))),
    )


def table(votes: Sequence[Sequence[Drawn]], n: int, taus: Sequence[Fraction]) -> tuple[list[str], int]:
    """A row for each way of stopping, and how many decisions differed in all."""
    rows, unlike = [], 0
    for tau in taus:
        whole = compare(votes, n, tau, (), None)
        accepted = sum(
            decision(tally(tuple(d.sample for d in vote), n), votes_needed(tau, n, ThresholdRule.AT_LEAST)) is not None
            for vote in votes
        )
        for stragglers, waves in itertools.product((StragglerRule.ARRIVED, StragglerRule.FULL), ways(n)):
            sums = compare(votes, n, tau, waves, stragglers)
            unlike += sums.unlike
            rows.append(
                f"| {float(tau):g} | {100 * accepted / len(votes):.0f} % | {stragglers.value} |"
                f" {'+'.join(map(str, waves)) or 'all at once'} | {_saved(sums.samples, whole.samples)} |"
                f" {_saved(sums.written, whole.written)} | {_saved(sums.time, whole.time)} |"
                f" {len(votes) - sums.unlike} of {len(votes)} |"
            )
    return rows, unlike


def _saved(part: int, whole: int) -> str:
    return f"{100 * (1 - part / whole):+.1f} %"


HEAD = (
    "| tau | accepted | p1_star | waves | samples saved | tokens saved | latency saved | decisions equal |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("recorded", type=Path)
    parser.add_argument("--n", type=int, default=8, help="samples of a vote (default 8)")
    parser.add_argument("--tau", type=Fraction, action="append", help="such as 3/4; repeat it (default: five)")
    given = parser.parse_args(arguments)
    unlike = 0
    for name, votes in read(given.recorded, given.n).items():
        rows, differ = table(votes, given.n, given.tau or TAUS)
        unlike += differ
        print(f"\n{name}: {len(votes)} votes of {given.n}\n\n{HEAD}")
        print("\n".join(rows))
    print(f"\n{unlike} decisions differ from the full vote's")
    return 1 if unlike else 0


if __name__ == "__main__":
    sys.exit(main())
