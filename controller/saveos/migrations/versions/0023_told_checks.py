"""Add when a guard says that its last check was, by its own clock, so that a check is known again."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    with op.batch_alter_table("guard_states") as table:
        table.add_column(sa.Column("keyless_told_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("guard_states") as table:
        table.drop_column("keyless_told_at")
