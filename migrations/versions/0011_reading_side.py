"""What the reading side of a batch looks at: the order in which lines ended, its pace, one message for each error.

`batch_ends` has one row for each commit that ended lines of a batch: `upto` counts them, in the order of their commits.
It is given under the batch's row lock, so no reader can come past a line that commits late. Of batches from before,
`ends` is empty: the sweep numbers their lines, one batch at a time, while everything runs.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# A default that is set after the column is made does not touch the rows that are there.
TABLES = """
ALTER TABLE batches ADD COLUMN ends integer;
ALTER TABLE batches ALTER COLUMN ends SET DEFAULT 0,
  ADD COLUMN at_large integer NOT NULL DEFAULT 0,
  ADD COLUMN first_large integer NOT NULL DEFAULT 0,
  ADD COLUMN small_steps bigint NOT NULL DEFAULT 0,
  ADD COLUMN large_steps bigint NOT NULL DEFAULT 0;
CREATE INDEX batches_unnumbered ON batches (id) WHERE ends IS NULL;
ALTER TABLE batch_errors ADD COLUMN message text;
CREATE INDEX tasks_unsuccessful ON tasks (batch_id, state, line)
  WHERE state IN ('failed', 'cancelled', 'expired');

CREATE TABLE batch_ends (
  batch_id text COLLATE "C" NOT NULL,
  upto integer NOT NULL,
  project_id text COLLATE "C" NOT NULL,
  lines integer[] NOT NULL,
  PRIMARY KEY (batch_id, upto)
);

CREATE UNLOGGED TABLE batch_pace (
  batch_id text COLLATE "C" NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  project_id text COLLATE "C" NOT NULL,
  small_steps bigint NOT NULL,
  large_steps bigint NOT NULL,
  leased integer NOT NULL,
  PRIMARY KEY (batch_id, at)
);
"""

# A caller waits for the end of a batch that was looked up as its project's own; one query asks for all that wait.
RULES = """
CREATE POLICY awaited ON batches FOR SELECT
  USING (id = ANY (string_to_array(current_setting('cope.awaited', true), ',')));
CREATE POLICY own_project ON batch_ends USING (project_id = current_setting('cope.project', true));
CREATE POLICY own_project ON batch_pace USING (project_id = current_setting('cope.project', true));
ALTER TABLE batch_ends ENABLE ROW LEVEL SECURITY;
ALTER TABLE batch_ends FORCE ROW LEVEL SECURITY;
ALTER TABLE batch_pace ENABLE ROW LEVEL SECURITY;
ALTER TABLE batch_pace FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON batch_ends TO cope_api;
GRANT SELECT ON batch_pace TO cope_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON batch_ends, batch_pace TO cope_worker;
"""

BACK = """
DROP POLICY awaited ON batches;
DROP TABLE batch_pace;
DROP TABLE batch_ends;
DROP INDEX tasks_unsuccessful;
DROP INDEX batches_unnumbered;
ALTER TABLE batch_errors DROP COLUMN message;
ALTER TABLE batches DROP COLUMN ends, DROP COLUMN at_large, DROP COLUMN first_large, DROP COLUMN small_steps,
  DROP COLUMN large_steps;
"""


def upgrade() -> None:
    """Nothing that exists changes."""
    op.execute(TABLES)
    op.execute(RULES)


def downgrade() -> None:
    """Result files are then written in the order of the tasks' finishing times again."""
    op.execute(BACK)
