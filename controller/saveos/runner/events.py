"""What of ansible-runner's events is kept: one small line per thing a person wants to know.

A spool line is a JSON object. With `n` it is a log event {n, t, k, h, task, text}; besides, it may
carry what the rows of the job's hosts need: `r` (the task's `saveos` result, merged per host),
`stats` (the recap) or, without `n`, `start` (this host has begun). Knows neither ansible-runner nor
the database.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

MAX_TEXT = 64 * 1024  # of one event
MAX_LOG = 100 * 1024 * 1024  # of one job
MAX_RESULT = 640 * 1024  # of one task's `saveos` result, below ansible-runner's own limit
MAX_OUTPUT = 8 * 1024  # of a failed task's stdout or stderr

Line = dict[str, Any]

_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STATS = {
    "ok": "ok",
    "changed": "changed",
    "failures": "failed",
    "dark": "unreachable",
    "skipped": "skipped",
    "ignored": "ignored",
    "rescued": "rescued",
}


def clip(text: str, limit: int) -> str:
    """Return `text` cut in its middle to about `limit` characters, saying so."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def storable(text: str) -> str:
    """Return `text` as every database and JSON reader takes it: a host's program may print any bytes."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def note(text: str, kind: str = "note") -> Line:
    """Return a log event that comes from the controller itself, not yet numbered."""
    return {"t": round(time.time(), 3), "k": kind, "h": "", "task": "", "text": clip(text, MAX_TEXT)}


class Mapper:
    """Turns one run's ansible-runner events into spool lines, numbered after `first`.

    Never raises on an odd event: what cannot be understood is dropped. `verbose` says that Ansible
    was told to be verbose; its verbose lines show command lines, so they are not kept.
    """

    def __init__(self, first: int, *, verbose: bool = False) -> None:
        self.number = first
        self.verbose = verbose
        self.size = 0
        self._started: set[str] = set()
        self._in_play = False

    def lines(self, event: dict[str, Any]) -> Iterator[Line]:
        """Yield the lines of one event, in order."""
        name = str(event.get("event", ""))
        data = event.get("event_data") or {}
        handler = _HANDLERS.get(name)
        if name == "playbook_on_start":
            self._in_play = True
        elif name == "runner_on_start":
            yield from self._start(str(data.get("host", "")))
        elif name == "verbose" and (self.verbose or self._in_play):
            return
        elif handler:
            for line in handler(event, data):
                yield self._numbered(line, event)

    def _start(self, host: str) -> Iterator[Line]:
        if host and host not in self._started:
            self._started.add(host)
            yield {"start": host}

    def _numbered(self, line: Line, event: dict[str, Any]) -> Line:
        text = storable(clip(line.get("text", ""), MAX_TEXT))
        if self.size > MAX_LOG and line["k"] not in ("failed", "unreachable", "recap"):
            text = ""
        self.number += 1
        whole = {"n": self.number, "t": _seconds(event), "h": "", "task": ""} | line | {"text": text}
        self.size += len(text) + 120
        return whole


def _seconds(event: dict[str, Any]) -> float:
    try:
        return round(datetime.fromisoformat(str(event.get("created"))).timestamp(), 3)
    except ValueError:
        return round(time.time(), 3)


def _stdout(event: dict[str, Any]) -> str:
    return _ESCAPES.sub("", str(event.get("stdout") or "")).replace("\r\n", "\n").strip("\n")


def _play(event: dict[str, Any], data: dict[str, Any]) -> Iterator[Line]:
    yield {"k": "play", "text": str(data.get("name") or data.get("play") or "")}


def _task(event: dict[str, Any], data: dict[str, Any]) -> Iterator[Line]:
    name = str(data.get("name") or data.get("task") or "")
    yield {"k": "task", "task": name, "text": name}


def _result(kind: str) -> Callable[[dict[str, Any], dict[str, Any]], Iterator[Line]]:
    def handle(event: dict[str, Any], data: dict[str, Any]) -> Iterator[Line]:
        found = data.get("res")
        result: dict[str, Any] = found if isinstance(found, dict) else {}
        hidden = "censored" in result
        state = kind
        if kind == "failed" and data.get("ignore_errors"):
            state = "ignored"
        elif kind == "ok" and result.get("changed"):
            state = "changed"
        line: Line = {"k": state, "h": str(data.get("host", "")), "task": str(data.get("task") or "")}
        line["text"] = "(hidden: this task handles a secret)" if hidden else _text(state, result)
        report = result.get("saveos")
        if isinstance(report, dict) and not hidden:
            if len(json.dumps(report)) <= MAX_RESULT:
                line["r"] = report
            else:
                line["text"] += "\nthe result is too large and was dropped"
        yield line

    return handle


def _text(state: str, result: dict[str, Any]) -> str:
    """Return what a person needs of a task's result; module arguments and return values stay out."""
    parts = [str(result["msg"])] if isinstance(result.get("msg"), str | int) else []
    for item in result.get("results") or []:
        if (
            isinstance(item, dict)
            and "censored" not in item
            and (item.get("failed") or item.get("unreachable"))
        ):
            parts.append(str(item.get("msg", "")))
    if state in ("failed", "unreachable", "ignored"):
        for stream in ("module_stderr", "stderr", "module_stdout", "stdout"):
            if output := result.get(stream):
                parts.append(clip(str(output).strip(), MAX_OUTPUT))
    for warning in result.get("warnings") or []:
        parts.append(f"warning: {warning}")
    return "\n".join(dict.fromkeys(part for part in parts if part))


def _diff(event: dict[str, Any], data: dict[str, Any]) -> Iterator[Line]:
    if text := _stdout(event):
        yield {"k": "diff", "h": str(data.get("host", "")), "task": str(data.get("task") or ""), "text": text}


def _warning(event: dict[str, Any], data: dict[str, Any]) -> Iterator[Line]:
    if text := _stdout(event):
        yield {"k": "warning", "text": text}


def _verbose(event: dict[str, Any], data: dict[str, Any]) -> Iterator[Line]:
    if text := _stdout(event):
        yield {"k": "note", "text": text}


def _recap(event: dict[str, Any], data: dict[str, Any]) -> Iterator[Line]:
    hosts = sorted(data.get("processed") or {})
    stats = {host: {ours: (data.get(key) or {}).get(host, 0) for key, ours in _STATS.items()} for host in hosts}
    text = "\n".join(
        f"{host}: " + " ".join(f"{name}={count}" for name, count in counts.items())
        for host, counts in stats.items()
    )
    yield {"k": "recap", "text": text, "stats": stats}


_HANDLERS: dict[str, Callable[[dict[str, Any], dict[str, Any]], Iterator[Line]]] = {
    "playbook_on_play_start": _play,
    "playbook_on_task_start": _task,
    "playbook_on_handler_task_start": _task,
    "playbook_on_no_hosts_matched": _warning,
    "playbook_on_stats": _recap,
    "runner_on_ok": _result("ok"),
    "runner_on_failed": _result("failed"),
    "runner_on_unreachable": _result("unreachable"),
    "runner_on_skipped": _result("skipped"),
    "runner_on_file_diff": _diff,
    "warning": _warning,
    "system_warning": _warning,
    "error": _warning,
    "verbose": _verbose,
}
