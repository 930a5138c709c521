# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Status and health."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

from saveos_agent.machine import clock_synchronised, disks, memory, os_name, versions
from saveos_agent.processes import systemctl
from saveos_agent.settings import Repository, Settings
from saveos_agent.state import HISTORY_KEEP, Lock, load, pending_request, recent_records, stored
from saveos_agent.times import parse_utc, utc


def status(settings: Settings) -> dict[str, Any]:
    """What runs now, and how the last runs ended."""
    active = load(settings, "active.json")
    if not isinstance(active, dict) or not Lock(settings).held():
        active = None
    fields = ("run_id", "kind", "trigger", "job_id", "state", "started_at", "finished_at")
    return {
        "host": settings.host,
        "active": active,
        "pending": pending_request(settings),
        "last_runs": [{name: record.get(name) for name in fields} for record in recent_records(settings, 10)],
        "spool": len(stored(settings, "spool")),
    }


def health(settings: Settings) -> dict[str, Any]:
    """Facts about this host and findings a person should look at. Asks nothing of the storage server."""
    report: dict[str, Any] = {
        "host": settings.host,
        "host_id": settings.host_id,
        "checked_at": utc(),
        "init": "systemd" if settings.systemd else "none",
        "units": unit_states(settings),
        "repositories": [repository_health(settings, repository) for repository in settings.repositories],
        "disks": disks(settings),
        "clock": {"synchronised": clock_synchronised(), "now": utc()},
        "load": list(os.getloadavg()),
        "cpus": os.cpu_count(),
        "memory_available_bytes": memory("MemAvailable"),
        "uptime_seconds": float(Path("/proc/uptime").read_text().split()[0]),
        "versions": {**versions(settings), "python": platform.python_version(), "kernel": platform.release()},
        "os": os_name(),
        "spool": len(stored(settings, "spool")),
        "active": status(settings)["active"],
    }
    report["findings"] = list(findings(report))
    report["state"] = worst_severity(report["findings"])
    return report


def unit_states(settings: Settings) -> list[dict[str, Any]]:
    if not settings.systemd:
        return []
    timer = settings.unit.removesuffix(".service") + ".timer"
    wanted = "Id,LoadState,ActiveState,SubState,Result,UnitFileState,NextElapseUSecRealtime,LastTriggerUSec"
    try:
        done = systemctl("show", "-p", wanted, settings.unit, timer, seconds=20)
    except (OSError, subprocess.SubprocessError):
        return []
    units = []
    for block in done.stdout.strip().split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        unit = {
            "name": values.get("Id"),
            "load": values.get("LoadState"),
            "active": values.get("ActiveState"),
        }
        unit.update(
            sub=values.get("SubState"), result=values.get("Result"), enabled=values.get("UnitFileState")
        )
        unit.update(next=values.get("NextElapseUSecRealtime"), last=values.get("LastTriggerUSec"))
        units.append(unit)
    return units


def repository_health(settings: Settings, repository: Repository) -> dict[str, Any]:
    """Last archive and last result as this host's records know them."""
    found: dict[str, Any] = {
        "id": repository.id,
        "label": repository.label,
        "last_state": None,
        "last_run_at": None,
    }
    found.update(last_archive=None, last_archive_at=None, last_archive_age_seconds=None, error=None)
    for record in recent_records(settings, HISTORY_KEEP):
        for result in record["results"] if record.get("kind") == "backup" else ():
            if result["repository_id"] != repository.id:
                continue
            if found["last_state"] is None:
                found.update(
                    last_state=result["state"], last_run_at=record["finished_at"], error=result["error"]
                )
            archive = result.get("archive")
            if archive and found["last_archive"] is None:
                at = archive["finished_at"] or record["finished_at"]
                found.update(last_archive=archive["name"], last_archive_at=at)
                found["last_archive_age_seconds"] = round(time.time() - parse_utc(at))
        if found["last_archive"] and found["last_state"]:
            break
    known = load(settings, "prune.json")
    found["prune"] = known.get(repository.id) if isinstance(known, dict) else None
    found["config"] = repository.config.is_file()
    return found


def findings(report: dict[str, Any]) -> Iterator[dict[str, str]]:
    """What a person should look at: first the repositories, then the host itself."""
    for repository in report["repositories"]:
        if not repository["config"]:
            yield finding(
                "critical",
                "config_missing",
                f"Repository {repository['id']} has no configuration.",
                PROVISION,
            )
        if repository["last_archive"] is None:
            yield finding(
                "critical", "never_backed_up", f"Nothing was ever saved to {repository['id']}.", RUN_BACKUP
            )
        if repository["error"]:
            yield finding(
                "critical",
                repository["error"]["code"],
                repository["error"]["message"],
                repository["error"]["fix"],
            )
        pruned = repository["prune"] or {}
        if pruned.get("error"):
            yield finding("warning", "retention", pruned["error"]["message"], pruned["error"]["fix"])
    if not report["repositories"]:
        yield finding("critical", "config_missing", "This host has no repository.", PROVISION)
    yield from host_findings(report)


def host_findings(report: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Units, disks, programs, clock and spool."""
    for unit in report["units"]:
        if unit["load"] != "loaded":
            yield finding("critical", "unit_missing", f"{unit['name']} is not installed.", PROVISION)
        elif str(unit["name"]).endswith(".timer") and unit["active"] != "active":
            yield finding(
                "critical", "timer_off", f"{unit['name']} is not active: no scheduled backups.", PROVISION
            )
    for disk in report["disks"]:
        if disk["free_bytes"] < max(disk["total_bytes"] * 0.02, 64 * 1024 * 1024):
            yield finding(
                "warning", "disk_full", f"The disk of {disk['path']} is nearly full.", "Free space on it."
            )
    for name in ("borg", "borgmatic"):
        if report["versions"][name] == "missing":
            yield finding("critical", "program_missing", f"{name} is missing.", PROVISION)
    if report["clock"]["synchronised"] is False:
        yield finding("warning", "clock", "The clock is not synchronised.", "Run an NTP service.")
    if report["spool"] > 20:
        text = f"{report['spool']} run records wait for the controller."
        yield finding("warning", "spool", text, "Check the controller's address and the host's token.")


PROVISION = "Provision the host again (ansible-playbook playbooks/site.yml)."
RUN_BACKUP = "Run: saveos-agent backup --wait."


def finding(severity: str, code: str, message: str, fix: str) -> dict[str, str]:
    return {"severity": severity, "code": code, "message": message, "fix": fix}


def worst_severity(found: list[dict[str, str]]) -> str:
    severities = {item["severity"] for item in found}
    return next((name for name in ("critical", "warning") if name in severities), "ok")
