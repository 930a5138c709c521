"""Add the rotation of the controller's SSH key."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    with op.batch_alter_table("tenants") as table:
        table.add_column(sa.Column("ssh_key_made_at", sa.DateTime(timezone=True), nullable=True))
        table.add_column(
            sa.Column("former_ssh_public_key", sa.String(length=1000), server_default="", nullable=False)
        )
        table.add_column(sa.Column("former_ssh_private_key", sa.LargeBinary(), nullable=True))
    with op.batch_alter_table("hosts") as table:
        table.add_column(sa.Column("controller_key", sa.String(length=1000), server_default="", nullable=False))


def downgrade() -> None:
    """Take it back; a rotation must be over, or hosts that know only the former key are lost."""
    with op.batch_alter_table("hosts") as table:
        table.drop_column("controller_key")
    with op.batch_alter_table("tenants") as table:
        for name in ("former_ssh_private_key", "former_ssh_public_key", "ssh_key_made_at"):
            table.drop_column(name)
