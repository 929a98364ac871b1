"""The operator's part of `ApiStore`: a restored store's guard, and what the database says of itself."""

from datetime import datetime
from typing import Protocol

from cope.core.doctor import StoreFacts
from cope.core.restored import RestoreNotice


class Operations(Protocol):
    """While there is a notice every project is paused, also one made meanwhile, and resuming one is a `Conflict`
    (`restored_not_reconciled`)."""

    async def restore_notice(self) -> RestoreNotice | None:
        """The notice, None where nothing was restored or all of it is let go on."""
        ...

    async def note_reconciled(self, start: datetime, until: datetime) -> RestoreNotice | None:
        """A complete usage export of this span was applied and left nothing over: the notice is marked if the span
        covers its gap."""
        ...

    async def release_restore(self, *, unreconciled: bool = False) -> RestoreNotice | None:
        """Let the paused projects go on; the notice as it was, None where there is none.

        `Conflict` (`restored_not_reconciled`) unless it is reconciled, or `unreconciled` says to go on all the same.
        Repeat it after an interruption: the rest is let go on.
        """
        ...

    async def facts(self) -> StoreFacts:
        """For `cope doctor`, from one snapshot."""
        ...
