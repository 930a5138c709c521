"""Add rebuilds: full drills on a sandbox host."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.create_table(
        "rebuilds",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("sandbox_id", sa.Uuid(), nullable=False),
        sa.Column("archive_id", sa.Uuid(), nullable=False),
        sa.Column("destination", sa.String(length=4096), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("step", sa.String(length=20), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("restore_id", sa.Uuid(), nullable=True),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("checks", sa.JSON(), nullable=False),
        sa.Column("error", sa.String(length=2000), nullable=False),
        sa.Column("trigger", sa.String(length=20), nullable=False),
        sa.Column("requested_by", sa.String(length=150), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["archive_id"], ["archives.id"], name=op.f("fk_rebuilds_archive_id_archives")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_rebuilds_host_id_hosts")),
        sa.ForeignKeyConstraint(["sandbox_id"], ["hosts.id"], name=op.f("fk_rebuilds_sandbox_id_hosts")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_rebuilds_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rebuilds")),
    )
    op.create_index("ix_rebuilds_host_id_id", "rebuilds", ["host_id", "id"])
    op.create_index("ix_rebuilds_state", "rebuilds", ["state"])
    op.create_index("ix_rebuilds_tenant_id_id", "rebuilds", ["tenant_id", "id"])


def downgrade() -> None:
    """Take it back."""
    op.drop_table("rebuilds")
