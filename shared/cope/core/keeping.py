"""What is kept for how long, and the times that ids carry: pure arithmetic over dates."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cope.core.ids import make_id, ms_of

WEEK = timedelta(days=7)
_LOWEST = "0" * 16


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long things are kept; None is for ever. Counted from a thing's own end (a file's creation).

    `tasks` holds for what a batch's end leaves behind: its tasks with their results, samples and steps, as rows; a
    project's own `keep_days` takes its place, and that of `live`. `files` is for files that say nothing themselves.
    """

    files: timedelta | None = None
    tasks: timedelta | None = timedelta(days=90)
    live: timedelta | None = timedelta(days=30)
    events: timedelta | None = timedelta(days=30)
    deliveries: timedelta | None = timedelta(days=30)

    @property
    def steps(self) -> timedelta | None:
        """How long steps are kept at least: as long as the tasks of batches and live calls, whichever stay longer."""
        return None if self.tasks is None or self.live is None else max(self.tasks, self.live)


def days(number: int) -> timedelta | None:
    """A setting in days; 0 is for ever."""
    return timedelta(days=number) if number else None


def time_of(some_id: str) -> datetime | None:
    """When an id was made, UTC, to the millisecond; None if it is not written as our ids are."""
    ms = ms_of(some_id)
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


def first_id(prefix: str, at: datetime) -> str:
    """The lowest id that something made at `at` or later can have."""
    return make_id(prefix, now_ms=int(at.timestamp() * 1000), random_part=_LOWEST)


def week_of(at: datetime) -> datetime:
    """The Monday, 00:00 UTC, of the week of `at`."""
    at = at.astimezone(UTC)
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=midnight.weekday())
