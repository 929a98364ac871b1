"""What every limiter does, in memory, in Redis and in Postgres: the same books, held to an exact provider."""

import itertools
import random

import pytest

from cope.core.limits.hints import RateHints
from cope.core.limits.types import UNKNOWN, UNUSED, Ask, Grant, Report, Verdict, Wait, WaitReason
from tests.limits.conftest import Bench, endpoint, model
from tests.limits.provider import Provider, crowd, take, turned_away

FINE = Report(Verdict.FINE)


def even(estimate: int, actual: int):
    return lambda rng: (estimate, actual)


def mixed(rng: random.Random) -> tuple[int, int]:
    """Estimates of very different sizes, used up by a tenth to all."""
    estimate = rng.choice([200, 500, 1_500])
    return estimate, max(1, int(estimate * rng.uniform(0.1, 1.0)))


async def test_sixteen_processes_use_the_calls_a_provider_allows_and_are_never_refused(bench: Bench):
    entry = model(endpoint(rpm=240))
    limiters = [await bench.limiter(entry) for _ in range(16)]
    provider = Provider(rpm=240, tpm=None)
    seconds = 600.0 if bench.kind == "local" else 150.0

    got = await crowd(bench, limiters, provider, seconds=seconds, callers=64, tokens=even(10, 10), warm_up_s=60)

    assert provider.refused == 0
    assert got.calls >= 0.97 * 240 * got.seconds / 60
    # Turned away once or twice for each call at most: nobody stampedes.
    assert got.asked <= 4 * provider.admitted + 64


async def test_tokens_charged_by_estimate_and_corrected_fill_the_providers_window_and_are_never_refused(bench: Bench):
    entry = model(endpoint(tpm=100_000))
    limiters = [await bench.limiter(entry) for _ in range(4)]
    provider = Provider(rpm=None, tpm=100_000)
    seconds = 480.0 if bench.kind == "local" else 200.0

    got = await crowd(bench, limiters, provider, seconds=seconds, callers=64, tokens=mixed, warm_up_s=120)

    assert provider.refused == 0
    # The provider too charges calls under way by their estimate: 97 % of all its tokens can't be used by anybody.
    assert got.tokens >= 0.94 * 100_000 * got.seconds / 60


async def test_a_provider_that_keeps_the_whole_estimate_is_not_refused_where_the_setting_says_so(bench: Bench):
    entry = model(endpoint(tpm=100_000, counts="limit"))
    limiter = await bench.limiter(entry)
    provider = Provider(rpm=None, tpm=100_000, correct=False)

    got = await crowd(bench, [limiter], provider, seconds=240, callers=32, tokens=mixed, warm_up_s=120)

    assert provider.refused == 0
    # Calls of 1.5 % of the limit each leave gaps that no small one fills in time.
    assert got.tokens >= 0.96 * 100_000 * got.seconds / 60


async def test_both_limits_hold_together(bench: Bench):
    entry = model(endpoint(rpm=100, tpm=30_000))
    limiter = await bench.limiter(entry)
    provider = Provider(rpm=100, tpm=30_000)

    await crowd(bench, [limiter], provider, seconds=200, callers=16, tokens=mixed)

    assert provider.refused == 0


@pytest.mark.parametrize("rpm", [1, 3, 10])
async def test_a_small_limit_is_used_whole_and_never_exceeded(bench: Bench, rpm: int):
    limiter = await bench.limiter(model(endpoint(rpm=rpm)))
    provider = Provider(rpm=rpm, tpm=None)

    got = await crowd(bench, [limiter], provider, seconds=600, callers=4, tokens=even(1, 1))

    assert provider.refused == 0
    assert got.calls >= 0.9 * rpm * 10 - 1


async def test_places_in_line_are_given_a_moment_ahead_and_those_behind_are_told_different_times(bench: Bench):
    limiter = await bench.limiter(model(endpoint(rpm=240)))

    answers = [await limiter.acquire("large", Ask(1)) for _ in range(160)]

    granted = [answer for answer in answers if isinstance(answer, Grant)]
    waits = [answer.seconds for answer in answers if isinstance(answer, Wait)]
    assert [round(grant.wait_s, 1) for grant in granted] == [0, 0.3, 0.5]
    assert waits == sorted(waits)
    # Four come back a second, as fast as they can be served.
    assert 35 <= waits[-1] - waits[0] <= 42
    assert all(0.2 <= later - sooner <= 0.3 for sooner, later in itertools.pairwise(waits))


async def test_a_call_larger_than_the_whole_limit_goes_alone(bench: Bench):
    limiter = await bench.limiter(model(endpoint(tpm=1_000)))

    first = await take(limiter, 5_000)
    assert first.wait_s == 0
    assert (await turned_away(limiter, 1)).reason is WaitReason.RATE
    await limiter.give_back(first, Report(Verdict.FINE, tokens=900))
    bench.now += 62

    assert (await take(limiter, 5_000)).wait_s <= 2


async def test_what_was_not_used_is_given_back_and_what_was_used_beyond_the_estimate_is_charged(bench: Bench):
    limiter = await bench.limiter(model(endpoint(tpm=10_000)))
    first = await take(limiter, 9_000)
    await limiter.give_back(first, Report(Verdict.FINE, tokens=1_000))
    bench.now += 61  # the pace of so large an estimate has run off; the window still counts what was used
    small = await take(limiter, 1_000)
    await limiter.give_back(small, Report(Verdict.FINE, tokens=9_900))

    (stand,) = await limiter.headroom()
    assert stand.used_tokens == pytest.approx(1.0)
    assert (await turned_away(limiter, 200)).reason is WaitReason.RATE


async def test_a_call_that_was_never_made_gives_its_place_back_whole(bench: Bench):
    limiter = await bench.limiter(model(endpoint(rpm=60, tpm=6_000)))
    bench.now += 5
    for _ in range(20):
        grant = await take(limiter, 100)
        await limiter.give_back(grant, UNUSED)

    (stand,) = await limiter.headroom()
    assert (stand.used_calls, stand.used_tokens, stand.used_slots) == (0, 0, 0)


async def test_calls_in_flight_are_bounded_and_a_crowd_waits_in_turn(bench: Bench):
    limiter = await bench.limiter(model(endpoint(concurrency=2)))
    first, _ = await take(limiter), await take(limiter)
    waits = [await turned_away(limiter) for _ in range(4)]
    assert {wait.reason for wait in waits} == {WaitReason.SLOTS}
    assert [wait.seconds for wait in waits] == pytest.approx([0.5, 1.0, 1.5, 2.0])

    await limiter.give_back(first, Report(Verdict.FINE))

    assert (await take(limiter)).wait_s == 0
    assert (await turned_away(limiter)).reason is WaitReason.SLOTS


async def test_one_grant_for_several_calls_takes_that_many_calls_and_slots(bench: Bench):
    limiter = await bench.limiter(model(endpoint(rpm=100, concurrency=4)))
    answer = await limiter.acquire("large", Ask(10, calls=8, parallel=3))
    assert isinstance(answer, Grant)

    (stand,) = await limiter.headroom()
    assert (stand.used_calls, stand.used_slots) == (0.08, 0.75)
    assert isinstance(await limiter.acquire("large", Ask(10, parallel=2)), Wait)
    await limiter.give_back(answer, Report(Verdict.FINE))
    # More at once than there are slots counts as all of them: it would else wait for ever.
    bench.now += 10
    assert isinstance(await limiter.acquire("large", Ask(10, parallel=9)), Grant)


async def test_a_429_stops_every_process_until_its_time_and_then_they_go_one_after_another(bench: Bench):
    entry = model(endpoint(rpm=600))
    one, others = await bench.limiter(entry), [await bench.limiter(entry) for _ in range(15)]
    await one.give_back(await take(one), Report(Verdict.RATE, tokens=0, block_s=30))

    waits = [await turned_away(limiter) for limiter in others]
    assert all(28 <= wait.seconds <= 33 for wait in waits)
    bench.now += 29.5
    places = [await other.acquire("large", Ask(1)) for other in others]
    starts = [place.wait_s for place in places if isinstance(place, Grant)]
    assert min(starts) == pytest.approx(0.5, abs=0.01)
    # After the burst of 1 % they are spread at the pace.
    assert starts == sorted(starts)
    assert starts[-1] > starts[0]


async def test_refusals_lower_the_rate_and_time_restores_it(bench: Bench):
    limiter = await bench.limiter(model(endpoint(rpm=600)))
    grants = [await take(limiter) for _ in range(3)]
    for grant in grants:  # one wave of refusals counts once
        await limiter.give_back(grant, Report(Verdict.RATE, tokens=0, block_s=10))

    (stand,) = await limiter.headroom()
    assert stand.effective.rpm == 540
    assert stand.blocked_s == pytest.approx(10)
    bench.now += 30
    assert (await limiter.headroom())[0].effective.rpm == 570
    bench.now += 60
    assert (await limiter.headroom())[0].effective.rpm == 600


async def test_a_call_that_was_sent_late_counts_until_its_own_window_has_passed(bench: Bench):
    limiter = await bench.limiter(model(endpoint(rpm=60, tpm=6_000)))
    early = await take(limiter, 100)
    bench.now += 2
    late = await take(limiter, 100)
    bench.now += 10
    await limiter.give_back(early, Report(Verdict.FINE, tokens=100))
    await limiter.give_back(late, Report(Verdict.FINE, tokens=300, late_s=9.5))
    assert (await limiter.headroom())[0].used_tokens == pytest.approx(400 / 6_000)

    bench.now += 53  # 65 and 63 s after their places: only the early one's window is over
    (stand,) = await limiter.headroom()
    assert (stand.used_calls, stand.used_tokens) == (pytest.approx(1 / 60), pytest.approx(300 / 6_000))
    bench.now += 10
    assert (await limiter.headroom())[0].used_calls == 0


async def test_a_call_sent_so_late_that_its_place_was_forgotten_is_counted_again(bench: Bench):
    limiter = await bench.limiter(model(endpoint(rpm=60)))
    grant = await take(limiter)
    bench.now += 70
    assert (await limiter.headroom())[0].used_calls == 0
    await limiter.give_back(grant, Report(Verdict.FINE, late_s=30))

    assert (await limiter.headroom())[0].used_calls == pytest.approx(1 / 60)


async def test_a_provider_that_states_less_than_configured_is_believed_and_one_that_states_more_is_not(bench: Bench):
    limiter = await bench.limiter(model(endpoint(rpm=600, tpm=50_000)))
    await limiter.give_back(await take(limiter), Report(Verdict.FINE, hints=RateHints(limit_calls=60)))
    assert (await limiter.headroom())[0].effective.rpm == 60
    assert (await limiter.headroom())[0].effective.tpm == 50_000

    bench.now += 2
    hints = RateHints(limit_calls=9_000, limit_tokens=20_000)
    await limiter.give_back(await take(limiter), Report(Verdict.FINE, hints=hints))
    assert (await limiter.headroom())[0].effective.rpm == 600
    assert (await limiter.headroom())[0].effective.tpm == 20_000

    bench.now += 601
    assert (await limiter.headroom())[0].effective.tpm == 50_000


async def test_an_unlimited_model_takes_the_limits_its_provider_states(bench: Bench):
    limiter = await bench.limiter(model(endpoint()))
    await limiter.give_back(await take(limiter), Report(Verdict.FINE, hints=RateHints(limit_calls=60)))

    answers = [await limiter.acquire("large", Ask(1)) for _ in range(10)]

    assert sum(isinstance(answer, Grant) for answer in answers) == 1


async def test_nothing_left_stops_all_until_the_reset_unless_we_used_it_ourselves(bench: Bench):
    limiter = await bench.limiter(model(endpoint(rpm=600)))
    spent = RateHints(limit_calls=600, remaining_calls=0, reset_calls_s=12)
    await limiter.give_back(await take(limiter), Report(Verdict.FINE, hints=spent))
    assert 10 < (await turned_away(limiter)).seconds < 13

    own = await bench.limiter(model(endpoint(rpm=3)))
    for _ in range(3):
        bench.now += 21
        grant = await take(own)
    bench.now -= 0
    await own.give_back(grant, Report(Verdict.FINE, hints=RateHints(3, remaining_calls=0, reset_calls_s=59)))
    assert (await own.headroom())[0].blocked_s == 0


async def test_calls_that_others_make_with_the_same_key_are_charged_too(bench: Bench):
    limiter = await bench.limiter(model(endpoint(rpm=600)))
    seen = RateHints(limit_calls=600, remaining_calls=240, reset_calls_s=50)
    await limiter.give_back(await take(limiter), Report(Verdict.FINE, hints=seen))

    assert (await limiter.headroom())[0].used_calls == pytest.approx(0.6)
    bench.now += 30
    # They are taken to be spread over the past minute, so they leave the window one after another.
    assert (await limiter.headroom())[0].used_calls == pytest.approx(0.3, abs=0.1)
    a_days_limit = RateHints(limit_calls=600, remaining_calls=0, reset_calls_s=3_000)
    await limiter.give_back(await take(limiter), Report(Verdict.FINE, hints=a_days_limit))
    assert (await limiter.headroom())[0].used_calls < 0.4


async def test_a_provider_that_never_gives_estimates_back_is_noticed_by_its_headers(bench: Bench):
    limiter = await bench.limiter(model(endpoint(tpm=100_000)))
    provider = Provider(rpm=None, tpm=100_000, correct=False)
    for _ in range(400):
        answer = await limiter.acquire("large", Ask(1_000))
        if isinstance(answer, Wait):
            bench.now += answer.seconds
            continue
        bench.now += answer.wait_s
        refused = provider.arrive(bench.now, 1_000) is None
        left = int(100_000 - sum(tokens for _, tokens in provider.entries))
        hints = RateHints(limit_tokens=100_000, remaining_tokens=left, reset_tokens_s=60)
        if refused:
            await limiter.give_back(answer, Report(Verdict.RATE, tokens=0, block_s=1.0, hints=hints))
        else:
            await limiter.give_back(answer, Report(Verdict.FINE, tokens=100, hints=hints))

    assert provider.admitted > 150
    assert provider.refused <= 0.03 * provider.admitted


# ---- several endpoints ---------------------------------------------------------------------------------------------


async def test_calls_are_spread_by_what_is_left_at_each_endpoint(bench: Bench):
    entry = model(endpoint("big", rpm=6_000), endpoint("little", rpm=2_000))
    limiter = await bench.limiter(entry)
    provider = {"big": 0, "little": 0}
    for _ in range(400):
        bench.now += 0.1
        provider[(await take(limiter)).endpoint] += 1

    assert provider["big"] == pytest.approx(300, abs=10)


async def test_endpoints_without_limits_take_turns_by_their_weights(bench: Bench):
    limiter = await bench.limiter(model(endpoint("a", weight=3), endpoint("b")))

    names = [(await take(limiter)).endpoint for _ in range(40)]

    assert names.count("a") == 30


async def test_two_keys_together_serve_what_both_allow(bench: Bench):
    entry = model(endpoint("a", rpm=60), endpoint("b", rpm=60))
    limiter = await bench.limiter(entry)
    granted = 0
    end = bench.now + 120
    while bench.now < end:
        answer = await limiter.acquire("large", Ask(1))
        granted += isinstance(answer, Grant)
        bench.now += 0.25

    assert 230 <= granted <= 245


async def test_models_that_name_one_limit_group_share_its_limits(bench: Bench):
    shared = endpoint(rpm=60, group="shared-by-two")
    one, two = model(shared), model(shared, name="other")
    limiter = await bench.limiter(one, two)
    await take(limiter)

    assert isinstance(await limiter.acquire("other", Ask(1)), Wait)


async def test_an_endpoint_that_is_away_is_left_alone_and_tried_again_by_one_call_at_a_time(bench: Bench):
    limiter = await bench.limiter(model(endpoint("a", weight=100), endpoint("b")))
    broken = 0
    for _ in range(40):
        grant = await take(limiter)
        if grant.endpoint == "a":
            broken += 1
            await limiter.give_back(grant, Report(Verdict.OUTAGE))
        else:
            await limiter.give_back(grant, FINE)
    assert broken == 5
    assert [one.state for one in await limiter.headroom()] == ["open", "closed"]

    bench.now += 6
    probe = await take(limiter)
    assert (probe.endpoint, probe.ticket.door_probe) == ("a", True)
    assert {(await take(limiter)).endpoint for _ in range(5)} == {"b"}
    await limiter.give_back(probe, Report(Verdict.OUTAGE))
    bench.now += 6
    assert (await take(limiter)).endpoint == "b"  # it stays open for longer each time

    bench.now += 5
    probe = await take(limiter)
    assert probe.endpoint == "a"
    await limiter.give_back(probe, FINE)
    assert (await take(limiter)).endpoint == "a"
    assert [one.state for one in await limiter.headroom()] == ["closed", "closed"]


async def test_a_probe_whose_worker_died_makes_room_for_another(bench: Bench):
    limiter = await bench.limiter(model(endpoint("a")))
    for _ in range(5):
        await limiter.give_back(await take(limiter), Report(Verdict.OUTAGE))
    assert (await turned_away(limiter)).reason is WaitReason.OUTAGE
    bench.now += 6
    assert (await take(limiter)).ticket.door_probe
    beside = await turned_away(limiter)
    assert beside.reason is WaitReason.OUTAGE
    assert beside.seconds <= 3, "the probe nearly always ends well, and then nobody should have been put off for long"

    bench.now += 31
    second = await take(limiter)
    await limiter.give_back(second, UNKNOWN)
    assert (await take(limiter)).ticket.door_probe


async def test_without_quota_other_keys_go_first_and_with_none_left_tasks_are_held(bench: Bench):
    entry = model(endpoint("a", weight=100), endpoint("b"))
    limiter = await bench.limiter(entry)
    first = await take(limiter)
    assert first.endpoint == "a"
    await limiter.give_back(first, Report(Verdict.QUOTA, tokens=0))
    second = await take(limiter)
    assert second.endpoint == "b"
    await limiter.give_back(second, Report(Verdict.QUOTA, tokens=0))

    waits = [await turned_away(limiter) for _ in range(100)]
    assert {wait.reason for wait in waits} == {WaitReason.QUOTA}
    assert waits[0].seconds == pytest.approx(60)
    assert waits[99].seconds == pytest.approx(60 + 99 * 2)

    bench.now += 61
    probes = [await limiter.acquire("large", Ask(1)) for _ in range(50)]
    granted = [probe for probe in probes if isinstance(probe, Grant)]
    assert {grant.endpoint for grant in granted} == {"a", "b"}
    assert len(granted) == 2  # one probing call for each key, not fifty
    assert all(grant.ticket.purse_probe for grant in granted)
    await limiter.give_back(granted[0], Report(Verdict.QUOTA, tokens=0))
    await limiter.give_back(granted[1], Report(Verdict.FINE, tokens=1))
    states = {one.endpoint: (one.state, one.cause) for one in await limiter.headroom()}
    assert states[granted[0].endpoint] == ("open", "quota")
    assert states[granted[1].endpoint] == ("closed", None)
    assert {(await take(limiter)).endpoint for _ in range(3)} == {granted[1].endpoint}


async def test_models_of_one_account_share_its_quota_but_not_their_limits(bench: Bench):
    one = endpoint(rpm=60)
    other = endpoint(rpm=600)
    other = type(other)(**{name: getattr(other, name) for name in other.__dataclass_fields__} | {
        "base_url": one.base_url, "api_key": one.api_key})  # fmt: skip
    limiter = await bench.limiter(model(one), model(other, name="other"))
    await limiter.give_back(await take(limiter), Report(Verdict.QUOTA, tokens=0))

    answer = await limiter.acquire("other", Ask(1))

    assert isinstance(answer, Wait)
    assert answer.reason is WaitReason.QUOTA


async def test_a_refused_key_closes_its_account_at_once_and_a_forbidden_request_only_the_third_in_a_row(bench: Bench):
    limiter = await bench.limiter(model(endpoint("a")))
    for _ in range(2):
        await limiter.give_back(await take(limiter), Report(Verdict.FORBIDDEN, tokens=0))
    await limiter.give_back(await take(limiter), FINE)
    for _ in range(3):
        await limiter.give_back(await take(limiter), Report(Verdict.FORBIDDEN, tokens=0))
    assert (await limiter.headroom())[0].cause == "key"

    other = await bench.limiter(model(endpoint("b")))
    await other.give_back(await take(other), Report(Verdict.KEY, tokens=0))
    assert (await turned_away(other)).reason is WaitReason.QUOTA
