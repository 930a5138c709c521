"""What the command prints: JSON when asked for, else tables and fields for people.

Text that came from hosts (names, logs) is shown with control characters made visible, so that a
file name cannot move the cursor or change the terminal's title.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_state = {"json": False}


def use_json(on: bool) -> None:
    """Choose JSON for everything this process prints on standard output."""
    _state["json"] = on


def is_json() -> bool:
    """Whether `--json` was given."""
    return _state["json"]


def emit(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """Print a line for people; with `--json` it goes to standard error."""
    print(text, file=sys.stderr if is_json() else sys.stdout, flush=True)


def clean(text: Any) -> str:
    """Return text with control characters (but tab) replaced, safe for a terminal."""
    return "".join(c if c == "\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in str(text))


def lines(text: str) -> str:
    """Return a text of several lines, each safe for a terminal."""
    return "".join(f"{clean(line)}\n" for line in text.splitlines())


def page(body: Mapping[str, Any], columns: Mapping[str, Any], empty: str) -> None:
    """Print a list: as it is with `--json`, else as a table of the columns {title: key or function}."""
    if is_json():
        emit({"items": body["items"], "next": body.get("next")})
        return
    if not body["items"]:
        print(empty)
        return
    table(list(columns), [[_cell(item, pick) for pick in columns.values()] for item in body["items"]])
    if body.get("next"):
        print("… there are more: --limit N, or --all")


def _cell(item: Mapping[str, Any], pick: Any) -> str:
    value = pick(item) if callable(pick) else item.get(pick)
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        return clean(", ".join(map(str, value)) or "-")
    return clean(value)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns under upper-case titles."""
    lines = [[title.upper() for title in titles], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def fields(value: Mapping[str, Any], names: Mapping[str, Any] | None = None) -> None:
    """Print one object: as JSON with `--json`, else one line a field ({title: key or function})."""
    if is_json():
        emit(value)
        return
    chosen = names or {key: key for key in value}
    width = max(map(len, chosen))
    for title, pick in chosen.items():
        print(f"{title.ljust(width)}  {_cell(value, pick)}")


def when(value: str | None) -> str:
    """Return an ISO time as local "2026-10-20 02:00", or "-"."""
    if not value:
        return "-"
    return datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M")


def size(value: float | None) -> str:
    """Return bytes as "3.2 MB" (powers of 1000, as Borg does), or "-"."""
    if value is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float | None) -> str:
    """Return seconds as "4.2 s", "3 min 20 s" or "2 h 5 min", or "-"."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def elapsed(job: Mapping[str, Any]) -> float | None:
    """Return the seconds a job ran, or has been running."""
    if not job.get("started_at"):
        return None
    end = datetime.fromisoformat(job["finished_at"]) if job.get("finished_at") else datetime.now(UTC)
    return (end - datetime.fromisoformat(job["started_at"])).total_seconds()
