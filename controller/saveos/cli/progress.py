"""The live view of a job: log lines above a progress bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from saveos.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

COLOURS = {"changed": "yellow", "failed": "red", "unreachable": "red", "warning": "magenta", "ok": "green"}
QUIET = frozenset({"skipped"})
FAULTS = frozenset({"failed", "unreachable", "warning", "note"})


class View(Protocol):
    """What shows a job."""

    def state(self, job: dict[str, Any]) -> None:
        """Show a new state."""

    def log(self, events: list[dict[str, Any]]) -> None:
        """Show new log events."""


@contextmanager
def view(kinds: frozenset[str] | None = None) -> Iterator[View]:
    """Open the view that fits: nothing with `--json`, a bar on a terminal, else plain lines.

    With `kinds` only log events of these kinds are shown.
    """
    if output.is_json():
        yield _Silent()
    elif sys.stdout.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, transient=True) as progress:
            yield _Bar(progress, kinds)
    else:
        yield _Plain(kinds)


def line(event: dict[str, Any], kinds: frozenset[str] | None = None) -> str:
    """Return a log event as text, control characters made visible; "" for what is not worth a line."""
    kind, host = event.get("k", ""), output.clean(event.get("h") or "")
    if kind in QUIET or (kinds is not None and kind not in kinds):
        return ""
    text = "\n".join(
        output.clean(part) for part in str(event.get("text") or "").replace("\r\n", "\n").split("\n")
    )
    task = output.clean(event.get("task") or "")
    if kind == "recap":
        return f"PLAY RECAP\n{text}"
    if kind in ("play", "task"):
        return f"{kind.upper()} {text or task}".rstrip()
    return f"{kind}: {f'[{host}] ' if host else ''}{text or task}".rstrip()


class _Silent:
    def state(self, job: dict[str, Any]) -> None:
        """Show nothing."""

    def log(self, events: list[dict[str, Any]]) -> None:
        """Show nothing."""


class _Plain:
    def __init__(self, kinds: frozenset[str] | None) -> None:
        self._kinds, self._last = kinds, ""

    def state(self, job: dict[str, Any]) -> None:
        """Print the state when it changed."""
        if self._kinds is not None:
            return
        text = job["state"] + (f", waits for {job['blocked_by']}" if job.get("blocked_by") else "")
        if text != self._last:
            self._last = text
            print(f"{job['operation']}: {text}", flush=True)

    def log(self, events: list[dict[str, Any]]) -> None:
        """Print the events."""
        text = "\n".join(filter(None, (line(event, self._kinds) for event in events)))
        if text:
            print(text, flush=True)


class _Bar:
    def __init__(self, progress: "Progress", kinds: frozenset[str] | None) -> None:
        self._progress, self._kinds = progress, kinds
        self._task: TaskID = progress.add_task("waiting", total=None)

    def state(self, job: dict[str, Any]) -> None:
        """Move the bar."""
        text = f"{job['operation']} {job['state']}"
        if job.get("blocked_by"):
            text += f", waits for {job['blocked_by']}"
        total = job["hosts_total"] or None
        self._progress.update(self._task, description=text, total=total, completed=job["hosts_done"])

    def log(self, events: list[dict[str, Any]]) -> None:
        """Print the events above the bar."""
        from rich.text import Text

        for event in events:
            if text := line(event, self._kinds):
                style = "bold" if event.get("k") in ("play", "task") else COLOURS.get(event.get("k", ""), "")
                self._progress.console.print(Text(text, style=style))
