"""Add notes, tags and disappearance of archives, and policies' switch of the catalogue."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    with op.batch_alter_table("archives") as table:
        table.add_column(sa.Column("note", sa.String(500), nullable=False, server_default=""))
        table.add_column(sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))
        table.add_column(sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("policies") as table:
        table.add_column(sa.Column("catalogue", sa.String(10), nullable=False, server_default="full"))


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("policies") as table:
        table.drop_column("catalogue")
    with op.batch_alter_table("archives") as table:
        for name in ("gone_at", "tags", "note"):
            table.drop_column(name)
