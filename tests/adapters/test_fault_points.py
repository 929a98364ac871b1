"""Fault points: nothing without COPE_TESTING, and what an order does to the process that comes to it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cope.adapters.fault_points import FaultPoints, armed, parse_orders
from cope.core.errors import Misconfigured

_COME_TO = """
import sys
from cope.adapters.fault_points import FaultPoints
points = FaultPoints(sys.argv[1])
for _ in range(int(sys.argv[2])):
    points.pass_("after_sent")
"""


def come_to(source: str, times: int = 1) -> int:
    """The exit status of a process that comes to `after_sent` so often."""
    return subprocess.run([sys.executable, "-c", _COME_TO, source, str(times)], check=False).returncode


def test_without_testing_no_point_is_armed() -> None:
    assert armed(testing=False, source="after_sent:1:7") is None
    assert armed(testing=True, source="") is None


def test_an_order_is_a_name_a_probability_a_seed_and_a_number_of_times() -> None:
    sent, dropped = parse_orders("after_sent:0.25:7:2 wakeups_dropped")
    assert (sent.name, sent.probability, sent.seed, sent.times) == ("after_sent", 0.25, 7, 2)
    assert dropped.name == "wakeups_dropped"


@pytest.mark.parametrize("word", ["after_lunch:1:7", "after_sent:2:7", "after_sent:often:7", "after_sent:1:7:2:3"])
def test_an_order_that_cannot_be_read_is_refused_by_name(word: str) -> None:
    with pytest.raises(Misconfigured, match=word):
        parse_orders(word)


def test_a_process_that_comes_to_its_point_is_killed_there_and_any_other_goes_on() -> None:
    assert come_to("after_sent:1:7") == -signal.SIGKILL
    assert come_to("after_claim:1:7") == 0
    assert come_to("after_sent:0:7", times=100) == 0


def test_orders_in_a_file_change_while_the_process_runs_and_are_counted_over_all_processes(tmp_path: Path) -> None:
    orders = tmp_path / "points"
    orders.write_text("after_sent:1:7:2")
    assert [come_to(f"@{orders}") for _ in range(3)] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert [line.split()[0] for line in (tmp_path / "points.fired").read_text().splitlines()] == ["after_sent"] * 2

    points = FaultPoints(f"@{orders}")
    assert points.wake_ups() == 1
    orders.write_text("wakeups_x50")
    os.utime(orders, ns=(1, 1))
    assert points.wake_ups() == 50
    orders.unlink()
    points.pass_("after_sent")
