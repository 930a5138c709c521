"""Which hosts raise an alert for what operations found: one for all open critical findings of one operation.

And for what no operation did: a policy that changed, and was not brought to the host.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, case, func, select
from sqlalchemy.orm import aliased

from saveos.alerts.rules import Family, watched
from saveos.hosts.models import Host
from saveos.maintenance.models import SEVERITIES, Finding, MaintenanceLatest
from saveos.policies.models import Policy, PolicyVersion

HEALTH = "health"
# What is critical to `health` and to no other rule. The rest is told already: a failed run and a missing backup
# by the rules of backups, a full disk by those of disks, a repository's files by `repository_damaged`.
PROVISION_WITHIN = timedelta(days=1)  # after a policy changed
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


def _waiting(at: datetime) -> Select[Any]:
    """Judge hosts that were provisioned with an earlier version of their policy, and back up by that still."""
    present, applied = aliased(PolicyVersion), aliased(PolicyVersion)
    earlier = and_(applied.policy_id == Policy.id, applied.number < present.number)
    used = and_(present.created_at < at - PROVISION_WITHIN, Host.last_backup_at > present.created_at)
    rule = case((and_(Host.state == "enrolled", Host.is_agent, earlier, used), "policy_waits"))
    columns: tuple[Any, ...] = (
        Host.id,
        Host.tenant_id,
        Host.id.label("host_id"),
        Host.name,
        Host.state,
        Policy.name.label("policy"),
        present.created_at.label("changed_at"),
    )
    query: Select[Any] = select(*columns, rule.label("rule"), rule.label("held"))
    query = query.outerjoin(Policy, Policy.id == Host.policy_id)
    query = query.outerjoin(present, present.id == Policy.current_version_id)
    return query.outerjoin(applied, applied.id == Host.applied_version_id)


FAMILIES = (
    Family("maintenance", ("finding",), _critical),
    Family("host", ("policy_waits",), _waiting),
)
