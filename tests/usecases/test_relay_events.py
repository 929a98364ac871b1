"""The relay over the memory store: everything arrives, in order, and nothing moves on before it was taken."""

import asyncio
from itertools import pairwise

from cope.adapters.memory import FixedClock, MemoryStore, SequentialIds
from cope.adapters.memory.event_sink import RecordingSink
from cope.core.ids import ProjectId
from cope.core.records import Event
from cope.usecases import relay_events
from cope.usecases.relay_events import Relay
from tests.support import make_endpoint, make_project

SECRET = "whsec_dGVzdHMtc2lnbi10aGVpci13ZWJob29rcw=="


async def grown(store: MemoryStore, events: int) -> ProjectId:
    """A project with so many events."""
    project = await store.create_project(make_project(), SECRET)
    for _ in range(events):
        await store.create_endpoint(make_endpoint(project.id))
    await store.sequence_events()
    return project.id


async def relay_until(store: MemoryStore, sink: RecordingSink, *, events: int) -> None:
    """Run it until so many have been taken, and are known to be."""

    def stopping() -> bool:
        return sum(store._db.relayed.values()) >= events

    await asyncio.wait_for(Relay(store, sink.open).run(stopping), 20)


def first_appearances(taken: list[Event], project_id: ProjectId) -> list[int]:
    """The offsets, each where it came first."""
    return list(dict.fromkeys(event.offset or 0 for event in taken if event.project_id == project_id))


async def test_every_projects_log_arrives_in_order() -> None:
    store, sink = MemoryStore(FixedClock(), SequentialIds()), RecordingSink()
    one, two = await grown(store, 30), await grown(store, 5)

    await relay_until(store, sink, events=35)

    assert first_appearances(sink.taken, one) == list(range(1, 31))
    assert first_appearances(sink.taken, two) == list(range(1, 6))
    assert len(sink.taken) == 35
    assert sink.opened == 1


async def test_what_was_not_taken_whole_is_sent_again_from_its_place_with_a_new_sink(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(relay_events, "_FIRST_PAUSE_S", 0.001)
    store, sink = MemoryStore(FixedClock(), SequentialIds()), RecordingSink(fail_after=[7, 0, 12])
    project = await grown(store, 20)

    await relay_until(store, sink, events=20)

    offsets = [event.offset or 0 for event in sink.taken]
    assert offsets == [*range(1, 8), *range(1, 13), *range(1, 21)]
    assert first_appearances(sink.taken, project) == list(range(1, 21))
    assert all(after == before + 1 or after == 1 for before, after in pairwise(offsets))
    assert sink.opened == 4


async def test_a_relay_that_begins_anew_goes_on_at_its_places() -> None:
    store, sink = MemoryStore(FixedClock(), SequentialIds()), RecordingSink()
    project = await grown(store, 3)
    await relay_until(store, sink, events=3)
    for _ in range(2):
        await store.create_endpoint(make_endpoint(project))
    await store.sequence_events()

    await relay_until(store, sink, events=5)

    assert [event.offset for event in sink.taken] == [1, 2, 3, 4, 5]
