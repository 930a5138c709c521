"""Add what restores may be asked."""

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""


def downgrade() -> None:
    """Take it back."""
