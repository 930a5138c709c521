"""What `health` found on a host or a storage server, in the form of all operations that tell findings."""

from typing import Any

from sqlalchemy.orm import Session

from saveos.jobs.models import Job, JobHost
from saveos.maintenance import findings, results
from saveos.maintenance.results import host_of, parsed
from saveos.repositories.report import StorageSeen


def examined(session: Session, job: Job, row: JobHost) -> None:
    """Keep how a host is, what a storage server saw, and the findings of both as one record."""
    results.examined(session, job, row)
    host = host_of(session, row)
    health, storage = row.result.get("health"), row.result.get("storage")
    own = health if isinstance(health, dict) else None
    seen = (
        parsed(StorageSeen, storage) if isinstance(storage, dict) and host and host.is_storage_server else None
    )
    if host is None or (own is None and seen is None):
        return
    reported = own.get("findings") if own else None
    told = [_finding(each) for each in reported or []] if isinstance(reported, list) else []
    summary = own.get("summary") if own else None
    figures: dict[str, Any] = dict(summary) if isinstance(summary, dict) else {}
    if seen:
        told += _stored(seen)
        figures |= {"storage_free_bytes": seen.free, "repositories": len(seen.repositories)}
        if seen.total:
            figures["storage_free_percent"] = round(100 * seen.free / seen.total)
    record = parsed(findings.ToldResult, {"summary": figures, "findings": told[:1000]})
    findings.keep(session, job, host, record)


def _finding(told: Any) -> dict[str, Any]:
    """Return a finding of an agent's; an older agent knows only severity, code, message and fix."""
    if not isinstance(told, dict):
        return {"id": "finding", "severity": "warning", "title": str(told)[:500]}
    if "id" in told:
        return told
    return {
        "id": str(told.get("code", "finding")).replace("_", "-"),
        "severity": told.get("severity", "warning"),
        "title": str(told.get("message", "")).replace("\n", " ")[:500],
        "fix": str(told.get("fix", ""))[:2000],
    }


def _stored(seen: StorageSeen) -> list[dict[str, Any]]:
    """Return what is wrong with a storage server's disk and repositories, by its own report."""
    found: list[dict[str, Any]] = []
    if seen.total and seen.free < seen.total * 0.1:
        found.append(
            {
                "id": "storage-disk-full",
                "severity": "critical" if seen.free < seen.total * 0.05 else "warning",
                "subject": seen.root,
                "title": f"The disk of {seen.root} is nearly full: backups of all hosts will soon fail."[:500],
                "evidence": f"{seen.free} of {seen.total} bytes free",
                "fix": "Add disk, lower retentions, or let the guard compact.",
            }
        )
    for each in seen.repositories:
        if each.foreign:
            found.append(
                {
                    "id": "repository-foreign",
                    "severity": "critical",
                    "subject": str(each.id),
                    "title": f"{each.foreign} files of the repository {each.id} do not belong to {seen.user}.",
                    "fix": f"chown -hR {seen.user}: {seen.root}/repositories/{each.id}"[:2000],
                }
            )
    return found
