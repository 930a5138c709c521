"""Add drift of hosts."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.create_table(
        "host_drifts",
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changes", sa.Integer(), nullable=False),
        sa.Column("diff", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f("fk_host_drifts_host_id_hosts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_host_drifts_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("host_id", name=op.f("pk_host_drifts")),
    )
    with op.batch_alter_table("hosts") as table:
        table.add_column(sa.Column("drifted_since", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("drift_checked_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("hosts") as table:
        for name in ("drift_checked_at", "drifted_since"):
            table.drop_column(name)
    op.drop_table("host_drifts")
