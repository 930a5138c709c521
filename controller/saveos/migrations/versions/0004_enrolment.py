"""Add enrolment tokens and registrations."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.create_table(
        "enrolment_tokens",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("max_uses", sa.Integer(), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("policy", sa.String(length=100), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("pre_approved", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(length=150), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_enrolment_tokens_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolment_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_enrolment_tokens_hash")),
    )
    op.create_index("ix_enrolment_tokens_tenant_id_id", "enrolment_tokens", ["tenant_id", "id"], unique=False)
    op.create_table(
        "registrations",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("token_id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("address", sa.String(length=253), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("user", sa.String(length=64), nullable=False),
        sa.Column("ssh_host_keys", sa.JSON(), nullable=False),
        sa.Column("agent_public_key", sa.String(length=1000), nullable=False),
        sa.Column("agent_token_sha256", sa.String(length=64), nullable=False),
        sa.Column("os", sa.String(length=60), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("peer", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=15), nullable=False),
        sa.Column("reason", sa.String(length=2000), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.String(length=150), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f("fk_registrations_host_id_hosts"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_registrations_job_id_jobs"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_registrations_tenant_id_tenants")),
        sa.ForeignKeyConstraint(
            ["token_id"], ["enrolment_tokens.id"], name=op.f("fk_registrations_token_id_enrolment_tokens")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registrations")),
        sa.UniqueConstraint("agent_token_sha256", name=op.f("uq_registrations_agent_token_sha256")),
    )
    op.create_index("ix_registrations_state", "registrations", ["state"], unique=False)
    op.create_index("ix_registrations_tenant_id_id", "registrations", ["tenant_id", "id"], unique=False)


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_registrations_tenant_id_id", table_name="registrations")
    op.drop_index("ix_registrations_state", table_name="registrations")
    op.drop_table("registrations")
    op.drop_index("ix_enrolment_tokens_tenant_id_id", table_name="enrolment_tokens")
    op.drop_table("enrolment_tokens")
