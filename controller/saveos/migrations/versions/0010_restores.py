"""Add what restores may be asked."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    with op.batch_alter_table("restores") as table:
        for name in ("refs", "excludes", "exclude_refs"):
            table.add_column(sa.Column(name, sa.JSON(), nullable=False, server_default="[]"))
        for name in ("in_place", "preview"):
            table.add_column(sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("conflict", sa.String(10), nullable=False, server_default="refuse"))
        table.add_column(sa.Column("outcome", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("restores") as table:
        for name in ("outcome", "conflict", "preview", "in_place", "exclude_refs", "excludes", "refs"):
            table.drop_column(name)
