"""Add marks of archives: protected, and why one was taken away."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    with op.batch_alter_table("archives") as table:
        table.add_column(sa.Column("protected", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("removed_why", sa.String(20), nullable=False, server_default=""))
        table.add_column(sa.Column("removed_by", sa.String(150), nullable=False, server_default=""))


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("archives") as table:
        for name in ("removed_by", "removed_why", "removed_at", "protected"):
            table.drop_column(name)
