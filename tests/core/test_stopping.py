"""The gate of the lossless stopping rule: every vote of up to six samples, every part that can have arrived, every k.
A stop is judged by the part that has arrived alone, so all the parts are all orders of arrival and all waves.

Votes that differ only in what their answers say are one vote, so classes are numbered by their first sample; an
unparsable answer is None. That leaves 877 votes of six for some hundreds of thousands.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations

import pytest

from cope.core.answers.model import AnswerKey
from cope.core.history import Sample, SampleStatus
from cope.core.policies.decision import Accept
from cope.core.policies.registry import next_decision
from cope.core.stages import Stage, Step, StopRule, StragglerRule, Tier
from cope.core.stopping import VoteState, may_stop, vote_state
from cope.core.task import OnBudget, TaskSpec
from cope.core.vote import Vote, tally
from cope.core.waves import launched
from tests.support import finished_step, make_policy, make_spec, sample, usd

Votes = tuple[int | None, ...]


def every_vote(n: int) -> Iterator[Votes]:
    def extend(vote: Votes, classes: int) -> Iterator[Votes]:
        if len(vote) == n:
            yield vote
            return
        for answer in (None, *range(classes + 1)):
            yield from extend((*vote, answer), classes + (answer == classes))

    return extend((), 0)


def drawn(vote: Votes) -> list[Sample]:
    return [
        Sample(
            index,
            SampleStatus.FINISHED,
            answer=None if answer is None else str(answer),
            key=None if answer is None else AnswerKey(str(answer)),
        )
        for index, answer in enumerate(vote)
    ]


def part_of(vote: Votes, mask: int) -> tuple[int | str | None, ...]:
    """What has arrived, classes numbered by their first sample in it; a dot where nothing has."""
    names: dict[int, int] = {}
    return tuple(
        "." if not mask >> index & 1 else None if answer is None else names.setdefault(answer, len(names))
        for index, answer in enumerate(vote)
    )


def decisions(votes: list[Votes], n: int) -> dict[tuple[int | str | None, ...], tuple[Vote, list[str]]]:
    """By part that can have arrived: its tally, and for k = 1 .. n + 1 the one right state of its vote, found by
    looking at every completion."""
    outcomes: dict[tuple[int | str | None, ...], set[tuple[int, int]]] = {}
    parts: dict[tuple[int | str | None, ...], Vote] = {}
    for vote in votes:
        samples = drawn(vote)
        winner = tally(tuple(samples), n).winner
        for mask in range(1 << n):
            part = part_of(vote, mask)
            if part not in parts:
                parts[part] = tally(tuple(s for s in samples if mask >> s.index & 1), n)
                outcomes[part] = set()
            # The winner by its first sample that has arrived: the class's name in this part, or n for a class of which
            # none has.
            first = next((i for i in winner.indices if mask >> i & 1), n) if winner else -1
            outcomes[part].add((first, winner.count if winner else 0))
    return {part: (vote, [_state(outcomes[part], k) for k in range(1, n + 2)]) for part, vote in parts.items()}


def _state(outcomes: set[tuple[int, int]], k: int) -> str:
    accepted = {first for first, count in outcomes if count >= k}
    escalates = any(count < k for _, count in outcomes)
    if not accepted:
        return "escalate"
    return "open" if escalates or len(accepted) > 1 else "accept"


@pytest.mark.parametrize(("n", "votes"), [(1, 2), (2, 5), (3, 15), (4, 52), (5, 203), (6, 877)])
def test_a_vote_stops_exactly_when_every_completion_decides_alike(n: int, votes: int):
    every = list(every_vote(n))
    wrong = missed = 0
    for part, (vote, right) in decisions(every, n).items():
        outstanding = [index for index, answer in enumerate(part) if answer == "."]
        for k, expected in enumerate(right, start=1):
            state = vote_state(vote, outstanding, k).value
            wrong += state not in {"open", expected}
            missed += state == "open" != expected

    assert len(every) == votes
    assert (wrong, missed) == (0, 0)


@pytest.mark.parametrize("waves", [(), (4,), (2, 2), (3, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("stragglers", list(StragglerRule))
def test_a_whole_vote_in_any_order_of_arrival_ends_as_if_all_were_awaited(
    waves: tuple[int, ...], stragglers: StragglerRule
):
    """Carried out sample by sample, unlike the gate above: every order that the waves allow."""
    for vote in every_vote(4):
        samples = drawn(vote)
        final = tally(tuple(samples), 4).winner
        for order in permutations(range(4)):
            if any(place >= launched(waves, 4, at) for at, place in enumerate(order)):
                continue  # this sample had not been launched by then
            for k in (1, 2, 3, 4, 5):
                ended: list[Sample] = []
                state = VoteState.OPEN
                while state is VoteState.OPEN:
                    ended.append(samples[order[len(ended)]])
                    state = may_stop(ended, 4, k, stragglers)
                winner = tally(tuple(ended), 4).winner
                accepted = final is not None and final.count >= k
                assert (state is VoteState.ACCEPT) == accepted
                assert not accepted or (winner and winner.key) == (final and final.key)
                assert accepted or stragglers is StragglerRule.ARRIVED or len(ended) == 4


def test_a_leader_that_a_rival_can_only_draw_level_with_has_won_where_ties_go_to_it():
    a, _, b, _, _ = drawn((0, 0, 1, None, None))
    first_two_led = tally((a, drawn((0, 0))[1], b), 5)

    assert vote_state(first_two_led, [3], 2) is VoteState.ACCEPT  # 2 to at most 2, and a's first sample is the first


def test_a_leader_whose_ties_a_sample_still_to_come_could_win_goes_on_being_counted():
    late = [s for s in drawn((None, 0, 0, 1)) if s.index]

    assert vote_state(tally(tuple(late), 4), [0], 2) is VoteState.OPEN  # sample 0 may join 1, and come first


@pytest.mark.parametrize(
    ("waves", "ended", "running_or_ended"),
    [((), 0, 8), ((6, 2), 0, 6), ((6, 2), 5, 6), ((6, 2), 6, 8), ((4, 2, 2), 6, 8), ((4, 2, 2), 5, 6), ((8,), 0, 8)],
)
def test_a_wave_is_launched_once_all_before_it_have_ended(waves: tuple[int, ...], ended: int, running_or_ended: int):
    assert launched(waves, 8, ended) == running_or_ended


@pytest.mark.parametrize(
    ("spec", "stragglers"),
    [
        (make_spec(), StragglerRule.ARRIVED),
        (make_spec(policy=replace(make_policy(), max_stage=2)), StragglerRule.FULL),
        (make_spec(on_budget=OnBudget.BEST_VOTE), StragglerRule.FULL),
        (replace(make_spec(), max_cost=usd("0.01")), StragglerRule.FULL),
    ],
)
def test_stage_2_waits_for_its_last_sample_only_where_its_majority_may_be_the_result(
    spec: TaskSpec, stragglers: StragglerRule
):
    divided = finished_step("stage1", *(sample(i, str(i)) for i in range(4)))
    guideline = finished_step(
        "stage2-plan", sample(0, None, plan="Work back."), stage=Stage.LARGE_PLANS_SMALL_EXECUTES, tier=Tier.LARGE
    )

    step = next_decision(spec, (divided, guideline))

    assert isinstance(step, Step)
    assert (step.name, step.stragglers) == ("stage2-execute", stragglers)


@pytest.mark.parametrize("seed", range(5))
def test_with_p1_star_full_stage_2_is_asked_for_just_what_it_is_without_early_stopping(seed: int):
    """Every vote of four that escalates: the same step, plan, guideline and reason."""
    spec = make_spec(seed=seed)
    unstopped = replace(spec, policy=replace(spec.policy, stop=StopRule.OFF))
    guideline = finished_step(
        "stage2-plan", sample(0, None, plan="Work back."), stage=Stage.LARGE_PLANS_SMALL_EXECUTES, tier=Tier.LARGE
    )
    for vote in every_vote(4):
        planned = [replace(s, plan=f"plan {s.index}") for s in drawn(vote)]
        ended: list[Sample] = []
        while len(ended) < 4 and may_stop(ended, 4, 3, StragglerRule.FULL) is VoteState.OPEN:
            ended.append(planned[len(ended)])
        stopped = (finished_step("stage1", *ended, n=4), guideline)
        full = (finished_step("stage1", *planned), guideline)

        lossless, whole = next_decision(spec, stopped), next_decision(unstopped, full)

        if isinstance(whole, Step):
            assert isinstance(lossless, Step)
            assert replace(lossless, stop=StopRule.OFF) == whole
        else:
            assert isinstance(lossless, Accept)
            assert isinstance(whole, Accept)
            assert (lossless.stage, lossless.sample_index) == (whole.stage, whole.sample_index)
