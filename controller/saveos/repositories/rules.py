"""Which repositories raise an alert: near their quota, lacking what their host claims, or damaged."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, select

from saveos.alerts.rules import Family, watched
from saveos.hosts.models import Host
from saveos.repositories.models import Repository

QUOTA, QUOTA_SLACK = 0.90, 0.02

SERVERS = Host.metadata.tables[Host.__tablename__].alias("server")


def _judged(rule: ColumnElement[Any], held: ColumnElement[Any]) -> Select[Any]:
    columns: tuple[Any, ...] = (
        Repository.id,
        Repository.tenant_id,
        Repository.host_id,
        Host.name,
        Host.state,
        SERVERS.c.name.label("server"),
        Repository.size,
        Repository.quota,
        Repository.quota_bytes,
        Repository.claimed_at,
        Repository.last_commit_at,
        Repository.missing_since,
        Repository.fault,
    )
    query: Select[Any] = select(*columns, rule.label("rule"), held.label("held"))
    query = query.join(Host, Host.id == Repository.host_id)
    return query.outerjoin(SERVERS, SERVERS.c.id == Repository.server_id)


def _content(at: datetime) -> Select[Any]:
    rule = case(
        (and_(watched(), Repository.fault != ""), "repository_damaged"),
        (and_(watched(), Repository.missing_since.is_not(None)), "mismatch"),
    )
    return _judged(rule, rule)


def _quotas(at: datetime) -> Select[Any]:
    def judge(share: float) -> ColumnElement[Any]:
        return case((and_(watched(), Repository.size > Repository.quota_bytes * share), "quota"))

    return _judged(judge(QUOTA), judge(QUOTA - QUOTA_SLACK))


FAMILIES = (
    Family("repository", ("repository_damaged", "mismatch"), _content),
    Family("repository", ("quota",), _quotas),
)
