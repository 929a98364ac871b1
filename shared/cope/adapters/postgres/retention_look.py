"""What is stored, and what the next pass of retention takes away: counts, by the very conditions that it works by."""

from cope.adapters.postgres.database import Connection, fetch_one
from cope.adapters.postgres.retained import values_of, views
from cope.adapters.postgres.retention import DUE_BATCH, DUE_DELIVERY, DUE_LIVE, ENDED, IN_DOUBT
from cope.adapters.postgres.stored_files import OVER, over_values
from cope.core.keeping import Keeping
from cope.ports.retention import RetentionReport

_FILES = f"""
SELECT now() AS now, count(*) AS files, coalesce(sum(bytes), 0)::bigint AS bytes,
  min(created_at) AS oldest, count(*) FILTER (WHERE {OVER}) AS over,
  coalesce(sum(bytes) FILTER (WHERE blob_id IS NULL), 0)::bigint AS own,
  count(*) FILTER (WHERE {OVER} AND EXISTS (
    SELECT FROM batches b WHERE b.status = 'validating' AND b.input_file_id = f.id)) AS waiting
FROM files f
"""  # noqa: S608

_BLOBS = """
SELECT coalesce(sum(bytes) FILTER (WHERE refs > 0), 0)::bigint AS bytes,
  count(*) FILTER (WHERE refs = 0 AND emptied_at IS NULL) AS freed FROM blobs
"""

_BATCHES = f"""
SELECT count(*) FILTER (WHERE d.due AND NOT d.doubted) AS due,
  coalesce(sum(d.total) FILTER (WHERE d.due AND NOT d.doubted), 0)::bigint AS tasks,
  count(*) FILTER (WHERE d.due AND d.doubted) AS doubted, min(d.ended) AS oldest
FROM (
  SELECT b.total, {ENDED} AS ended, coalesce({DUE_BATCH}, false) AS due,
    CASE WHEN {DUE_BATCH} THEN {IN_DOUBT} ELSE false END AS doubted
  FROM batches b JOIN projects p ON p.id = b.project_id
  WHERE b.pruned_at IS NULL AND b.total > 0 AND b.status IN ('completed', 'failed', 'expired', 'cancelled')) d
"""  # noqa: S608

_LIVE = f"""
SELECT (SELECT count(*) FROM tasks t JOIN projects p ON p.id = t.project_id WHERE {DUE_LIVE}) AS due,
  (SELECT min(finished_at) FROM tasks WHERE batch_id IS NULL AND finished_at IS NOT NULL) AS oldest
"""  # noqa: S608

_DELIVERIES = f"SELECT count(*) AS due FROM deliveries WHERE {DUE_DELIVERY}"  # noqa: S608


async def look(conn: Connection, keeping: Keeping) -> RetentionReport:
    """Reads and changes nothing."""
    values = values_of(keeping)
    files = await fetch_one(conn, _FILES, await over_values(conn, keeping))
    blobs = await fetch_one(conn, _BLOBS)
    batches = await fetch_one(conn, _BATCHES, values)
    live = await fetch_one(conn, _LIVE, values)
    deliveries = await fetch_one(conn, _DELIVERIES, values)
    assert files is not None
    assert blobs is not None
    assert batches is not None
    assert live is not None
    assert deliveries is not None
    stored = blobs["bytes"] + files["own"]
    return RetentionReport(
        at=files["now"],
        files=files["files"],
        stored_bytes=stored,
        shared_bytes=max(0, files["bytes"] - stored),
        freed_blobs=blobs["freed"],
        due_files=files["over"] - files["waiting"],
        waiting_files=files["waiting"],
        due_batches=batches["due"],
        due_tasks=batches["tasks"],
        due_live=live["due"],
        due_deliveries=deliveries["due"],
        doubted_batches=batches["doubted"],
        oldest_file_at=files["oldest"],
        oldest_batch_at=batches["oldest"],
        oldest_live_at=live["oldest"],
        partitions=tuple(await views(conn, keeping, files["now"])),
    )
