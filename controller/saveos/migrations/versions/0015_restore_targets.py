"""Add restores to other hosts, downloads, and the tenant's switch for both."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    with op.batch_alter_table("tenants") as table:
        table.add_column(
            sa.Column("content_through_controller", sa.Boolean(), nullable=False, server_default=sa.true())
        )
    with op.batch_alter_table("restores") as table:
        table.add_column(sa.Column("kind", sa.String(10), nullable=False, server_default="host"))
        table.add_column(sa.Column("target_host_id", sa.Uuid(), nullable=True))
        table.create_foreign_key("fk_restores_target_host_id_hosts", "hosts", ["target_host_id"], ["id"])


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("restores") as table:
        table.drop_constraint("fk_restores_target_host_id_hosts", type_="foreignkey")
        table.drop_column("target_host_id")
        table.drop_column("kind")
    with op.batch_alter_table("tenants") as table:
        table.drop_column("content_through_controller")
