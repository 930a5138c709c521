"""Which repositories raise an alert: near their quota, lacking what hosts claim, damaged, held, unchecked.

And which storage servers: whose guard is silent, or was asked to hold copies for less time.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Float, Select, and_, case, cast, func, literal, null, or_, select

from saveos.alerts.rules import Family, watched
from saveos.hosts.models import Host
from saveos.repositories.models import Guard, GuardState, Repository

QUOTA, QUOTA_NEAR, QUOTA_SLACK = 0.90, 0.75, 0.02
SERVED_WITHIN, BACKED_UP_WITHIN = timedelta(days=3), timedelta(days=2)  # a repository, and its host
GUARD_LATE = 2  # intervals of a guard without its word
FIRST_GUARD = timedelta(hours=3)
KEYLESS_WITHIN = timedelta(days=15)  # guards check every 7 days
DATA_WITHIN = timedelta(days=45)  # the built-in schedule checks every month

SERVERS = Host.metadata.tables[Host.__tablename__].alias("server")
BROKEN = ("damaged", "failed")


def _judged(rule: ColumnElement[Any], held: ColumnElement[Any], *facts: Any) -> Select[Any]:
    columns: tuple[Any, ...] = (
        Repository.id,
        Repository.tenant_id,
        Repository.host_id,
        Host.name,
        Host.state,
        SERVERS.c.name.label("server"),
        *facts,
    )
    query: Select[Any] = select(*columns, rule.label("rule"), held.label("held"))
    query = query.join(Host, Host.id == Repository.host_id)
    query = query.outerjoin(SERVERS, SERVERS.c.id == Repository.server_id)
    return query.outerjoin(GuardState, GuardState.repository_id == Repository.id)


def _content(at: datetime) -> Select[Any]:
    unsound = and_(GuardState.state.in_(("damaged", "missing")), ~_check_broken())
    rule = case(
        (and_(watched(), or_(Repository.fault != "", unsound)), "repository_damaged"),
        (and_(watched(), Repository.missing_since.is_not(None)), "mismatch"),
        (and_(Host.state == "enrolled", _left_out(at)), "left_out"),
    )
    fault = case((Repository.fault != "", Repository.fault), else_=func.coalesce(GuardState.detail, ""))
    seen = (Repository.claimed_at, Repository.last_commit_at, Repository.missing_since)
    served = _served().label("served_at")
    return _judged(rule, rule, *seen, served, fault.label("fault"))


def _served() -> ColumnElement[Any]:
    """When a host last told of an archive in a repository; of one that never got any, when it was made."""
    return func.coalesce(Repository.claimed_told_at, Repository.claimed_at, Repository.created_at)


def _left_out(at: datetime) -> ColumnElement[bool]:
    """Whether a host backs up, and not to this repository, such as one that was added without provisioning."""
    return and_(_served() < at - SERVED_WITHIN, Host.last_backup_at >= at - BACKED_UP_WITHIN)


def _quotas(at: datetime) -> Select[Any]:
    def judge(slack: float) -> ColumnElement[Any]:
        def above(share: float) -> ColumnElement[bool]:
            return and_(watched(), Repository.size > cast(Repository.quota_bytes, Float) * (share - slack))

        return case((above(QUOTA), "quota"), (above(QUOTA_NEAR), "quota_near"))

    return _judged(judge(0), judge(QUOTA_SLACK), Repository.size, Repository.quota, Repository.quota_bytes)


def _held(at: datetime) -> Select[Any]:
    rule = case((and_(watched(), GuardState.state == "held"), "guard_held"))
    return _judged(rule, rule, GuardState.detail, GuardState.held_since)


def _check_broken() -> ColumnElement[bool]:
    states = (GuardState.keyless_state, GuardState.archives_state, GuardState.data_state)
    return or_(*(func.coalesce(state, "").in_(BROKEN) for state in states))


def _checks(at: datetime) -> Select[Any]:
    """Judge the last check of each kind; how old one may be counts from the repository's making."""
    initialised = Repository.initialised_at
    guarded = GuardState.reported_at.is_not(None)  # else the guard itself is what misses
    late = or_(
        and_(guarded, func.coalesce(GuardState.keyless_at, initialised) < at - KEYLESS_WITHIN),
        func.coalesce(GuardState.data_at, initialised) < at - DATA_WITHIN,
    )
    alive = and_(watched(), Host.state == "enrolled", Host.last_backup_at >= at - DATA_WITHIN)
    rule = case(
        (and_(watched(), _check_broken()), "check_failed"),
        (and_(alive, initialised.is_not(None), late), "check_late"),
    )
    return _judged(rule, rule, GuardState.check_detail, GuardState.keyless_at, GuardState.data_at)


def _guards(rule: ColumnElement[Any]) -> Select[Any]:
    query: Select[Any] = select(
        Host.id,
        Host.tenant_id,
        Host.id.label("host_id"),
        Host.name,
        Host.state,
        Guard.reported_at,
        Guard.refused,
        rule.label("rule"),
        rule.label("held"),
    )
    return query.outerjoin(Guard, Guard.server_id == Host.id)


def _silent(at: datetime) -> Select[Any]:
    """Judge storage servers that hold something: an interval is the guard's own, so there are a few cases."""
    holds = (
        select(literal(1))
        .where(Repository.server_id == Host.id, Repository.initialised_at < at - FIRST_GUARD)
        .exists()
    )
    late = case(
        *(
            (
                Guard.interval_seconds <= seconds,
                Guard.reported_at < at - timedelta(seconds=seconds) * GUARD_LATE,
            )
            for seconds in (3600, 6 * 3600, 86_400, 7 * 86_400)
        ),
        else_=Guard.reported_at < at - timedelta(days=62),
    )
    cared = and_(Host.is_storage_server, Host.state == "enrolled", holds)
    return _guards(case((~cared, null()), (or_(Guard.reported_at.is_(None), late), "guard_silent")))


def _refused(at: datetime) -> Select[Any]:
    return _guards(case((and_(Host.is_storage_server, watched(), Guard.refused != ""), "guard_refused")))


FAMILIES = (
    Family("repository", ("repository_damaged", "mismatch", "left_out"), _content),
    Family("repository", ("quota", "quota_near"), _quotas),
    Family("repository", ("guard_held",), _held),
    Family("repository", ("check_failed", "check_late"), _checks),
    Family("host", ("guard_silent",), _silent),
    Family("host", ("guard_refused",), _refused),
)
