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
        "memory_total_bytes": memory("MemTotal"),
        "uptime_seconds": float(Path("/proc/uptime").read_text().split()[0]),
        "versions": {**versions(settings), "python": platform.python_version(), "kernel": platform.release()},
        "os": os_name(),
        "spool": len(stored(settings, "spool")),
        "active": status(settings)["active"],
    }
    report["findings"] = list(findings(report))
    report["state"] = worst_severity(report["findings"])
    report.update(schema=1, at=report["checked_at"], summary=summary(report))
    return report


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The report in flat figures, which the controller keeps and compares from run to run."""
    ages = [each["last_archive_age_seconds"] for each in report["repositories"]]
    shares = [each["free_bytes"] / each["total_bytes"] for each in report["disks"] if each["total_bytes"]]
    units = [unit["active"] in ("active", "inactive", "activating", "deactivating") for unit in report["units"]]
    told: dict[str, Any] = {
        "units": sum(units),
        "load_per_cpu": round(report["load"][2] / (report["cpus"] or 1), 2),
        "memory_available_bytes": report["memory_available_bytes"],
        "disk_free_percent": round(100 * min(shares)) if shares else None,
        "last_archive_age_seconds": max(ages) if ages and None not in ages else None,
        "waiting_records": report["spool"],
        "uptime_days": round(report["uptime_seconds"] / 86400, 1),
    }
    told.update({f"{name}_version": report["versions"].get(name) for name in ("agent", "borg", "borgmatic")})
    return {name: value for name, value in told.items() if value is not None}


def unit_states(settings: Settings) -> list[dict[str, Any]]:
    if not settings.systemd:
        return []
    timer = settings.unit.removesuffix(".service") + ".timer"
    wanted = "Id,LoadState,ActiveState,SubState,Result,UnitFileState,NextElapseUSecRealtime,LastTriggerUSec"
    try:
        done = systemctl("show", "-p", wanted, settings.unit, timer, seconds=60)
    except (OSError, subprocess.SubprocessError):
        return []
    units = []
    for block in filter(None, done.stdout.strip().split("\n\n")):
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


def findings(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a person should look at: first the repositories, then the host itself."""
    for repository in report["repositories"]:
        if not repository["config"]:
            yield finding(
                "critical",
                "config_missing",
                f"Repository {repository['id']} has no configuration.",
                PROVISION,
                repository["id"],
            )
        if repository["last_archive"] is None:
            text = f"Nothing was ever saved to {repository['id']}."
            yield finding("critical", "never_backed_up", text, RUN_BACKUP, repository["id"])
        if repository["error"]:
            yield finding(
                "critical",
                repository["error"]["code"],
                repository["error"]["message"],
                repository["error"]["fix"],
                repository["id"],
            )
        pruned = repository["prune"] or {}
        if pruned.get("error"):
            error = pruned["error"]
            yield finding("warning", "retention", error["message"], error["fix"], repository["id"])
    if not report["repositories"]:
        yield finding("critical", "config_missing", "This host has no repository.", PROVISION)
    yield from host_findings(report)


def host_findings(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Units, disks, programs, clock and spool."""
    if report["init"] == "systemd" and not report["units"]:
        text = "systemd does not answer, so nobody knows whether backups are scheduled."
        yield finding("warning", "units_unknown", text, "See how it is: systemctl is-system-running.")
    for unit in report["units"]:
        if unit["load"] != "loaded":
            text = f"{unit['name']} is not installed."
            yield finding("critical", "unit_missing", text, PROVISION, unit["name"])
        elif str(unit["name"]).endswith(".timer") and unit["active"] != "active":
            text = f"{unit['name']} is not active: no scheduled backups."
            yield finding("critical", "timer_off", text, PROVISION, unit["name"])
    for disk in report["disks"]:
        if disk["free_bytes"] < max(disk["total_bytes"] * 0.02, 64 * 1024 * 1024):
            text = f"The disk of {disk['path']} is nearly full."
            yield finding("warning", "disk_full", text, "Free space on it.", disk["path"])
    for name in ("borg", "borgmatic"):
        if report["versions"][name] == "missing":
            yield finding("critical", "program_missing", f"{name} is missing.", PROVISION, name)
    if report["clock"]["synchronised"] is False:
        yield finding("warning", "clock", "The clock is not synchronised.", "Run an NTP service.")
    if report["spool"] > 20:
        text = f"{report['spool']} run records wait for the controller."
        yield finding("warning", "spool", text, "Check the controller's address and the host's token.")
    if report["load"][2] > 8 * (report["cpus"] or 1):
        text = f"The load was {report['load'][2]:.1f} for a quarter of an hour on {report['cpus']} processors."
        yield finding("warning", "load_high", text, "See what runs there: top.")
    available, total = report["memory_available_bytes"], report["memory_total_bytes"]
    if available is not None and total and available < total * 0.03:
        text = f"Only {available // 2**20} of {total // 2**20} MiB of memory are available."
        yield finding("warning", "memory_low", text, "See what takes it: top.")


PROVISION = "Provision the host again (ansible-playbook playbooks/site.yml)."
RUN_BACKUP = "Run: saveos-agent backup --wait."


def finding(severity: str, code: str, message: str, fix: str, subject: str = "") -> dict[str, Any]:
    """A finding in the form of all operations; `code` and `message` are its older names for id and title."""
    told: dict[str, Any] = {"severity": severity, "code": code, "message": message, "fix": fix}
    title = message.replace("\n", " ")
    told.update(id=code.replace("_", "-"), subject=subject, title=title[:500], evidence="")
    told.update(fixable=False, fixed=False)
    return told


def worst_severity(found: list[dict[str, Any]]) -> str:
    severities = {item["severity"] for item in found}
    return next((name for name in ("critical", "warning") if name in severities), "ok")
