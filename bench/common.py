"""What the benchmarks share: the lab's parts, stopwatches and tables."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Table:
    """Rows of text under titles, with a line about what was aimed at."""

    title: str
    columns: Sequence[str]
    aim: str = ""
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row."""
        self.rows.append([str(cell) for cell in cells])

    def __str__(self) -> str:
        """Return the table as Markdown."""
        lines = [list(self.columns), *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.columns))]
        lines.insert(1, ["-" * width for width in widths])
        body = [
            "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines
        ]
        return "\n".join([f"### {self.title}", *([self.aim] if self.aim else []), "", *body, ""])


def timed(act: Callable[[], Any]) -> float:
    """Return how many seconds an act takes."""
    began = time.monotonic()
    act()
    return time.monotonic() - began


def seconds(times: Sequence[float]) -> str:
    """Return the median of times, and their range where there are several."""
    middle = f"{statistics.median(times):.2f} s"
    return middle if len(times) == 1 else f"{middle} ({min(times):.2f} to {max(times):.2f})"


def ratio(new: Sequence[float], old: Sequence[float]) -> str:
    """Return how many times longer the median of `new` is."""
    return f"{statistics.median(new) / statistics.median(old):.2f} ×"


def more(new: Sequence[float], old: Sequence[float]) -> str:
    """Return how many seconds longer the median of `new` is."""
    return f"{statistics.median(new) - statistics.median(old):+.2f} s"
