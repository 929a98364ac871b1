"""The shadow audit: which answers were sampled, and how many there were to sample from.

An audit is asked by an internal task with `key_id` 'audit': that is its budget's scope, and it goes with its attempts
into the ledger, whose rows need no further column.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE projects
  ADD COLUMN audit_share integer NOT NULL DEFAULT 0, ADD COLUMN audit_cap bigint DEFAULT 0,
  ADD CONSTRAINT projects_audit_check CHECK (audit_share BETWEEN 0 AND 1000000 AND audit_cap >= 0);
ALTER TABLE batches
  ADD COLUMN audit_share integer,
  ADD CONSTRAINT batches_audit_check CHECK (audit_share BETWEEN 0 AND 1000000);

CREATE TABLE audits (
  task_id text COLLATE "C" PRIMARY KEY,
  project_id text COLLATE "C" NOT NULL,
  batch_id text COLLATE "C",
  audit_task_id text COLLATE "C" NOT NULL,
  month text NOT NULL,
  stage smallint NOT NULL,
  votes smallint NOT NULL,
  n smallint NOT NULL,
  stopped_early boolean NOT NULL,
  share integer NOT NULL,
  state text NOT NULL DEFAULT 'pending',
  reason text,
  small_answer text NOT NULL,
  small_key text NOT NULL,
  large_answer text,
  large_key text,
  cost bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  CONSTRAINT audits_state_check CHECK (state IN ('pending', 'agreed', 'disagreed', 'unparsable', 'dropped'))
);
CREATE UNIQUE INDEX audits_task ON audits (audit_task_id);
CREATE INDEX audits_project ON audits (project_id, task_id);
CREATE INDEX audits_month ON audits (project_id, month);
CREATE INDEX audits_batch ON audits (batch_id, task_id) WHERE batch_id IS NOT NULL;

CREATE TABLE audit_population (
  project_id text COLLATE "C" NOT NULL,
  month text NOT NULL,
  batch_id text COLLATE "C" NOT NULL,
  stage smallint NOT NULL,
  votes smallint NOT NULL,
  n smallint NOT NULL,
  stopped_early boolean NOT NULL,
  share integer NOT NULL,
  accepted bigint NOT NULL,
  PRIMARY KEY (project_id, month, batch_id, stage, votes, n, stopped_early, share)
);
CREATE INDEX audit_population_batch ON audit_population (batch_id);
GRANT SELECT ON audits, audit_population TO cope_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON audits, audit_population TO cope_worker;
"""

_PROTECTED = ("audits", "audit_population")

# What is still to be asked is not asked any more; money that was spent stays in the books, under its scope.
BACK = """
ALTER TABLE tasks NO FORCE ROW LEVEL SECURITY;
UPDATE tasks SET state = 'cancelled', hold = NULL, lease_until = NULL, lease_owner = NULL, finished_at = now()
WHERE key_id = 'audit' AND state IN ('ready', 'leased', 'held');
ALTER TABLE tasks FORCE ROW LEVEL SECURITY;
DROP TABLE audit_population;
DROP TABLE audits;
ALTER TABLE batches DROP COLUMN audit_share;
ALTER TABLE projects DROP COLUMN audit_share, DROP COLUMN audit_cap;
"""


def upgrade() -> None:
    """Off for every project."""
    op.execute(TABLES)
    for table in _PROTECTED:
        op.execute(f"CREATE POLICY own_project ON {table} USING (project_id = current_setting('cope.project', true))")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    """The figures go; the money stays."""
    op.execute(BACK)
