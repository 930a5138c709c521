"""The one door to the time of day. Times are aware and UTC everywhere."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)
