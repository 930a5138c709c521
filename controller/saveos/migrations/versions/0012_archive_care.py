"""Add protection, notes and tags of archives."""

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""


def downgrade() -> None:
    """Take it back."""
