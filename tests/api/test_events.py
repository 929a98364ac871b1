"""The event log over HTTP: pages, long polls, server-sent events, consumer groups, dead letters."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest

from cope.core.event_types import EVENT_TYPES
from tests.api.events_place import KEY, EventsPlace, events_place


@pytest.fixture(scope="module")
def place() -> Iterator[EventsPlace]:
    with events_place() as served:
        served.grow(3)
        served.head(3)
        yield served


def frames(place: EventsPlace, query: str = "", **headers: str) -> Iterator[dict[str, str]]:
    """Server-sent events as field maps; comments under the name of the empty string."""
    request = urllib.request.Request(f"{place.url}/events{query}")
    request.add_header("authorization", f"Bearer {KEY}")
    request.add_header("accept", "text/event-stream")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    fields: dict[str, str] = {}
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for raw in answer:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
            else:
                yield fields
                fields = {}


def test_a_page_holds_cloud_events_with_offsets_as_text(place: EventsPlace) -> None:
    status, page, _ = place.call("GET", "/events?limit=2")

    assert status == 200
    assert [event["offset"] for event in page["data"]] == ["1", "2"]
    assert (page["object"], page["has_more"], page["next_after"], page["start"]) == ("list", True, "2", "1")
    first = page["data"][0]
    assert (first["specversion"], first["type"], first["datacontenttype"]) == (
        "1.0",
        "webhook_endpoint.created",
        "application/json",
    )
    assert first["source"] == f"/projects/{first['subject']}" == f"/projects/{first['partitionkey']}"
    assert first["data"]["id"] == place.made[0]
    assert first["time"].endswith("Z")
    assert page["first_id"] == first["id"]


def test_pages_follow_each_other_to_the_end(place: EventsPlace) -> None:
    head, after, seen = place.head(), "beginning", []
    while True:
        page = place.call("GET", f"/events?limit=2&after={after}")[1]
        seen += [int(event["offset"]) for event in page["data"]]
        after = page["next_after"]
        if not page["has_more"]:
            break

    assert seen[:head] == list(range(1, head + 1))


def test_who_accepts_a_cloud_events_batch_gets_one(place: EventsPlace) -> None:
    _, page, headers = place.call("GET", "/events?limit=2", accept="application/cloudevents-batch+json")

    assert isinstance(page, list)
    assert [event["offset"] for event in page] == ["1", "2"]
    assert headers["content-type"] == "application/cloudevents-batch+json; charset=utf-8"
    assert (headers["x-next-after"], headers["x-has-more"]) == ("2", "true")


def test_a_filter_names_types_or_families(place: EventsPlace) -> None:
    whole = place.call("GET", "/events?types=webhook_endpoint.created,batch.*&limit=1000")[1]
    other = place.call("GET", "/events?types=task.*&limit=1000")[1]

    assert {event["type"] for event in whole["data"]} == {"webhook_endpoint.created"}
    assert (other["data"], other["has_more"]) == ([], False)
    assert int(other["next_after"]) >= 3


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("types=task.fnished", "types"),
        ("after=one", "after"),
        ("after=-1", "after"),
        ("after=99999999999999999999", "after"),
        ("after=1000000", "after"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("wait=61", "wait"),
        ("batch_id=%00", "batch_id"),
    ],
)
def test_what_can_not_be_meant_is_refused_by_name(place: EventsPlace, query: str, param: str) -> None:
    status, body, _ = place.call("GET", f"/events?{query}")

    assert (status, body["error"]["param"]) == (400, param)


def test_the_types_are_listed_with_what_they_say(place: EventsPlace) -> None:
    listed = place.call("GET", "/event_types")[1]["data"]

    assert {one["id"] for one in listed} == set(EVENT_TYPES)
    assert all(one["description"] for one in listed)


def test_a_long_poll_answers_with_the_first_event_that_comes(place: EventsPlace) -> None:
    head = place.head()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(place.call, "GET", f"/events?after={head}&wait=20")
        time.sleep(0.2)
        assert not waiting.done()
        place.grow()
        status, page, _ = waiting.result(10)

    assert status == 200
    assert [event["offset"] for event in page["data"]] == [str(head + 1)]


def test_a_long_poll_that_nothing_comes_for_answers_empty_after_its_wait(place: EventsPlace) -> None:
    head = place.head()

    page = place.call("GET", f"/events?after={head}&wait=1")[1]

    assert (page["data"], page["next_after"], page["has_more"]) == ([], str(head), False)


def test_a_hundred_long_polls_cost_no_more_questions_than_one(place: EventsPlace) -> None:
    head, feed = place.head(), place.app.state.event_feed
    with ThreadPoolExecutor(100) as pool:
        waiting = [pool.submit(place.call, "GET", f"/events?after={head}&wait=20") for _ in range(100)]
        time.sleep(1.5)
        before = feed.queries
        time.sleep(1.0)
        asked = feed.queries - before
        place.grow()
        answers = [one.result(20)[1]["data"] for one in waiting]

    assert asked <= 3
    assert {tuple(event["offset"] for event in found) for found in answers} == {(str(head + 1),)}


def test_a_stream_begins_with_its_retry_time_and_goes_on_with_what_comes(place: EventsPlace) -> None:
    head = place.head()
    stream = frames(place, "?after=0")

    assert next(stream) == {"retry": "3000"}
    known = list(islice(stream, head))
    threading.Timer(0.2, place.grow).start()
    new = next(stream)

    assert [frame["id"] for frame in known] == [str(n) for n in range(1, head + 1)]
    assert (new["id"], new["event"]) == (str(head + 1), "webhook_endpoint.created")
    assert json.loads(new["data"])["offset"] == str(head + 1)
    stream.close()  # type: ignore[attr-defined]


def test_a_stream_goes_on_behind_the_last_event_id(place: EventsPlace) -> None:
    stream = frames(place, "?after=0", last_event_id="2")

    assert next(stream) == {"retry": "3000"}
    assert next(stream)["id"] == "3"
    stream.close()  # type: ignore[attr-defined]


def test_a_filtered_stream_tells_how_far_it_has_looked(place: EventsPlace) -> None:
    head = place.head()
    stream = frames(place, "?after=0&types=task.*")

    next(stream)
    place_told = next(stream)

    assert set(place_told) == {"id"}
    assert int(place_told["id"]) >= head
    stream.close()  # type: ignore[attr-defined]


def test_a_group_is_made_read_committed_and_shown(place: EventsPlace) -> None:
    head = place.head()
    made = place.call("PUT", "/event_consumers/one", {})[1]
    read = place.call("GET", "/event_consumers/one/records?max=2")[1]
    again = place.call("GET", "/event_consumers/one/records?max=2")[1]
    done = place.call("POST", "/event_consumers/one/offsets", {"offset": read["next_offset"]})[1]
    rest = place.call("GET", "/event_consumers/one/records?max=1")[1]

    assert (made["object"], made["committed"], made["lag"]) == ("event_consumer", "0", head)
    assert [event["offset"] for event in read["data"]] == ["1", "2"] == [event["offset"] for event in again["data"]]
    assert (done["committed"], done["lag"]) == ("2", head - 2)
    assert rest["data"][0]["offset"] == "3"
    assert [one["id"] for one in place.call("GET", "/event_consumers")[1]["data"]] == ["one"]
    assert place.call("GET", "/event_consumers/one")[1]["committed"] == "2"
    assert place.call("DELETE", "/event_consumers/one")[1]["deleted"] is True
    assert place.call("GET", "/event_consumers/one")[0] == 404


def test_two_members_of_one_group_are_told_apart(place: EventsPlace) -> None:
    place.call("PUT", "/event_consumers/two", {"start": "beginning"})
    first = place.call("GET", "/event_consumers/two/records?member=a&max=1")[1]
    status, refused, headers = place.call("GET", "/event_consumers/two/records?member=b&max=1")
    nameless = place.call("GET", "/event_consumers/two/records?max=1")
    fenced = place.call("POST", "/event_consumers/two/offsets", {"offset": "1", "generation": 0})
    done = place.call("POST", "/event_consumers/two/offsets", {"offset": "1", "generation": first["generation"]})

    assert (status, refused["error"]["code"], headers["x-should-retry"]) == (422, "consumer_busy", "false")
    assert nameless[1]["error"]["code"] == "consumer_busy"
    assert fenced[1]["error"]["code"] == "consumer_fenced"
    assert done[1]["committed"] == "1"
    place.call("DELETE", "/event_consumers/two")


def test_a_group_can_be_put_anywhere_on_purpose(place: EventsPlace) -> None:
    head = place.head()
    place.call("PUT", "/event_consumers/three", {"start": "end", "types": ["batch.*"]})

    def moved(**to: object) -> Any:
        return place.call("POST", "/event_consumers/three/positions", to)[1]["committed"]

    assert place.call("GET", "/event_consumers/three")[1]["committed"] == str(head)
    assert (moved(offset="beginning"), moved(offset="2"), moved(offset="end")) == ("0", "2", str(head))
    assert (moved(timestamp=0), moved(timestamp="2099-01-01T00:00:00Z")) == ("0", str(head))
    assert place.call("GET", "/event_consumers/three/records")[1]["data"] == []
    place.call("DELETE", "/event_consumers/three")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("PUT", "/event_consumers/a%20b", {}, 400, "invalid_value"),
        ("PUT", "/event_consumers/new", {"start": "17 o'clock"}, 400, "invalid_value"),
        ("PUT", "/event_consumers/new", {"types": ["nothing.*"]}, 400, "invalid_value"),
        ("PUT", "/event_consumers/new", {"begin": "end"}, 400, "unknown_parameter"),
        ("GET", "/event_consumers/none", None, 404, "consumer_not_found"),
        ("GET", "/event_consumers/%00/records", None, 404, "consumer_not_found"),
        ("GET", "/event_consumers/none/records?member=a", None, 404, "consumer_not_found"),
        ("GET", "/event_consumers/none/records?member=a&wait=30", None, 400, "invalid_value"),
        ("POST", "/event_consumers/none/offsets", {"offset": "1"}, 404, "consumer_not_found"),
        ("POST", "/event_consumers/none/offsets", {"offset": 1}, 400, "invalid_value"),
        ("POST", "/event_consumers/none/positions", {}, 400, "invalid_value"),
        ("POST", "/event_consumers/none/positions", {"timestamp": "yesterday"}, 400, "invalid_value"),
        ("POST", "/event_consumers/none/positions", {"timestamp": "2026-01-01"}, 400, "invalid_value"),
        ("DELETE", "/event_consumers/none", None, 404, "consumer_not_found"),
        ("POST", "/event_dead_letters/whd_none/replay", {}, 404, "not_found"),
        ("GET", "/event_dead_letters/whd_none", None, 404, "not_found"),
        ("POST", "/event_dead_letters/replay", {"all": False}, 400, "invalid_value"),
    ],
)
def test_refusals_name_what_is_wrong(
    place: EventsPlace, method: str, path: str, body: object, status: int, code: str
) -> None:
    got, answer, _ = place.call(method, path, body)

    assert (got, answer["error"]["code"]) == (status, code)


def test_events_that_are_no_longer_kept_are_an_error_for_pages_and_a_gap_for_streams_and_groups() -> None:
    with events_place() as place:
        place.grow(4)
        place.head(4)
        place.call("PUT", "/event_consumers/late", {})
        place.call("POST", "/event_consumers/late/offsets", {"offset": "1"})
        (log,) = [log for log in place.store._db.logs.values() if log.events]
        log.events, log.logged, log.start = log.events[3:], log.logged[3:], 4

        status, body, _ = place.call("GET", "/events?after=1")
        stream = frames(place, "?after=1")
        records = place.call("GET", "/event_consumers/late/records")[1]

        assert (status, body["error"]["code"]) == (410, "events_pruned")
        assert "after=3" in body["error"]["message"]
        assert [event["offset"] for event in place.call("GET", "/events")[1]["data"]] == ["4"]
        next(stream)
        gap = next(stream)
        assert (gap["id"], gap["event"]) == ("3", "cope.gap")
        assert json.loads(gap["data"]) == {"from": "2", "to": "3", "start": "4"}
        assert next(stream)["id"] == "4"
        stream.close()  # type: ignore[attr-defined]
        assert records["gap"] == {"from": "2", "to": "3"}
        assert [event["offset"] for event in records["data"]] == ["4"]


def test_the_command_line_lists_and_follows_the_log(place: EventsPlace) -> None:
    head = place.head()
    command = [sys.executable, "-m", "cope_cli.main", "--base-url", place.url, "--api-key", KEY, "events"]

    listed = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, timeout=60)
    following = subprocess.Popen(
        [*command, "--follow", "--after", str(head), "--limit", "1"], stdout=subprocess.PIPE, text=True
    )
    time.sleep(0.5)
    place.grow()
    followed, _ = following.communicate(timeout=60)
    wrong = subprocess.run(
        [*command, "--follow", "--types", "x.y"], check=False, capture_output=True, text=True, timeout=60
    )

    assert [json.loads(line)["offset"] for line in listed.stdout.splitlines()] == [str(n) for n in range(1, head + 1)]
    assert followed.split()[0] == str(head + 1)
    assert "webhook_endpoint.created" in followed
    assert (wrong.returncode, wrong.stderr.startswith("cope: There is no event type")) == (2, True)
