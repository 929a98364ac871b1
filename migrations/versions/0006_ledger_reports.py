"""Reports over the ledger, and corrections of it.

The operator may read attempts, ledger and budgets of all projects. A correction after a provider's own records is a row
of its own: kind `refunded`, or a further `overrun`; `nth` counts those of one attempt and kind.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_READ = ("attempts", "ledger", "budgets")

# In a SELECT of its own: asked once a query instead of once a row, and taken by the planner for a coin toss.
# Taken for an equality, it would be thought to let 1 row in 200 pass, and reports would loop where they hash.
_OPERATOR = "((SELECT current_setting('cope.operator', true) = 'on'))"

_KINDS = "'reserved', 'settled', 'released', 'unconfirmed', 'late', 'overrun', 'external'"


def upgrade() -> None:
    """No row changes."""
    op.execute("""
        ALTER TABLE ledger ADD COLUMN nth smallint NOT NULL DEFAULT 0;
        ALTER TABLE ledger DROP CONSTRAINT ledger_pkey, ADD PRIMARY KEY (month, attempt_id, kind, nth)
    """)
    op.execute(f"""
        ALTER TABLE ledger DROP CONSTRAINT ledger_kind_check,
          ADD CONSTRAINT ledger_kind_check CHECK (kind IN ({_KINDS}, 'refunded'))
    """)
    op.execute("CREATE INDEX attempts_unconfirmed ON attempts (sent_at, id) WHERE state = 'unconfirmed'")
    op.execute(f"ALTER POLICY listed_by_operator ON projects USING {_OPERATOR}")
    for table in _READ:
        op.execute(f"CREATE POLICY read_by_operator ON {table} FOR SELECT USING {_OPERATOR}")


def downgrade() -> None:
    """Corrections can't be said in the older ledger: they go, and the ledger check will name their budgets."""
    for table in _READ:
        op.execute(f"DROP POLICY read_by_operator ON {table}")
    op.execute("ALTER POLICY listed_by_operator ON projects USING (current_setting('cope.operator', true) = 'on')")
    op.execute("DROP INDEX attempts_unconfirmed")
    op.execute("ALTER TABLE ledger NO FORCE ROW LEVEL SECURITY")
    op.execute("DELETE FROM ledger WHERE kind = 'refunded' OR nth > 0")
    op.execute("ALTER TABLE ledger FORCE ROW LEVEL SECURITY")
    op.execute(f"""
        ALTER TABLE ledger DROP CONSTRAINT ledger_kind_check,
          ADD CONSTRAINT ledger_kind_check CHECK (kind IN ({_KINDS}))
    """)
    op.execute("""
        ALTER TABLE ledger DROP CONSTRAINT ledger_pkey, ADD PRIMARY KEY (month, attempt_id, kind);
        ALTER TABLE ledger DROP COLUMN nth
    """)
