"""What is known of a store that was restored from a backup: until it is reconciled it makes no paid call."""

from dataclasses import dataclass
from datetime import datetime

from cope.core.errors import Conflict
from cope.core.ids import ProjectId


@dataclass(frozen=True, slots=True)
class RestoreNotice:
    """`held` are the projects that the restore paused and the release is to let go on. `reconciled_at` is when a usage
    export that covers the gap was applied, None: not yet."""

    backup_at: datetime
    restored_at: datetime
    reconciled_at: datetime | None
    held: tuple[ProjectId, ...]

    def covered_by(self, start: datetime, until: datetime) -> bool:
        """Whether a complete export of this span holds every call that the backup cannot know of."""
        return start <= self.backup_at and until >= self.restored_at


def not_reconciled() -> Conflict:
    """Why nothing may go on yet, and what ends that."""
    return Conflict(
        "This store was restored from a backup, and its books may lack calls that were paid since. Apply the "
        "provider's complete usage export until nothing is left over (cope reconcile usage.csv --apply "
        "--complete-from … --complete-until … --unknown-to PROJECT), then cope restored --release.",
        code="restored_not_reconciled",
    )
