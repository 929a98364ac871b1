"""Calls billed under ids like ours that no attempt here stands for: counted as spend of a project.

After a restore these are the calls of the hours that the backup does not know of.
"""

import hashlib
from dataclasses import dataclass

from cope.core.errors import Conflict
from cope.core.ids import USAGE, ProjectId, UsageId
from cope.core.money import NanoUSD
from cope.core.reconcile import UNSETTLED, Verdict
from cope.ports.spend import NewUsage, SpendStore
from cope.ports.support import IdMaker
from cope.usecases.reconcile import Reconciliation


@dataclass(frozen=True, slots=True)
class Counted:
    """`calls` are counted, for `amount` together; `left` are not: the file tells no cost, tells another one than was
    counted before, or names more of them than are kept."""

    calls: int = 0
    amount: NanoUSD = NanoUSD(0)
    left: int = 0


def uncounted(found: Reconciliation) -> Counted:
    """Where nobody said which project they are to be counted in."""
    return Counted(left=found.tallies[Verdict.UNKNOWN].calls)


async def count_unknown(store: SpendStore, ids: IdMaker, found: Reconciliation, project_id: ProjectId) -> Counted:
    """In this month's budget of the project, each request once however often it is repeated."""
    calls = amount = 0
    for entry in found.entries:
        if entry.verdict is not Verdict.UNKNOWN or entry.billed is None:
            continue
        if entry.billed > 0:
            try:
                await store.record_usage(
                    NewUsage(
                        id=UsageId(ids.new(USAGE)),
                        project_id=project_id,
                        key_id=None,
                        amount=entry.billed,
                        occurred_at=None,
                        model=None,
                        description="billed by the provider for a request that this store does not know",
                        reference=f"reconciled:{entry.request_id}",
                        body_hash=hashlib.sha256(str(int(entry.billed)).encode()).digest(),
                    )
                )
            except Conflict:
                continue
        calls += entry.calls
        amount += entry.billed
    return Counted(calls, NanoUSD(amount), found.tallies[Verdict.UNKNOWN].calls - calls)


def is_whole(found: Reconciliation, counted: Counted) -> bool:
    """Whether after it the books hold everything that the file says was billed under our ids."""
    return not found.loaded.bad_count and not counted.left and not any(found.tallies[v].attempts for v in UNSETTLED)
