"""Which hosts raise an alert for what operations found: one for all open critical findings of one operation."""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, case, select

from saveos.alerts.rules import Family, watched
from saveos.hosts.models import Host
from saveos.maintenance.models import MaintenanceLatest

TOLD_ELSEWHERE = "health"  # what is critical there raises an alert of its own: failed, silent, disk full, …


def _critical(at: datetime) -> Select[Any]:
    rule = case(
        (
            and_(watched(), MaintenanceLatest.critical > 0, MaintenanceLatest.operation != TOLD_ELSEWHERE),
            "finding",
        )
    )
    columns: tuple[Any, ...] = (
        MaintenanceLatest.id,
        MaintenanceLatest.tenant_id,
        MaintenanceLatest.host_id,
        Host.name,
        Host.state,
        MaintenanceLatest.operation,
        MaintenanceLatest.critical,
        MaintenanceLatest.critical_since,
        MaintenanceLatest.worst,
    )
    query: Select[Any] = select(*columns, rule.label("rule"), rule.label("held"))
    return query.join(Host, Host.id == MaintenanceLatest.host_id)


FAMILIES = (Family("maintenance", ("finding",), _critical),)
