# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Check repositories from the host, which has the keys: archives, or all their data. Repairs nothing."""

from __future__ import annotations

import re
import time
from typing import Any, Iterator, Optional

from saveos_agent.answers import printable
from saveos_agent.borg import LOCK_WAIT, borg_error, borg_status, list_archives
from saveos_agent.errors import AgentError, usage
from saveos_agent.output import Output, json_object
from saveos_agent.redaction import Redactor
from saveos_agent.rotation import settle_rotations
from saveos_agent.runs import turn
from saveos_agent.settings import Repository, Settings
from saveos_agent.times import new_run_id, utc

KINDS = {"archives": ("--archives-only",), "data": ("--archives-only", "--verify-data")}
ANALYZING = re.compile(r"^Analyzing archive (.+) \(\d+/\d+\)$")
SOUND, UNSOUND = "check complete, no problems found", "check complete, problems found"
DETAIL = 2000  # characters of what a check said, for a repository or an archive


class Report:
    """Reads what `borg check` says: which archives it analysed, and what is wrong with each."""

    def __init__(self, redactor: Redactor) -> None:
        self.output = Output(redactor)
        self.verdict = ""
        self.errors: list[str] = []
        self.archives: dict[str, list[str]] = {}
        self._current: Optional[str] = None

    def line(self, stream: str, text: str) -> None:
        self.output.line(stream, text)
        message = json_object(text)
        if message is None or message.get("type") != "log_message":
            return
        said = str(message.get("message") or "")
        found = ANALYZING.match(said)
        if found:
            self._current = found[1]
            self.archives.setdefault(found[1], [])
        elif SOUND in said:
            self.verdict = "ok"
        elif UNSOUND in said:
            self.verdict = "damaged"
        elif message.get("levelname") in ("ERROR", "CRITICAL"):
            self._take_error(self.output.redactor.clean(said))

    def _take_error(self, said: str) -> None:
        self.errors.append(said)
        if self._current and (said.startswith((f"{self._current}: ", "Archive ")) or "metadata" in said):
            self.archives[self._current].append(said)


def check(settings: Settings, kind: str, chosen: list[str], seconds: float) -> dict[str, Any]:
    """Wait for the turn, and check repositories, all or the chosen. Raises AgentError."""
    known = {each.id: each for each in settings.repositories}
    for identity in chosen:
        if identity not in known:
            raise usage(f"This host has no repository {identity}.", "See agent.json, or provision the host.")
    if not known:
        raise AgentError(
            "not_configured", "This host has no repository.", "Provision it with a storage server."
        )

    with turn(settings, seconds, "check"):
        settle_rotations(settings)
        at = utc()
        repositories = [_check(settings, known[identity], kind) for identity in chosen or known]
    return {"schema": 1, "at": at, "kind": kind, "repositories": repositories}


def _check(settings: Settings, repository: Repository, kind: str) -> dict[str, Any]:
    began = time.monotonic()
    report = Report(Redactor.for_host(settings))
    found: dict[str, Any] = {"repository_id": repository.id, "detail": "", "archives": []}
    try:
        ids = {item["name"]: item["id"] for item in list_archives(settings, repository)}
        arguments = ("check", "--log-json", "--info", *LOCK_WAIT, *KINDS[kind])
        run_id = new_run_id()
        borg_status(settings, repository, run_id, report.output, *arguments, on_line=report.line)
        if not report.verdict:
            raise borg_error(settings, repository, report.output)
    except AgentError as error:
        found.update(state="failed", detail=f"{error.message} {error.fix}".strip()[:DETAIL])
    else:
        found.update(state=report.verdict, detail="; ".join(report.errors)[:DETAIL])
        found["archives"] = list(_archives(report, ids))
    found["seconds"] = round(time.monotonic() - began, 1)
    return found


def _archives(report: Report, ids: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What became of each archive. Where damage cannot be told apart by archive, only the damaged are named."""
    apart = not report.errors or any(report.archives.values())
    for name, errors in report.archives.items():
        if errors or (apart and report.verdict == "ok"):
            state = "damaged" if errors else "ok"
            yield {"id": ids.get(name, ""), "name": name, "state": state, "detail": "; ".join(errors)[:DETAIL]}


def check_lines(data: dict[str, Any]) -> Iterator[str]:
    """A check's outcome for people."""
    for each in data["repositories"]:
        said = f": {printable(each['detail'])}" if each["detail"] else ""
        yield f"{each['repository_id']}: {each['state']} after {each['seconds']} seconds{said}"
        for archive in each["archives"]:
            if archive["state"] != "ok":
                yield f"  {printable(archive['name'])}: {printable(archive['detail'])}"
