"""Add the proof of restore."""

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""


def downgrade() -> None:
    """Take it back."""
