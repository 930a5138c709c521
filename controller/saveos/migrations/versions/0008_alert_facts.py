"""Add what alert rules judge: disks, clocks, and repositories as their server sees them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TIMES = ("claimed_at", "claimed_told_at", "last_commit_at", "checked_at", "missing_since")


def upgrade() -> None:
    """Apply it."""
    op.add_column("hosts", sa.Column("storage_free_share", sa.Double(), nullable=True))
    op.add_column("repositories", sa.Column("quota_bytes", sa.BigInteger(), nullable=True))
    for name in TIMES:
        op.add_column("repositories", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.add_column("repositories", sa.Column("fault", sa.String(length=200), nullable=False, server_default=""))
    op.add_column("alerts", sa.Column("subject_id", sa.Uuid(), nullable=True))
    op.execute("UPDATE alerts SET subject_id = host_id")
    op.create_index("ix_alerts_subject_id_rule", "alerts", ["subject_id", "rule"], unique=False)


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_alerts_subject_id_rule", table_name="alerts")
    with op.batch_alter_table("alerts") as alerts:
        alerts.drop_column("subject_id")
    with op.batch_alter_table("repositories") as repositories:
        for name in ("fault", "quota_bytes", *TIMES):
            repositories.drop_column(name)
    with op.batch_alter_table("hosts") as hosts:
        hosts.drop_column("storage_free_share")
