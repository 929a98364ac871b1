"""The event log: one gapless row of offsets for each project, in partitions by the day; consumer groups; the relay.

`events` becomes what it was half of before: the outbox that transactions write to. The sequencer moves its rows into
`event_log`. So a worker or an API of the version before goes on writing to the same place while both run; what it
numbers itself is numbered again here. What lies in `events` at the upgrade is moved by the first sequencer, at 20,000
rows each 100 ms, and appears in the log from then on.

A row's partition is that of the day it *entered the log*, which never goes back as offsets rise (`event_head.logged_at`
sees to it): what is dropped with an old partition is always the log's beginning, never a hole.
"""

from alembic import op

revision = "0014"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES = """
DROP INDEX events_unsequenced;
DROP INDEX events_offset;
ALTER TABLE events SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
  autovacuum_vacuum_cost_delay = 1);
ALTER TABLE event_head ADD COLUMN logged_at timestamptz NOT NULL DEFAULT now();

CREATE TABLE event_heads (
  project_id text COLLATE "C" PRIMARY KEY,
  last bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE event_log (
  project_id text COLLATE "C" NOT NULL,
  "offset" bigint NOT NULL,
  logged_at timestamptz NOT NULL,
  at timestamptz NOT NULL,
  id text COLLATE "C" NOT NULL,
  batch_id text COLLATE "C",
  task_id text COLLATE "C",
  type text NOT NULL,
  data text NOT NULL,
  PRIMARY KEY (project_id, "offset", logged_at)
) PARTITION BY RANGE (logged_at);
CREATE TABLE event_log_rest PARTITION OF event_log DEFAULT;
CREATE INDEX event_log_batch ON event_log (batch_id, "offset") WHERE batch_id IS NOT NULL;

CREATE TABLE event_consumers (
  project_id text COLLATE "C" NOT NULL REFERENCES projects (id),
  name text COLLATE "C" NOT NULL,
  types text[],
  committed bigint NOT NULL,
  generation integer NOT NULL DEFAULT 0,
  member text,
  member_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  committed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (project_id, name),
  CONSTRAINT event_consumers_committed_check CHECK (committed >= 0)
);

CREATE TABLE relay_places (
  project_id text COLLATE "C" PRIMARY KEY,
  committed bigint NOT NULL
) WITH (fillfactor = 50);

CREATE INDEX deliveries_dead ON deliveries (project_id, id) WHERE state = 'dead';
"""

# As the ledger's: made beside and attached, because making a partition in place would shut every writer out meanwhile.
PARTITIONS = """
CREATE FUNCTION make_event_partition(wanted date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
  name text := 'event_log_' || to_char(wanted, 'YYYY_MM_DD');
BEGIN
  IF to_regclass('public.' || name) IS NOT NULL THEN
    RETURN false;
  END IF;
  EXECUTE format('CREATE TABLE public.%I (LIKE public.event_log INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
  EXECUTE format('ALTER TABLE public.event_log ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', name,
    wanted::timestamp AT TIME ZONE 'UTC', (wanted + 1)::timestamp AT TIME ZONE 'UTC');
  RETURN true;
EXCEPTION
  WHEN duplicate_table OR unique_violation THEN RETURN false;  -- another sweep was first
  WHEN check_violation THEN RETURN false;  -- rows of this day came before its partition and stay in event_log_rest
END
$$;

CREATE FUNCTION drop_event_partitions(before date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET lock_timeout = '5s' AS $$
DECLARE
  old regclass;
  dropped integer := 0;
BEGIN
  FOR old IN
    SELECT c.oid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.event_log'::regclass AND c.relname ~ '^event_log_[0-9]{4}_[0-9]{2}_[0-9]{2}$'
      AND to_date(substr(c.relname, 11), 'YYYY_MM_DD') < before
  LOOP
    EXECUTE format('DROP TABLE %s', old);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END
$$;
REVOKE ALL ON FUNCTION make_event_partition(date), drop_event_partitions(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_event_partition(date), drop_event_partitions(date) TO cope_worker;
SELECT make_event_partition((now() AT TIME ZONE 'UTC')::date + n) FROM generate_series(0, 1) n;
"""

# Readers wait in one statement for several projects: those whose keys the API has checked, said for one transaction.
RULES = """
CREATE POLICY waited_for ON event_log FOR SELECT
  USING (project_id = ANY (string_to_array(current_setting('cope.projects', true), ',')));
CREATE POLICY waited_for ON event_heads FOR SELECT
  USING (project_id = ANY (string_to_array(current_setting('cope.projects', true), ',')));
GRANT SELECT ON event_log, event_heads TO cope_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON event_consumers TO cope_api;
GRANT SELECT, INSERT, DELETE ON event_log TO cope_worker;
GRANT SELECT, INSERT, UPDATE ON event_heads TO cope_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON event_consumers, relay_places TO cope_worker;
"""

# One row of offsets over all projects again; what was not in the log yet follows it.
BACK = """
UPDATE events SET "offset" = NULL WHERE "offset" IS NOT NULL;
INSERT INTO events ("offset", id, project_id, batch_id, task_id, type, at, data)
SELECT row_number() OVER (ORDER BY logged_at, project_id, "offset"), id, project_id, batch_id, task_id, type, at, data
FROM event_log;
UPDATE event_head SET last = (SELECT coalesce(max("offset"), 0) FROM events);
DROP INDEX deliveries_dead;
DROP TABLE relay_places;
DROP TABLE event_consumers;
DROP FUNCTION drop_event_partitions(date);
DROP FUNCTION make_event_partition(date);
DROP TABLE event_log;
DROP TABLE event_heads;
ALTER TABLE event_head DROP COLUMN logged_at;
ALTER TABLE events RESET (autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay),
  SET (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX events_unsequenced ON events (seq) WHERE "offset" IS NULL;
CREATE UNIQUE INDEX events_offset ON events (project_id, "offset") WHERE "offset" IS NOT NULL;
"""

_OWN = ("event_log", "event_heads", "event_consumers", "relay_places")


def upgrade() -> None:
    """No row moves now: the sequencer does that, while everybody works."""
    op.execute(TABLES)
    op.execute(PARTITIONS)
    for table in _OWN:
        op.execute(f"CREATE POLICY own_project ON {table} USING (project_id = current_setting('cope.project', true))")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(RULES)


def downgrade() -> None:
    """Consumer groups and the relay's places go; the events stay."""
    for table in ("events", "event_log"):
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    op.execute(BACK)
    op.execute("ALTER TABLE events FORCE ROW LEVEL SECURITY")
