"""Add when users last logged in; what is known of it are the sessions that are still there."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.add_column("users", sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=True))
    users = sa.table("users", sa.column("id"), sa.column("last_login_at"))
    logins = sa.table("logins", sa.column("user_id"), sa.column("created_at"))
    last = sa.select(sa.func.max(logins.c.created_at)).where(logins.c.user_id == users.c.id)
    op.execute(users.update().values(last_login_at=last.scalar_subquery()))


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("users") as table:
        table.drop_column("last_login_at")
