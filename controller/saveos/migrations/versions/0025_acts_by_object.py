"""Add an index of the audit trail by object, so that a host's page need not read all of it."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.create_index("ix_audit_tenant_id_object_id", "audit", ["tenant_id", "object", "id"], unique=False)


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_audit_tenant_id_object_id", table_name="audit")
