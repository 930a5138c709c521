"""Which hosts raise an alert for what operations found: one for all open critical findings of one operation."""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, case, func, select

from saveos.alerts.rules import Family, watched
from saveos.hosts.models import Host
from saveos.maintenance.models import SEVERITIES, Finding, MaintenanceLatest

HEALTH = "health"
# What is critical to `health` and to no other rule. The rest is told already: a failed run and a missing backup
# by the rules of backups, a full disk by those of disks, a repository's files by `repository_damaged`.
OF_HEALTH = ("config-missing", "unit-missing", "timer-off", "program-missing")


def _critical(at: datetime) -> Select[Any]:
    own = _of_health()
    is_health = MaintenanceLatest.operation == HEALTH
    critical = case((is_health, func.coalesce(own.c.critical, 0)), else_=MaintenanceLatest.critical)
    rule = case((and_(watched(), critical > 0), "finding"))
    columns: tuple[Any, ...] = (
        MaintenanceLatest.id,
        MaintenanceLatest.tenant_id,
        MaintenanceLatest.host_id,
        Host.name,
        Host.state,
        MaintenanceLatest.operation,
        critical.label("critical"),
        case((is_health, own.c.since), else_=MaintenanceLatest.critical_since).label("critical_since"),
        case((is_health, own.c.worst), else_=MaintenanceLatest.worst).label("worst"),
    )
    query: Select[Any] = select(*columns, rule.label("rule"), rule.label("held"))
    query = query.join(Host, Host.id == MaintenanceLatest.host_id)
    return query.outerjoin(own, and_(own.c.host_id == MaintenanceLatest.host_id, is_health))


def _of_health() -> Any:
    """Return by host how many findings of health no other rule tells, since when, and one of their titles."""
    columns = (
        Finding.host_id,
        func.count().label("critical"),
        func.min(Finding.first_seen).label("since"),
        func.min(Finding.title).label("worst"),
    )
    query = select(*columns).where(Finding.operation == HEALTH, Finding.kind.in_(OF_HEALTH))
    query = query.where(Finding.rank == SEVERITIES.index("critical"), Finding.resolved_at.is_(None))
    return query.group_by(Finding.host_id).subquery("of_health")


FAMILIES = (Family("maintenance", ("finding",), _critical),)
