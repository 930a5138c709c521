"""Add whether an archive's files are in the catalogue."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    with op.batch_alter_table("archives") as table:
        table.add_column(sa.Column("catalogue", sa.String(10), nullable=False, server_default="none"))
        table.add_column(sa.Column("catalogue_error", sa.String(500), nullable=False, server_default=""))
        table.create_index("ix_archives_catalogue_started_at", ["catalogue", "started_at"])


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("archives") as table:
        table.drop_index("ix_archives_catalogue_started_at")
        table.drop_column("catalogue_error")
        table.drop_column("catalogue")
