"""Add versions, groups, databases and drift of policies."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def _policy_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("zone", sa.String(length=60), nullable=False, server_default="UTC"),
        sa.Column("window_minutes", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("databases", sa.JSON(), nullable=False, server_default="[]"),
        sa.Column("passwords", sa.LargeBinary(), nullable=True),
        sa.Column("servers", sa.JSON(), nullable=False, server_default="[]"),
        sa.Column("version", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("current_version_id", sa.Uuid(), nullable=True),
    )


def upgrade() -> None:
    """Apply it; a host whose policy is not the default one keeps it as its own choice."""
    for column in _policy_columns():
        op.add_column("policies", column)
    op.create_table(
        "policy_versions",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("policy_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=150), nullable=False),
        sa.Column("note", sa.String(length=500), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["policy_id"],
            ["policies.id"],
            name=op.f("fk_policy_versions_policy_id_policies"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_policy_versions_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_versions")),
        sa.UniqueConstraint("policy_id", "number", name=op.f("uq_policy_versions_policy_id_number")),
    )
    op.create_table(
        "group_policies",
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("policy_id", sa.Uuid(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_group_policies_group_id_groups"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["policy_id"], ["policies.id"], name=op.f("fk_group_policies_policy_id_policies")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_group_policies_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("group_id", name=op.f("pk_group_policies")),
    )
    op.create_index("ix_group_policies_policy_id", "group_policies", ["policy_id"], unique=False)
    op.create_index("ix_group_policies_tenant_id", "group_policies", ["tenant_id"], unique=False)
    # Inline: SQLite would have to rebuild the table for a constraint of its own, and lose what refers to it
    op.add_column(
        "hosts",
        sa.Column(
            "own_policy_id",
            sa.Uuid(),
            sa.ForeignKey("policies.id", name=op.f("fk_hosts_own_policy_id_policies")),
            nullable=True,
        ),
        inline_references=True,
    )
    op.add_column(
        "hosts", sa.Column("policy_source", sa.String(length=80), nullable=False, server_default="default")
    )
    op.add_column(
        "hosts",
        sa.Column(
            "applied_version_id",
            sa.Uuid(),
            sa.ForeignKey("policy_versions.id", name=op.f("fk_hosts_applied_version_id_policy_versions")),
            nullable=True,
        ),
        inline_references=True,
    )
    op.execute(
        "UPDATE hosts SET own_policy_id = policy_id, policy_source = 'host' WHERE policy_id IN "
        "(SELECT id FROM policies WHERE NOT is_default)"
    )
    op.execute(
        "UPDATE hosts SET policy_id = (SELECT policies.id FROM policies WHERE policies.is_default AND "
        "policies.tenant_id = hosts.tenant_id) WHERE policy_id IS NULL"
    )
    names = ["tenant_id", "state", "is_agent", "policy_id", "applied_version_id"]
    op.create_index("ix_hosts_drift", "hosts", names, unique=False)


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_hosts_drift", table_name="hosts")
    op.drop_column("hosts", "applied_version_id")
    op.drop_column("hosts", "policy_source")
    op.drop_column("hosts", "own_policy_id")
    op.drop_table("group_policies")
    op.drop_table("policy_versions")
    for column in reversed(_policy_columns()):
        op.drop_column("policies", column.name)
