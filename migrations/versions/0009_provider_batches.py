"""Calls that wait in a provider's own batch: the task state `submitted`, the batches, and their lines.

A line is there from the moment its call is gathered until its result is settled; `provider_batch` is empty while it
waits to be sent. A project sees its own lines, and of the batches those that carry one of them.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE tasks ADD COLUMN batch_off text;
ALTER TABLE tasks DROP CONSTRAINT tasks_state_check, ADD CONSTRAINT tasks_state_check
  CHECK (state IN ('ready', 'leased', 'held', 'submitted', 'done', 'failed', 'cancelled', 'expired'));
CREATE INDEX tasks_submitted ON tasks (batch_id) WHERE state = 'submitted';

CREATE TABLE provider_batches (
  id text COLLATE "C" PRIMARY KEY,
  model text NOT NULL,
  state text NOT NULL DEFAULT 'forming',
  file_id text,
  provider_id text,
  status text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  due_at timestamptz NOT NULL DEFAULT now(),
  job_until timestamptz,
  doubt_at timestamptz,
  cancelling_at timestamptz,
  ended_at timestamptz,
  job_fence integer NOT NULL DEFAULT 0,
  polls integer NOT NULL DEFAULT 0,
  creates integer NOT NULL DEFAULT 0,
  note text,
  CONSTRAINT provider_batches_state_check CHECK (state IN ('forming', 'submitting', 'working', 'ended'))
);
CREATE INDEX provider_batches_open ON provider_batches (due_at) WHERE state <> 'ended';

CREATE TABLE provider_lines (
  attempt_id text COLLATE "C" PRIMARY KEY,
  task_id text COLLATE "C" NOT NULL,
  project_id text COLLATE "C" NOT NULL,
  provider_batch text COLLATE "C",
  model text NOT NULL,
  step text NOT NULL,
  gathered_at timestamptz NOT NULL DEFAULT now(),
  fence integer NOT NULL,
  size integer NOT NULL,
  data text NOT NULL
);
CREATE INDEX provider_lines_gathered ON provider_lines (model, attempt_id) WHERE provider_batch IS NULL;
CREATE INDEX provider_lines_batch ON provider_lines (provider_batch, attempt_id) WHERE provider_batch IS NOT NULL;
CREATE INDEX provider_lines_task ON provider_lines (task_id);
"""

RULES = """
CREATE POLICY own_project ON provider_lines USING (project_id = current_setting('cope.project', true));
CREATE POLICY own_lines ON provider_batches
  USING (EXISTS (SELECT FROM provider_lines l WHERE l.provider_batch = provider_batches.id));
ALTER TABLE provider_lines ENABLE ROW LEVEL SECURITY;
ALTER TABLE provider_lines FORCE ROW LEVEL SECURITY;
ALTER TABLE provider_batches ENABLE ROW LEVEL SECURITY;
ALTER TABLE provider_batches FORCE ROW LEVEL SECURITY;
GRANT SELECT ON provider_batches, provider_lines TO cope_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON provider_batches, provider_lines TO cope_worker;
"""

# What still waits is called live: its attempt is then nobody's and the sweep of the older version ends it.
BACK = """
ALTER TABLE tasks NO FORCE ROW LEVEL SECURITY;
UPDATE tasks SET state = 'ready', not_before = now() WHERE state = 'submitted';
ALTER TABLE tasks FORCE ROW LEVEL SECURITY;
DROP TABLE provider_lines CASCADE;
DROP TABLE provider_batches;
DROP INDEX tasks_submitted;
ALTER TABLE tasks DROP COLUMN batch_off;
ALTER TABLE tasks DROP CONSTRAINT tasks_state_check, ADD CONSTRAINT tasks_state_check
  CHECK (state IN ('ready', 'leased', 'held', 'done', 'failed', 'cancelled', 'expired'));
"""


def upgrade() -> None:
    """Nothing that exists changes."""
    op.execute(TABLES)
    op.execute(RULES)


def downgrade() -> None:
    """A task that was to end once its call is settled ends with the next lease instead."""
    op.execute(BACK)
