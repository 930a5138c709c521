"""Add results and findings of maintenance operations."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def _table(name: str, unique: tuple[str, ...], *columns: sa.schema.SchemaItem) -> None:
    """Make a table of what was found on hosts."""
    op.create_table(
        name,
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("operation", sa.String(length=40), nullable=False),
        *columns,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f(f"fk_{name}_host_id_hosts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f(f"fk_{name}_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
        sa.UniqueConstraint(*unique, name=op.f(f"uq_{name}_{'_'.join(unique)}")),
    )


def _time(name: str, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _counts() -> list[sa.Column[object]]:
    return [sa.Column(name, sa.Integer(), nullable=False) for name in ("critical", "warning", "info")]


def upgrade() -> None:
    """Apply it."""
    _table(
        "findings",
        ("host_id", "operation", "key"),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=80), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=500), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("fix", sa.Text(), nullable=False),
        sa.Column("fixable", sa.Boolean(), nullable=False),
        sa.Column("result_id", sa.Uuid(), nullable=False),
        _time("first_seen"),
        _time("last_seen"),
        _time("resolved_at", nullable=True),
    )
    keys = ["tenant_id", "operation", "rank", "id"]
    op.create_index("ix_findings_tenant_id_operation_rank_id", "findings", keys)
    op.create_index("ix_findings_tenant_id_rank_id", "findings", ["tenant_id", "rank", "id"])
    _table(
        "maintenance_latest",
        ("host_id", "operation"),
        sa.Column("result_id", sa.Uuid(), nullable=False),
        _time("at"),
        sa.Column("mode", sa.String(length=10), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        *_counts(),
        _time("critical_since", nullable=True),
        sa.Column("worst", sa.String(length=500), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
    )
    keys = ["tenant_id", "operation", "state"]
    op.create_index("ix_maintenance_latest_tenant_id_operation", "maintenance_latest", keys)
    _table(
        "maintenance_results",
        ("job_id", "host_id"),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("mode", sa.String(length=10), nullable=False),
        _time("at"),
        sa.Column("state", sa.String(length=10), nullable=False),
        *_counts(),
        sa.Column("fixed", sa.Integer(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_maintenance_results_job_id_jobs"), ondelete="SET NULL"
        ),
    )
    for keys in (["tenant_id", "id"], ["tenant_id", "operation", "id"], ["host_id", "operation", "id"]):
        op.create_index(f"ix_maintenance_results_{'_'.join(keys)}", "maintenance_results", keys)


def downgrade() -> None:
    """Take it back."""
    for name in ("maintenance_results", "maintenance_latest", "findings"):
        op.drop_table(name)
