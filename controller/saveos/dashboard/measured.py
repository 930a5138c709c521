"""What hosts say a backup would hold. A host wrote it, so nothing about its shape is believed."""

from typing import Any

MOST_SOURCES = 100


def read(told: Any) -> dict[str, Any] | None:
    """Return sources with their files and bytes, and the sums; None when a host told no such thing."""
    if not isinstance(told, dict) or not isinstance(told.get("sources"), list):
        return None
    sources = [
        {
            "path": str(each.get("path", ""))[:4096],
            "files": _number(each, "files"),
            "bytes": _number(each, "bytes"),
        }
        for each in told["sources"][:MOST_SOURCES]
        if isinstance(each, dict)
    ]
    sums = {name: _number(told, name) for name in ("files", "bytes", "excluded", "unreadable")}
    return {"sources": sources, **sums}


def _number(told: dict[str, Any], name: str) -> int:
    value = told.get(name)
    return value if isinstance(value, int) and value >= 0 else 0
