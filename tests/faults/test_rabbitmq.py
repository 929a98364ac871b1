"""The second broker: RabbitMQ with quorum queues, killed, away and cut, where this machine has it."""

from pathlib import Path

import pytest
from ops.bench.faults.place import Place
from ops.bench.faults.plan import plan
from ops.bench.faults.rabbit import find_rabbitmq
from ops.bench.faults.run import Run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        find_rabbitmq() is None, reason="RabbitMQ IS NOT TRIED HERE: it is not installed (apt install rabbitmq-server)"
    ),
]


def test_with_rabbitmq_nothing_is_lost_when_it_is_killed_away_or_cut(scratch: Path, tmp_path: Path) -> None:
    place = Place(scratch / "rabbit-faults", "rabbitmq", large_s="0.1:0.4", small_s="0.02:0.1")
    try:
        faults = plan(1, "rabbitmq", only=("kill child large", "redis kill", "reset redis", "redis gone"))
        result = Run(place, 1, 100, faults, name="seed 1", log=tmp_path / "events.jsonl", allowance_s=30.0).go()
    finally:
        place.close()

    assert result["violations"] == []
    assert result["done"] == 100
