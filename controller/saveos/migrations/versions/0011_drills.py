"""Add the proof of restore."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    with op.batch_alter_table("hosts") as table:
        table.add_column(sa.Column("last_proven_at", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("last_drill_at", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("last_drill_state", sa.String(20), nullable=False, server_default=""))
        table.add_column(sa.Column("drill_error", sa.String(500), nullable=False, server_default=""))


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("hosts") as table:
        for name in ("drill_error", "last_drill_state", "last_drill_at", "last_proven_at"):
            table.drop_column(name)
