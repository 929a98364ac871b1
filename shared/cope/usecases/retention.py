"""What is deleted in its time: files, the bytes behind them, batches and live calls. Runs beside the upkeep queue.

Any number of processes may run it. Each kind of work is begun by whoever asks first after its interval (`take_turn`),
and every part of it may be cut off anywhere: what is half done is done by the next turn.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Protocol

import orjson

from cope.core.errors import StorageUnavailable, StoreUnavailable
from cope.core.ids import FileId
from cope.core.keeping import Keeping
from cope.ports.files import FileStore
from cope.ports.retention import Pruned, RetentionReport, RetentionStore
from cope.ports.support import Clock

logger = logging.getLogger(__name__)

_LOOK_S, _STOP_CHECK_S = 5.0, 0.25
_FILES_EVERY_S, _PRUNE_EVERY_S, _STRAYS_EVERY_S = 60.0, 600.0, 21_600.0
_GRACE = timedelta(hours=24)
_AT_ONCE = 500
_ROWS_A_PASS = 50_000


async def _rest(stopping: Callable[[], bool]) -> None:
    rested = 0.0
    while rested < _LOOK_S and not stopping():
        await asyncio.sleep(_STOP_CHECK_S)
        rested += _STOP_CHECK_S


class RetentionParts(Protocol):
    """What retention needs."""

    @property
    def store(self) -> RetentionStore: ...
    @property
    def files(self) -> FileStore: ...
    @property
    def clock(self) -> Clock: ...


class Retention:
    """Runs until told to stop."""

    def __init__(self, parts: RetentionParts, keeping: Keeping) -> None:
        self._parts = parts
        self._keeping = keeping

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping()` is true; a pass is not begun after that."""
        while not stopping():
            try:
                await self._turns(stopping)
            except (StoreUnavailable, StorageUnavailable) as away:
                logger.warning("retention waits: %s", away)
            except Exception:
                logger.exception("a pass of retention failed; its next turn tries again")
            await _rest(stopping)

    async def _turns(self, stopping: Callable[[], bool]) -> None:
        store = self._parts.store
        if await store.take_turn("files", every_s=_FILES_EVERY_S):
            await expire_files(self._parts, self._keeping)
        if await store.take_turn("prune", every_s=_PRUNE_EVERY_S):
            await prune(self._parts, self._keeping, stopping)
        if await store.take_turn("strays", every_s=_STRAYS_EVERY_S):
            await collect_strays(self._parts)


async def expire_files(parts: RetentionParts, keeping: Keeping) -> int:
    """Rows of files over their time, then all bytes that nobody reads any more; how many names were emptied."""
    while await parts.store.expire_files(keeping, limit=_AT_ONCE) == _AT_ONCE:
        pass
    return await empty_freed(parts)


async def empty_freed(parts: RetentionParts) -> int:
    """Delete the bytes that nobody reads any more; how many names."""
    emptied = 0
    while freed := await parts.store.freed_bytes(limit=_AT_ONCE):
        await _empty(parts, freed)
        emptied += len(freed)
    return emptied


async def _empty(parts: RetentionParts, freed: Sequence[FileId]) -> None:
    for name in freed:
        await parts.files.delete(name)
    await parts.store.emptied(freed)


async def prune(
    parts: RetentionParts, keeping: Keeping, stopping: Callable[[], bool] = lambda: False
) -> tuple[Pruned, ...]:
    """Tasks, partitions and old deliveries, pass after pass; then what is left is looked at and the report kept."""
    passes = [await _pass(parts, keeping)]
    while passes[-1].more and (passes[-1].tasks or passes[-1].live) and not stopping():
        passes.append(await _pass(parts, keeping))
    await parts.store.put_retention_report(encode_report(await parts.store.look(keeping), keeping))
    return tuple(passes)


async def _pass(parts: RetentionParts, keeping: Keeping) -> Pruned:
    pruned = await parts.store.prune(keeping, limit=_ROWS_A_PASS)
    if pruned.batches or pruned.tasks or pruned.live or pruned.partitions:
        logger.info(
            "retention: %d batches, %d tasks, %d live calls and %d deliveries pruned; partitions dropped: %s",
            pruned.batches,
            pruned.tasks,
            pruned.live,
            pruned.deliveries,
            ", ".join(pruned.partitions) or "none",
        )
    for name in pruned.held:
        logger.warning("retention: partition %s is over its time and kept: it holds tasks that must stay", name)
    return pruned


async def collect_strays(parts: RetentionParts, *, grace: timedelta = _GRACE) -> int:
    """Half-written files of processes that died, and finished ones that never got a row; how many went.

    Only in a file store that is this database's own: another's files have no rows here and would all seem strays. And
    only older than `grace`: an upload or a result file gets its row after its bytes. Whoever is slower than that finds
    its name taken and is refused; a row never comes to read bytes that were collected.
    """
    before = parts.clock.now() - grace
    went = await parts.files.drop_unfinished(before=before)
    if not await parts.files.claim(await parts.store.home()):
        logger.warning(
            "retention: the file store is marked as another database's; files without a row are not looked for. If it "
            "is this one's alone, remove its file .cope-home"
        )
        return went
    async for names in parts.files.names(before=before):
        went += len(await parts.store.disown(names))
    await empty_freed(parts)
    return went


def encode_report(report: RetentionReport, keeping: Keeping) -> str:
    """As JSON text, with the days that things are kept (null: for ever)."""
    kept = {name: None if keep is None else keep / timedelta(days=1) for name, keep in asdict(keeping).items()}
    return orjson.dumps({"keep_days": kept, **asdict(report)}).decode()
