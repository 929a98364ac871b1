"""Prices have tiers, an end and a provenance, and operators add them; every attempt names its price's id and tier."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Batch tiers were ids of the form `…:batch`: they become rows of that id's batch tier. Attempts of before keep an
    empty price id, and are found by their model."""
    op.execute("""
        ALTER TABLE prices
          ADD COLUMN tier text NOT NULL DEFAULT 'standard',
          ADD COLUMN effective_until timestamptz,
          ADD COLUMN origin text NOT NULL DEFAULT 'shipped',
          ADD COLUMN source text NOT NULL DEFAULT '',
          ADD COLUMN added_by text NOT NULL DEFAULT '',
          ADD COLUMN added_at timestamptz NOT NULL DEFAULT now(),
          ADD COLUMN reason text NOT NULL DEFAULT '',
          DROP CONSTRAINT prices_pkey
    """)
    op.execute("""
        UPDATE prices SET price_id = left(price_id, -6), tier = 'batch' WHERE price_id LIKE '_%\\:batch'
    """)
    op.execute("""
        ALTER TABLE prices
          ADD CONSTRAINT prices_pkey PRIMARY KEY (price_id, tier, version),
          ADD CONSTRAINT prices_tier_check CHECK (tier IN ('standard', 'batch')),
          ADD CONSTRAINT prices_origin_check CHECK (origin IN ('shipped', 'file', 'operator')),
          ADD CONSTRAINT prices_amounts_check
            CHECK (input_per_mtok >= 0 AND cached_input_per_mtok >= 0 AND output_per_mtok >= 0),
          ADD CONSTRAINT prices_dates_check CHECK (effective_until > effective_at)
    """)
    op.execute("""
        ALTER TABLE attempts
          ADD COLUMN price_id text NOT NULL DEFAULT '',
          ADD COLUMN price_tier text NOT NULL DEFAULT 'standard'
    """)
    op.execute("GRANT INSERT ON prices TO cope_api")
    op.execute("""
        CREATE POLICY repriced_by_operator ON attempts FOR SELECT
          USING (current_setting('cope.operator', true) = 'on')
    """)


def downgrade() -> None:
    """Batch tiers are ids again; what else the rows told is lost."""
    op.execute("DROP POLICY repriced_by_operator ON attempts")
    op.execute("REVOKE INSERT ON prices FROM cope_api")
    op.execute("ALTER TABLE attempts DROP COLUMN price_id, DROP COLUMN price_tier")
    op.execute("ALTER TABLE prices DROP CONSTRAINT prices_pkey, DROP CONSTRAINT prices_tier_check")
    op.execute("UPDATE prices SET price_id = price_id || '\\:batch' WHERE tier = 'batch'")
    op.execute("""
        ALTER TABLE prices
          ADD CONSTRAINT prices_pkey PRIMARY KEY (price_id, version),
          DROP CONSTRAINT prices_origin_check, DROP CONSTRAINT prices_amounts_check,
          DROP CONSTRAINT prices_dates_check,
          DROP COLUMN tier, DROP COLUMN effective_until, DROP COLUMN origin, DROP COLUMN source,
          DROP COLUMN added_by, DROP COLUMN added_at, DROP COLUMN reason
    """)
