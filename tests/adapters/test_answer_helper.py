"""Helper processes: the same keys as in process, within limits that end what would not end by itself."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cope.adapters.answer_helper import CachingJudge, HelperLimits, grade_all, helper_judge, in_process_judge
from cope.adapters.answer_helper.messages import (
    Find,
    Grade,
    KeyOf,
    Reply,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from cope.adapters.answer_helper.pool import HelperPool
from cope.core.answers import AnswerKey, JudgedAnswer
from cope.core.errors import AnswerHelperUnavailable
from cope.core.problem import Kind, Message, Problem
from cope.ports.answers import AnswerJudge

ASKED = (Message("user", "?"),)
MATH = Problem(Kind.MATH, ASKED)
ENDLESS = Problem(Kind.EXACT, ASKED, answer_pattern="(a+)+$")
HURRIED = HelperLimits(cpu_s=0.5)
NEVER_ENDS = r"\boxed{\sum_{k=1}^{10^{9}} \frac{1}{k^k}}"


@pytest.fixture
async def judge() -> AsyncIterator[CachingJudge]:
    made = helper_judge(limits=HURRIED)
    yield made
    await made.aclose()


def _children() -> list[int]:
    """Process ids of this process's living children that are answer helpers."""
    children = [
        int(one) for task in Path("/proc/self/task").iterdir() for one in (task / "children").read_text().split()
    ]
    return [one for one in children if b"answer_helper.child" in Path(f"/proc/{one}/cmdline").read_bytes()]


async def test_answers_come_back_in_order_with_equal_keys_for_equal_values(judge: AnswerJudge) -> None:
    texts = [r"\boxed{\sqrt{12}}", "nothing", r"\boxed{2\sqrt3}", r"\boxed{5}", r"\boxed{\frac{1}{0}}"]
    judged = await judge.judge(MATH, texts)
    assert [one.answer for one in judged] == [r"\sqrt{12}", None, r"2\sqrt3", "5", r"\frac{1}{0}"]
    assert judged[0].key == judged[2].key is not None
    assert [one.key for one in judged[1::2]] == [None, "5"]
    assert judged[4].key is None


async def test_the_helper_and_the_caller_s_process_find_the_same_keys(judge: AnswerJudge) -> None:
    texts = [rf"\boxed{{{answer}}}" for answer in (r"\pi/3", "x^2-1", "y=2x+3", r"6-5i", r"\sum_{k=1}^{4} k", "7", "a")]
    assert await judge.judge(MATH, texts) == await in_process_judge().judge(MATH, texts)


async def test_an_answer_that_never_ends_is_unparsable_and_the_next_one_is_read(judge: AnswerJudge) -> None:
    judged = await judge.judge(MATH, [NEVER_ENDS, r"\boxed{\sqrt2}"])
    assert judged[0].key is None
    assert judged[0].answer is not None
    assert judged[1].key is not None


async def test_a_catastrophic_pattern_is_killed_in_the_helper_and_finds_nothing(judge: AnswerJudge) -> None:
    judged = await judge.judge(ENDLESS, ["a" * 40 + "b", "baaa"])
    assert judged == [JudgedAnswer(None, None), JudgedAnswer("aaa", AnswerKey("aaa"))]


async def test_the_event_loop_goes_on_while_a_helper_struggles(judge: AnswerJudge) -> None:
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    beating = asyncio.create_task(heart())
    await judge.judge(ENDLESS, ["a" * 40 + "b"])
    beating.cancel()
    assert beats >= 5


async def test_memory_is_limited_by_the_kernel_and_too_little_of_it_for_sympy_is_a_clear_error() -> None:
    judge = helper_judge(limits=HelperLimits(memory_bytes=64 * 2**20))
    with pytest.raises(AnswerHelperUnavailable, match="sympy"):
        await judge.judge(MATH, [r"\boxed{\sum_{k=1}^{4} k}"])
    judged = await judge.judge(MATH, [r"\boxed{\sqrt2}"])
    assert judged[0].key is not None
    await judge.aclose()


async def test_a_stalled_helper_is_killed_by_the_clock_and_nothing_is_concluded() -> None:
    pool = HelperPool(1, HelperLimits(wall_s=1))
    try:
        await pool.perform(KeyOf(Kind.MATH, r"\pi"))
        (child,) = _children()
        os.kill(child, signal.SIGSTOP)
        outcome = await pool.perform(KeyOf(Kind.MATH, r"\pi"))
        assert (outcome.value, outcome.certain) == (None, False)
        assert isinstance((await pool.perform(KeyOf(Kind.MATH, r"\pi"))).value, str)
        assert child not in _children()
    finally:
        await pool.aclose()


async def test_a_helper_killed_from_outside_costs_no_answer() -> None:
    pool = HelperPool(1, HURRIED)
    try:
        await pool.perform(KeyOf(Kind.MATH, r"\pi"))
        os.kill(_children()[0], signal.SIGKILL)
        assert isinstance((await pool.perform(KeyOf(Kind.MATH, r"\sqrt2"))).value, str)
    finally:
        await pool.aclose()


async def test_a_cancelled_request_takes_its_helper_with_it() -> None:
    pool = HelperPool(1, HelperLimits(cpu_s=60))
    try:
        first = (await pool.perform(KeyOf(Kind.MATH, r"\pi"))).value
        (child,) = _children()
        stuck = asyncio.create_task(pool.perform(Find("(a+)+$", "a" * 60 + "b")))
        await asyncio.sleep(0.05)
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        assert (await pool.perform(KeyOf(Kind.MATH, r"\pi"))).value == first
        assert child not in _children()
    finally:
        await pool.aclose()


async def test_helpers_start_only_when_needed_are_reused_and_end_with_the_judge() -> None:
    judge = helper_judge(size=2)
    await judge.judge(MATH, [r"\boxed{5}", "The answer is 1/2"])
    assert _children() == []
    await judge.judge(MATH, [r"\boxed{\sqrt2}", r"\boxed{\sqrt3}"])
    assert len(_children()) == 1
    await asyncio.gather(judge.judge(MATH, [r"\boxed{\sqrt5}"]), judge.judge(MATH, [r"\boxed{\sqrt6}"]))
    assert len(_children()) == 2
    await judge.aclose()
    assert _children() == []
    with pytest.raises(AnswerHelperUnavailable):
        await judge.judge(MATH, [r"\boxed{\sqrt7}"])


async def test_a_worn_helper_is_replaced() -> None:
    pool = HelperPool(1, HelperLimits(max_uses=2))
    try:
        seen = set()
        for _ in range(4):
            await pool.perform(KeyOf(Kind.MATH, r"\pi"))
            seen.update(_children())
        assert len(seen) >= 2
    finally:
        await pool.aclose()


async def test_keys_once_found_are_kept_up_to_the_memory() -> None:
    judge = helper_judge(memory=1)
    first = await judge.judge(MATH, [r"\boxed{\sqrt2}"])
    for child in _children():
        os.kill(child, signal.SIGKILL)
    assert await judge.judge(MATH, [r"\boxed{\sqrt2}"]) == first
    await judge.judge(MATH, [r"\boxed{\sqrt3}"])
    assert await judge.judge(MATH, [r"\boxed{\sqrt2}"]) == first
    await judge.aclose()


async def test_a_helper_that_can_not_start_is_a_clear_error_not_an_unparsable_answer(tmp_path: Path) -> None:
    for python in (str(tmp_path / "missing"), "/bin/false"):
        judge = CachingJudge(HelperPool(1, HURRIED, python=python), memory=1)
        with pytest.raises(AnswerHelperUnavailable, match="can't start"):
            await judge.judge(MATH, [r"\boxed{\sqrt2}"])
        assert (await judge.judge(MATH, [r"\boxed{5}"]))[0].key == "5"
        await judge.aclose()


async def test_the_helper_sees_none_of_our_environment(judge: AnswerJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPE_SECRET_KEY", "do-not-tell")
    await judge.judge(MATH, [r"\boxed{\sqrt2}"])
    (child,) = _children()
    assert b"do-not-tell" not in Path(f"/proc/{child}/environ").read_bytes()


def test_a_pool_works_in_a_loop_that_is_not_the_main_thread_s() -> None:
    keys: list[object] = []

    async def work() -> None:
        judge = helper_judge()
        keys.extend(await judge.judge(MATH, [r"\boxed{\sqrt2}"]))
        await judge.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    thread.join()
    assert keys == asyncio.run(in_process_judge().judge(MATH, [r"\boxed{\sqrt2}"]))


def test_grading_follows_math_verify_with_the_known_answer_first() -> None:
    pairs = [
        (r"\frac{1}{2}", "0.5"),
        (r"\frac{1}{2}", "0.6"),
        ("x=5", "5"),
        (r"\text{Evelyn}", r"\text{Evelyn}"),
        (r"1,-2", "-2, 1"),
        ("5", r"\sum_{k=1}^{10^9} \frac{1}{k^k}"),
    ]
    assert grade_all(Kind.MATH, pairs, limits=HURRIED) == [True, False, True, True, True, False]
    assert grade_all(Kind.CHOICE, [("Paris", "paris"), ("Paris", "Rome")]) == [True, False]
    assert grade_all(Kind.EXACT, [('{"a": 1}', '{"a":1.0}'), ("007", "7")]) == [True, False]


@pytest.mark.parametrize("request_", [KeyOf(Kind.MATH, "é\n\ud800"), Find("a", "b"), Grade("1", "2")])
def test_requests_and_replies_survive_the_line(request_: KeyOf | Find | Grade) -> None:
    line = encode_request(request_)
    assert line.count(b"\n") == 1
    assert decode_request(line) == request_
    assert decode_reply(encode_reply(Reply("é\n", tired=True))) == Reply("é\n", tired=True)
