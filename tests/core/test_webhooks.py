"""Webhooks' rules: signatures, waiting, slowing down, giving an endpoint up, and who may have how many under way."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from cope.core.limits.hints import retry_after_s
from cope.core.webhook_lanes import AT_ONCE, SLOW_S, LaneClass, Lanes, no_classes
from cope.core.webhooks import (
    MAX_BODY_BYTES,
    make_secret,
    message_body,
    retry_in_s,
    signed_headers,
    slow_down_s,
    to_be_disabled,
)

NEW, OLD, OTHER = (make_secret(bytes([n]) * 32) for n in (1, 2, 3))
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)


def test_a_message_signed_with_two_secrets_is_believed_by_holders_of_either_and_by_nobody_else():
    now = int(datetime.now(UTC).timestamp())
    headers = dict(signed_headers((NEW, OLD), message_id="evt_1", timestamp=now, body=b"{}"))

    for secret in (NEW, OLD):
        Webhook(secret).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(b"{}", headers)


def test_a_message_is_thin_and_tells_no_empty_things():
    body = message_body(event_id="evt_1", type_="budget.held", created_at=5, about="proj_1", data={"a": 1, "b": None})

    assert json.loads(body) == {
        "id": "evt_1", "object": "event", "created_at": 5, "type": "budget.held", "data": {"id": "proj_1", "a": 1},
    }  # fmt: skip


def test_a_message_that_would_be_too_long_tells_the_id_only_and_says_so():
    body = message_body(event_id="evt_1", type_="x", created_at=5, about="batch_1", data={"text": "ö" * 10_000})

    assert len(body.encode()) < MAX_BODY_BYTES
    assert json.loads(body)["data"] == {"id": "batch_1", "truncated": True}


@pytest.mark.parametrize(
    ("told", "wait_s"),
    [
        ("600", 600.0), ("0", 5.0), ("1e9", 86_400.0), ("-5", 5.0), ("nan", 5.0), ("inf", 5.0), ("soon", 5.0),
        ("", 5.0), ("Mon, 02 Nov 2026 12:10:00 GMT", 600.0), ("Mon, 02 Nov 2020 12:00:00 GMT", 5.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0), ("Mon, 99 Nov 2026 12:10:00 GMT", 5.0), ("9" * 400, 5.0),
    ],
)  # fmt: skip
def test_a_retry_after_lengthens_the_wait_by_up_to_a_day_and_nonsense_is_dropped(told: str, wait_s: float):
    after_s = retry_after_s({"retry-after": told}, now=NOON)

    assert retry_in_s(1, retry_after_s=after_s, jitter=0.5) == wait_s


def test_jitter_spreads_the_wait_by_a_tenth_each_way():
    assert retry_in_s(2, retry_after_s=None, jitter=0.0) == 270
    assert retry_in_s(2, retry_after_s=None, jitter=1.0) == pytest.approx(330)


@pytest.mark.parametrize(
    ("status", "attempt", "after_s", "left_alone_s"),
    [
        (429, 1, None, 5.0), (502, 2, None, 10.0), (504, 3, None, 20.0), (429, 9, None, 300.0), (429, 1, 60.0, 60.0),
        (503, 1, 60.0, 60.0), (500, 1, None, None), (503, 1, None, None), (302, 1, None, None), (None, 1, 60.0, None),
        (429, 1, 1e9, 86_400.0), (429, 1, 0.0, 5.0),
    ],
)  # fmt: skip
def test_an_endpoint_that_asks_for_it_is_left_alone_as_a_whole(
    status: int | None, attempt: int, after_s: float | None, left_alone_s: float | None
):
    assert slow_down_s(status, attempt, retry_after_s=after_s, jitter=0.5) == left_alone_s


@pytest.mark.parametrize(
    ("since_h", "last_h", "disabled"),
    [(120, 1, True), (119, 1, False), (120, 120, False), (200, 189, False), (200, 188, True), (0, 0, False)],
)
def test_an_endpoint_is_given_up_after_five_days_of_failures_that_lie_apart(since_h: int, last_h: int, disabled: bool):
    since, last = NOON - timedelta(hours=since_h), NOON - timedelta(hours=last_h)

    assert to_be_disabled(failing_since=since, failed_at=last, now=NOON) is disabled


def test_a_lane_is_new_then_good_and_bad_when_it_fails_or_is_slow():
    lanes = Lanes()
    lanes.begun("1", "a", 0.0)
    assert lanes.room(0.0).kind("a", troubled=False) is LaneClass.NEW
    lanes.ended("1", 1.0, taken=True)
    assert lanes.room(1.0).kind("a", troubled=False) is LaneClass.GOOD
    assert lanes.room(1.0).kind("a", troubled=True) is LaneClass.BAD
    lanes.begun("2", "a", 2.0)
    assert lanes.room(2.0 + SLOW_S + 0.1).kind("a", troubled=False) is LaneClass.BAD
    lanes.ended("2", 10.0, taken=True)
    assert lanes.room(10.0).kind("a", troubled=False) is LaneClass.BAD
    lanes.begun("3", "a", 11.0)
    lanes.ended("3", 11.5, taken=True)
    assert lanes.room(11.5).kind("a", troubled=False) is LaneClass.GOOD
    lanes.begun("4", "a", 12.0)
    lanes.ended("4", 12.1, taken=False)
    assert lanes.room(12.1).kind("a", troubled=False) is LaneClass.BAD


def test_good_lanes_have_all_their_room_again_once_whoever_stalls_has_stalled_for_a_moment():
    lanes = Lanes()
    for lane in range(32):
        lanes.begun(f"first-{lane}", f"lane-{lane}", 0.0)
        lanes.ended(f"first-{lane}", 0.1, taken=True)
        for n in range(8):
            lanes.begun(f"{lane}-{n}", f"lane-{lane}", 1.0)

    assert lanes.room(1.5).limits[LaneClass.GOOD] == 0
    later = lanes.room(1.0 + SLOW_S + 0.1)
    assert later.limits == {**AT_ONCE, LaneClass.BAD: 0}


@pytest.mark.parametrize(
    ("kind", "concurrency", "beside", "most"),
    [
        (LaneClass.BAD, 16, 1, 16), (LaneClass.BAD, 16, 8, 8), (LaneClass.BAD, 16, 100, 4), (LaneClass.NEW, 16, 100, 4),
        (LaneClass.NEW, 2, 100, 2), (LaneClass.GOOD, 16, 1, 64), (LaneClass.GOOD, 16, 100, 8),
        (LaneClass.BAD, 64, 1, 64),
    ],
)  # fmt: skip
def test_in_a_crowd_of_bad_or_new_lanes_each_has_its_share(kind: LaneClass, concurrency: int, beside: int, most: int):
    assert Lanes().room(0.0).most(kind, concurrency, beside=beside) == most
    assert no_classes(10).most(kind, concurrency, beside=beside) == concurrency
