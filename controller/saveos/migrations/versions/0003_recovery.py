"""Add recovery keys and escrow."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.create_table(
        "recovery_keys",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("public_key", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("mode", sa.String(length=10), nullable=False),
        sa.Column("private_key", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_recovery_keys_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recovery_keys")),
    )
    op.create_index(
        "ix_recovery_keys_tenant_id_fingerprint", "recovery_keys", ["tenant_id", "fingerprint"], unique=False
    )
    op.create_index(
        "uq_recovery_keys_current",
        "recovery_keys",
        ["tenant_id"],
        unique=True,
        sqlite_where=sa.text("retired_at IS NULL"),
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.create_table(
        "escrows",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("repository_id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("recovery_key_id", sa.Uuid(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("url", sa.String(length=5000), nullable=False),
        sa.Column("host_keys", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_escrows_host_id_hosts")),
        sa.ForeignKeyConstraint(
            ["recovery_key_id"], ["recovery_keys.id"], name=op.f("fk_escrows_recovery_key_id_recovery_keys")
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_escrows_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_escrows_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_escrows")),
    )
    op.create_index(op.f("ix_escrows_host_id"), "escrows", ["host_id"], unique=False)
    op.create_index("ix_escrows_repository_id_id", "escrows", ["repository_id", "id"], unique=False)


def downgrade() -> None:
    """Take it back."""
    op.drop_table("escrows")
    op.drop_table("recovery_keys")
