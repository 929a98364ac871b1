"""Files that share their bytes, and what is deleted when: steps in weekly partitions, batches and projects that say so.

A row of `blobs` is one run of bytes in the file store, named by the file that brought it. `refs` files read it; at 0
it is never read again and its name never used again, so its bytes may be deleted at any later time, twice if need be.
Files from before (and those that a worker of the version before still writes) have no blob: their bytes are their own.

Steps are partitioned by their task's id, whose head is its time: the key stays what it was, and a look-up by task reads
one partition. The rows that are there become the first partition as they lie; none is copied.
"""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE blobs (
  id text COLLATE "C" PRIMARY KEY,
  project_id text COLLATE "C" NOT NULL,
  sha256 text NOT NULL,
  bytes bigint NOT NULL,
  refs integer NOT NULL,
  shared boolean NOT NULL,
  freed_at timestamptz,
  emptied_at timestamptz,
  CONSTRAINT blobs_refs_check CHECK (refs >= 0)
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX blobs_content ON blobs (project_id, sha256) WHERE refs > 0 AND shared;
CREATE INDEX blobs_project ON blobs (project_id) INCLUDE (bytes) WHERE refs > 0;
CREATE INDEX blobs_freed ON blobs (emptied_at, freed_at) WHERE refs = 0;

ALTER TABLE files ADD COLUMN blob_id text COLLATE "C";
CREATE INDEX files_expiry ON files (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE projects ADD COLUMN keep_days integer,
  ADD CONSTRAINT projects_keep_check CHECK (keep_days BETWEEN 1 AND 36500);
ALTER TABLE batches ADD COLUMN pruned_at timestamptz;
CREATE INDEX batches_kept ON batches (id)
  WHERE pruned_at IS NULL AND total > 0 AND status IN ('completed', 'failed', 'expired', 'cancelled');
CREATE INDEX tasks_solo ON tasks (finished_at) WHERE batch_id IS NULL AND finished_at IS NOT NULL;
CREATE INDEX tasks_unwiped ON tasks (finished_at)
  WHERE batch_id IS NULL AND finished_at IS NOT NULL AND payload LIKE '%"st":"none"%'
    AND payload NOT LIKE '%"m":[],"r":"","st":"none"}';
CREATE INDEX deliveries_over ON deliveries (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE upkeep_notes (name text PRIMARY KEY, value text, at timestamptz NOT NULL DEFAULT now());

CREATE POLICY own_project ON blobs USING (project_id = current_setting('cope.project', true));
ALTER TABLE blobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE blobs FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE ON blobs TO cope_api;
GRANT UPDATE (filename) ON files TO cope_api;
GRANT SELECT ON upkeep_notes TO cope_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON blobs, upkeep_notes TO cope_worker;
"""

# Everything below may be cut off and repeated: each call is one transaction, and whoever waits for a lock gives up.
FUNCTIONS = """
CREATE FUNCTION make_steps_partition(name text, low text, high text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET lock_timeout = '2s' AS $$
BEGIN
  IF name !~ '^steps_[0-9]{8}$' OR low !~ '^task_[0-9a-z]{26}$' OR high !~ '^task_[0-9a-z]{26}$' THEN
    RAISE EXCEPTION 'no partition of steps: % from % to %', name, low, high;
  END IF;
  IF to_regclass('public.' || name) IS NOT NULL THEN
    RETURN false;
  END IF;
  EXECUTE format('CREATE TABLE public.%I (LIKE public.steps INCLUDING DEFAULTS INCLUDING CONSTRAINTS
    INCLUDING COMPRESSION) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05)', name);
  EXECUTE format('ALTER TABLE public.steps ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', name, low, high);
  RETURN true;
EXCEPTION
  WHEN duplicate_table OR unique_violation THEN RETURN false;  -- another sweep was first
  WHEN check_violation OR invalid_object_definition THEN RETURN false;  -- what came before it stays in steps_rest
  WHEN lock_not_available THEN RETURN false;  -- tried again within the hour
END
$$;

-- The owner is bound by row-level security and can't see who still needs it: its caller has looked. NULL: somebody has
-- a lock on it, false: there is no such partition.
CREATE FUNCTION drop_partition(parent text, part text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET lock_timeout = '1s' AS $$
BEGIN
  IF parent NOT IN ('steps', 'events', 'event_log', 'deliveries') THEN
    RAISE EXCEPTION 'partitions of % are never dropped', parent;
  END IF;
  IF NOT EXISTS (
    SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass('public.' || parent) AND c.oid = to_regclass('public.' || quote_ident(part))
      AND c.relispartition AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT') THEN
    RETURN false;
  END IF;
  EXECUTE format('DROP TABLE public.%I', part);
  RETURN true;
EXCEPTION
  WHEN lock_not_available OR deadlock_detected THEN RETURN NULL;
  WHEN undefined_table THEN RETURN false;  -- another pass was first
END
$$;
REVOKE ALL ON FUNCTION make_steps_partition(text, text, text), drop_partition(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_steps_partition(text, text, text), drop_partition(text, text) TO cope_worker;
"""

STEPS = """
ALTER TABLE steps RENAME TO steps_before;
ALTER TABLE steps_before RENAME CONSTRAINT steps_pkey TO steps_before_pkey;
DROP POLICY own_project ON steps_before;
CREATE TABLE steps (
  task_id text COLLATE "C" NOT NULL,
  name text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  data text NOT NULL,
  PRIMARY KEY (task_id, name)
) PARTITION BY RANGE (task_id);
CREATE TABLE steps_rest PARTITION OF steps DEFAULT WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);
DO $$ BEGIN
  ALTER TABLE steps ALTER COLUMN data SET COMPRESSION lz4;
  ALTER TABLE steps_rest ALTER COLUMN data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN NULL;
END $$;
ALTER TABLE steps_before NO FORCE ROW LEVEL SECURITY;
ALTER TABLE steps_before DISABLE ROW LEVEL SECURITY;
REVOKE ALL ON steps_before FROM cope_api, cope_worker;
"""

PROTECTED = """
CREATE POLICY own_project ON steps USING (EXISTS (SELECT FROM tasks WHERE tasks.id = steps.task_id));
ALTER TABLE steps ENABLE ROW LEVEL SECURITY;
ALTER TABLE steps FORCE ROW LEVEL SECURITY;
GRANT SELECT, UPDATE ON steps TO cope_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON steps TO cope_worker;
"""

# Ids that are no time of the past (a clock that went wrong) are few or none; they move.
FIRST = """
WITH moved AS (DELETE FROM steps_before WHERE task_id >= '{high}' RETURNING *) INSERT INTO steps SELECT * FROM moved;
ALTER TABLE steps ATTACH PARTITION steps_before FOR VALUES FROM (MINVALUE) TO ('{high}');
"""

BACK = """
DROP FUNCTION drop_partition(text, text);
DROP FUNCTION make_steps_partition(text, text, text);
ALTER TABLE steps NO FORCE ROW LEVEL SECURITY;
CREATE TABLE steps_one (
  task_id text COLLATE "C" NOT NULL,
  name text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  data text NOT NULL
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);
DO $$ BEGIN
  ALTER TABLE steps_one ALTER COLUMN data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN NULL;
END $$;
INSERT INTO steps_one SELECT * FROM steps;
DROP TABLE steps;
ALTER TABLE steps_one RENAME TO steps;
ALTER TABLE steps ADD CONSTRAINT steps_pkey PRIMARY KEY (task_id, name);
"""

BACK_TOO = """
DROP TABLE upkeep_notes;
DROP INDEX deliveries_over;
DROP INDEX tasks_unwiped;
DROP INDEX tasks_solo;
DROP INDEX batches_kept;
ALTER TABLE batches DROP COLUMN pruned_at;
ALTER TABLE projects DROP COLUMN keep_days;
REVOKE UPDATE (filename) ON files FROM cope_api;
DROP INDEX files_expiry;
ALTER TABLE files DROP COLUMN blob_id;
DROP TABLE blobs;
"""


_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"


def _first_id(at: datetime) -> str:
    """The lowest id of a task made at `at`: 48 bits of milliseconds in base 32, then what is drawn."""
    ms = int(at.timestamp() * 1000)
    return "task_" + "".join(_LETTERS[ms >> shift & 31] for shift in range(45, -1, -5)) + "0" * 16


def upgrade() -> None:
    """Attaching reads the old steps once, and nobody writes meanwhile: about a second for a million rows."""
    op.execute(TABLES)
    op.execute(FUNCTIONS)
    op.execute(STEPS)
    now = op.get_bind().execute(sa.text("SELECT now()")).scalar_one().astimezone(UTC)
    monday = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=now.weekday())
    weeks = [monday + timedelta(days=7 * n) for n in range(3)]
    if op.get_bind().execute(sa.text("SELECT EXISTS (SELECT FROM steps_before)")).scalar_one():
        weeks = weeks[1:]
        op.execute(FIRST.format(high=_first_id(weeks[0])))
    else:
        op.execute("DROP TABLE steps_before")
    for week in weeks:
        low, high = _first_id(week), _first_id(week + timedelta(days=7))
        op.execute(f"SELECT make_steps_partition('steps_{week:%Y%m%d}', '{low}', '{high}')")
    op.execute(PROTECTED)
    op.execute("GRANT SELECT, DELETE ON steps_rest TO cope_worker")


def downgrade() -> None:
    """One table of steps. Files whose bytes belong to another file's name read them no more: they go with their rows
    (`blob_id <> id`), and whoever sent them sends them again."""
    op.execute("ALTER TABLE files NO FORCE ROW LEVEL SECURITY")
    op.execute("DELETE FROM files WHERE blob_id <> id")
    op.execute("ALTER TABLE files FORCE ROW LEVEL SECURITY")
    op.execute(BACK)
    op.execute(PROTECTED)
    op.execute(BACK_TOO)
