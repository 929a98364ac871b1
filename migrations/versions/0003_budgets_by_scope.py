"""Budgets per project, API key and batch; a ledger of narrow rows, partitioned by month.

A budget row is one *scope*: the project or one of its keys in one month, or one batch over its whole life (then the
month is empty). Every attempt counts in all scopes it belongs to, capped or not, so that a cap that is set later finds
exact sums.

A ledger row is named by its attempt and kind: nothing can be booked twice. Partitions are made ahead by the sweep; what
comes before its partition falls into `ledger_rest`.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The owner is bound by row-level security like everybody else; to move rows of all projects it steps out of it.
_MOVED = ("attempts", "tasks", "ledger", "budgets")

SCOPES = """
ALTER TABLE api_keys ADD COLUMN cap bigint, ADD CONSTRAINT api_keys_cap_check CHECK (cap >= 0);
ALTER TABLE batches ADD COLUMN cap bigint, ADD CONSTRAINT batches_cap_check CHECK (cap >= 0);
ALTER TABLE attempts ADD COLUMN key_id text COLLATE "C";
UPDATE attempts a SET key_id = t.key_id FROM tasks t WHERE t.id = a.task_id AND t.key_id IS NOT NULL;

ALTER TABLE budgets ADD COLUMN scope text COLLATE "C" NOT NULL DEFAULT 'project';
ALTER TABLE budgets ALTER COLUMN scope DROP DEFAULT;
ALTER TABLE budgets DROP CONSTRAINT budgets_pkey, ADD PRIMARY KEY (project_id, scope, month);
INSERT INTO budgets (project_id, scope, month, spent, reserved, unconfirmed, overrun)
SELECT a.project_id, s.scope, s.month,
  coalesce(sum(a.cost) FILTER (WHERE a.state = 'settled'), 0),
  coalesce(sum(a.reserved) FILTER (WHERE a.state IN ('reserved', 'sent')), 0),
  coalesce(sum(a.reserved) FILTER (WHERE a.state = 'unconfirmed'), 0),
  coalesce(sum(a.overrun), 0)
FROM attempts a CROSS JOIN LATERAL (VALUES (a.key_id, a.month), (a.batch_id, '')) AS s (scope, month)
WHERE s.scope IS NOT NULL GROUP BY a.project_id, s.scope, s.month;

DROP INDEX tasks_held;
CREATE INDEX tasks_held ON tasks (project_id, hold, batch_id, priority, turn, id) WHERE state = 'held';
"""

LEDGER = """
ALTER TABLE ledger RENAME TO ledger_before;
ALTER TABLE ledger_before DROP CONSTRAINT ledger_kind_check, DROP CONSTRAINT ledger_money_check,
  DROP CONSTRAINT ledger_pkey;
CREATE TABLE ledger (
  at timestamptz NOT NULL DEFAULT now(),
  project_id text COLLATE "C" NOT NULL,
  month text NOT NULL,
  key_id text COLLATE "C",
  batch_id text COLLATE "C",
  attempt_id text COLLATE "C" NOT NULL,
  kind text NOT NULL,
  amount bigint NOT NULL,
  freed bigint NOT NULL,
  price_version text NOT NULL,
  PRIMARY KEY (month, attempt_id, kind),
  CONSTRAINT ledger_kind_check
    CHECK (kind IN ('reserved', 'settled', 'released', 'unconfirmed', 'late', 'overrun', 'external')),
  CONSTRAINT ledger_money_check CHECK (amount >= 0 AND freed >= 0)
) PARTITION BY LIST (month);
CREATE TABLE ledger_rest PARTITION OF ledger DEFAULT;
"""

# CREATE … LIKE and ATTACH: making a partition in place would shut every writer out for as long as it takes.
PARTITIONS = """
CREATE FUNCTION make_ledger_partition(wanted text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
  name text := 'ledger_' || replace(wanted, '-', '_');
BEGIN
  IF wanted !~ '^[0-9]{4}-[0-9]{2}$' THEN
    RAISE EXCEPTION 'a month is written 2026-11, not %', wanted;
  END IF;
  IF to_regclass('public.' || name) IS NOT NULL THEN
    RETURN false;
  END IF;
  EXECUTE format('CREATE TABLE public.%I (LIKE public.ledger INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
  EXECUTE format('ALTER TABLE public.ledger ATTACH PARTITION public.%I FOR VALUES IN (%L)', name, wanted);
  RETURN true;
EXCEPTION
  WHEN duplicate_table OR unique_violation THEN RETURN false;  -- another sweep was first
  WHEN check_violation THEN RETURN false;  -- rows of this month came before its partition and stay in ledger_rest
END
$$;
REVOKE ALL ON FUNCTION make_ledger_partition(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_ledger_partition(text) TO cope_worker;
SELECT make_ledger_partition(month) FROM (
  SELECT DISTINCT month FROM ledger_before WHERE month ~ '^[0-9]{4}-[0-9]{2}$'
  UNION SELECT to_char(now() + n * interval '1 month', 'YYYY-MM') FROM generate_series(0, 1) n) months;

INSERT INTO ledger (at, project_id, month, key_id, batch_id, attempt_id, kind, amount, freed, price_version)
SELECT l.at, l.project_id, l.month, a.key_id, l.batch_id, l.attempt_id, l.kind, l.amount, l.freed, l.price_version
FROM ledger_before l LEFT JOIN attempts a ON a.id = l.attempt_id;
DROP TABLE ledger_before;

CREATE INDEX ledger_project ON ledger (project_id, at);
CREATE POLICY own_project ON ledger USING (project_id = current_setting('cope.project', true));
ALTER TABLE ledger ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON ledger TO cope_api, cope_worker;
"""

BACK = """
DROP FUNCTION make_ledger_partition(text);
CREATE TABLE ledger_before (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now(),
  project_id text COLLATE "C" NOT NULL,
  month text NOT NULL,
  batch_id text COLLATE "C",
  task_id text COLLATE "C" NOT NULL,
  attempt_id text COLLATE "C" NOT NULL,
  kind text NOT NULL,
  amount bigint NOT NULL,
  freed bigint NOT NULL,
  price_version text NOT NULL,
  CONSTRAINT ledger_kind_check
    CHECK (kind IN ('reserved', 'settled', 'released', 'unconfirmed', 'late', 'overrun')),
  CONSTRAINT ledger_money_check CHECK (amount >= 0 AND freed >= 0)
);
INSERT INTO ledger_before (at, project_id, month, batch_id, task_id, attempt_id, kind, amount, freed, price_version)
SELECT l.at, l.project_id, l.month, l.batch_id, a.task_id, l.attempt_id, l.kind, l.amount, l.freed, l.price_version
FROM ledger l JOIN attempts a ON a.id = l.attempt_id WHERE l.kind <> 'external' ORDER BY l.at;
DROP TABLE ledger;
ALTER TABLE ledger_before RENAME TO ledger;
ALTER INDEX ledger_before_pkey RENAME TO ledger_pkey;
ALTER SEQUENCE ledger_before_id_seq RENAME TO ledger_id_seq;
CREATE POLICY own_project ON ledger USING (project_id = current_setting('cope.project', true));
ALTER TABLE ledger ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON ledger TO cope_api, cope_worker;

DELETE FROM budgets WHERE scope <> 'project';
ALTER TABLE budgets DROP CONSTRAINT budgets_pkey, DROP COLUMN scope, ADD PRIMARY KEY (project_id, month);
ALTER TABLE attempts DROP COLUMN key_id;
ALTER TABLE batches DROP COLUMN cap;
ALTER TABLE api_keys DROP COLUMN cap;
DROP INDEX tasks_held;
CREATE INDEX tasks_held ON tasks (project_id, hold, priority, turn, id) WHERE state = 'held';
"""


def _over_all_projects(*statements: str) -> None:
    """Run what moves rows of every project."""
    for table in _MOVED:
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    for statement in statements:
        op.execute(statement)
    for table in _MOVED:
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


def upgrade() -> None:
    """Scopes first: the ledger takes its keys from the attempts."""
    _over_all_projects(SCOPES, LEDGER, PARTITIONS)


def downgrade() -> None:
    """One budget row a month again, and one ledger table. What was reported from outside is no attempt and goes."""
    _over_all_projects(BACK)
