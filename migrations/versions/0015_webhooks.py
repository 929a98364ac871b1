"""Webhooks: secrets with an overlap, endpoints that fail for days, a log of attempts, a bound for each address.

`target` is whom a delivery goes to; claims take a few of each, so that one that stalls keeps nobody else waiting.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TABLES = """
ALTER TABLE webhook_endpoints ADD COLUMN previous_secret text, ADD COLUMN previous_until timestamptz,
  ADD COLUMN failing_since timestamptz, ADD COLUMN disabled_reason text;
ALTER TABLE deliveries ADD COLUMN sending_until timestamptz,
  ADD COLUMN target text COLLATE "C"
    GENERATED ALWAYS AS ((project_id || ' ' || coalesce(endpoint_id, url)) COLLATE "C") STORED;
CREATE INDEX deliveries_target ON deliveries (target, due_at, id) WHERE state = 'pending';
CREATE INDEX deliveries_project ON deliveries (project_id, id);

CREATE TABLE delivery_attempts (
  delivery_id text COLLATE "C" NOT NULL,
  project_id text COLLATE "C" NOT NULL,
  attempt integer NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  took_ms integer NOT NULL,
  status integer,
  error text,
  excerpt text,
  PRIMARY KEY (delivery_id, attempt, at)
);
ALTER TABLE delivery_attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE delivery_attempts FORCE ROW LEVEL SECURITY;
CREATE POLICY own_project ON delivery_attempts USING (project_id = (SELECT current_setting('cope.project', true)));
GRANT SELECT ON delivery_attempts TO cope_api;
GRANT SELECT, INSERT, DELETE ON delivery_attempts TO cope_worker;
"""

_BACK = """
DROP TABLE delivery_attempts;
DROP INDEX deliveries_project;
DROP INDEX deliveries_target;
ALTER TABLE deliveries DROP COLUMN target, DROP COLUMN sending_until;
ALTER TABLE webhook_endpoints DROP COLUMN disabled_reason, DROP COLUMN failing_since, DROP COLUMN previous_until,
  DROP COLUMN previous_secret;
"""


def upgrade() -> None:
    """Additive: a worker of the version before claims and finishes as it did."""
    op.execute(_TABLES)


def downgrade() -> None:
    """The log of attempts is lost."""
    op.execute(_BACK)
