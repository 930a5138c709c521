"""Add what guards report, checks of repositories, approvals, and how storage grows."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.create_table(
        "storage_samples",
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("free", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_storage_samples_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("subject_id", "day", name=op.f("pk_storage_samples")),
    )
    op.create_index("ix_storage_samples_tenant_id_day", "storage_samples", ["tenant_id", "day"], unique=False)
    op.create_table(
        "guards",
        sa.Column("server_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("at", sa.String(length=40), nullable=False),
        sa.Column("version", sa.String(length=60), nullable=False),
        sa.Column("hold_days", sa.Integer(), nullable=False),
        sa.Column("interval_seconds", sa.Integer(), nullable=False),
        sa.Column("clock_synced", sa.Boolean(), nullable=True),
        sa.Column("free", sa.BigInteger(), nullable=True),
        sa.Column("total", sa.BigInteger(), nullable=True),
        sa.Column("refused", sa.String(length=300), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"], ["hosts.id"], name=op.f("fk_guards_server_id_hosts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_guards_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("server_id", name=op.f("pk_guards")),
    )
    op.create_index(op.f("ix_guards_tenant_id"), "guards", ["tenant_id"], unique=False)
    op.create_table(
        "guard_approvals",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("repository_id", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("note", sa.String(length=500), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=150), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_by", sa.String(length=150), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_guard_approvals_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_guard_approvals_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_guard_approvals")),
    )
    op.create_index(
        "ix_guard_approvals_repository_id_id", "guard_approvals", ["repository_id", "id"], unique=False
    )
    op.create_table(
        "guard_states",
        sa.Column("repository_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("held_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("detail", sa.String(length=500), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("archives_expected", sa.Integer(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("freeable_bytes", sa.BigInteger(), nullable=True),
        sa.Column("freeable_share", sa.Double(), nullable=True),
        sa.Column("held_bytes", sa.BigInteger(), nullable=True),
        sa.Column("copies", sa.JSON(), nullable=False),
        sa.Column("last_compact_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("guard_seconds", sa.Double(), nullable=True),
        sa.Column("keyless_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("keyless_state", sa.String(length=10), nullable=False),
        sa.Column("archives_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archives_state", sa.String(length=10), nullable=False),
        sa.Column("data_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("data_state", sa.String(length=10), nullable=False),
        sa.Column("check_detail", sa.String(length=500), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_guard_states_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_guard_states_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("repository_id", name=op.f("pk_guard_states")),
    )
    op.create_index(
        "ix_guard_states_tenant_id_state", "guard_states", ["tenant_id", "state", "repository_id"], unique=False
    )
    op.create_table(
        "repository_checks",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("repository_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("detail", sa.String(length=2000), nullable=False),
        sa.Column("archives", sa.JSON(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_repository_checks_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_repository_checks_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repository_checks")),
    )
    op.create_index(
        "ix_repository_checks_repository_id_id", "repository_checks", ["repository_id", "id"], unique=False
    )
    op.create_table(
        "former_archive_ids",
        sa.Column("repository_id", sa.Uuid(), nullable=False),
        sa.Column("borg_id", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=400), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_former_archive_ids_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_former_archive_ids_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("repository_id", "borg_id", name=op.f("pk_former_archive_ids")),
    )


def downgrade() -> None:
    """Take it back."""
    for name in (
        "former_archive_ids",
        "repository_checks",
        "guard_states",
        "guard_approvals",
        "guards",
        "storage_samples",
    ):
        op.drop_table(name)
