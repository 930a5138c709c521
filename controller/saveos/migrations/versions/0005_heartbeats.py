"""Add heartbeats and running backups."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.add_column("hosts", sa.Column("heartbeat", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("hosts", sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("hosts", sa.Column("clock_skew", sa.Double(), nullable=True))
    op.add_column("hosts", sa.Column("disk_free_share", sa.Double(), nullable=True))
    op.create_table(
        "running_backups",
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("trigger", sa.String(length=20), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("repository_id", sa.Uuid(), nullable=True),
        sa.Column("phase", sa.String(length=20), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=True),
        sa.Column("original_size", sa.BigInteger(), nullable=True),
        sa.Column("compressed_size", sa.BigInteger(), nullable=True),
        sa.Column("deduplicated_size", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f("fk_running_backups_host_id_hosts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_running_backups_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("host_id", name=op.f("pk_running_backups")),
    )
    op.create_index("ix_running_backups_tenant_id", "running_backups", ["tenant_id"], unique=False)
    told = ["last_run_state", "last_backup_at", "due_at", "seen_at", "heartbeat_at"]
    op.create_index("ix_hosts_protection", "hosts", ["tenant_id", "state", "is_agent", *told], unique=False)


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_hosts_protection", table_name="hosts")
    op.drop_index("ix_running_backups_tenant_id", table_name="running_backups")
    op.drop_table("running_backups")
    for name in ("disk_free_share", "clock_skew", "heartbeat_at", "heartbeat"):
        op.drop_column("hosts", name)
