"""Add how often policies have their hosts drilled, and when a host's drill is due and its proof ends."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    with op.batch_alter_table("policies") as table:
        table.add_column(sa.Column("drill_every_days", sa.Integer(), server_default="0", nullable=False))
        table.add_column(sa.Column("drill_sample", sa.Integer(), server_default="20", nullable=False))
        table.add_column(sa.Column("drill_sandbox", sa.String(length=253), server_default="", nullable=False))
    with op.batch_alter_table("hosts") as table:
        table.add_column(sa.Column("drill_due_at", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("proof_ends_at", sa.DateTime(timezone=True), nullable=True))
        table.create_index("ix_hosts_drill_due_at", ["drill_due_at"])


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("hosts") as table:
        table.drop_index("ix_hosts_drill_due_at")
        table.drop_column("proof_ends_at")
        table.drop_column("drill_due_at")
    with op.batch_alter_table("policies") as table:
        for name in ("drill_sandbox", "drill_sample", "drill_every_days"):
            table.drop_column(name)
