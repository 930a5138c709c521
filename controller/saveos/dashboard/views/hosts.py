"""Hosts: list, one host with its tabs, adding one."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import Response
from pydantic import ValidationError

from saveos.accounts.access import describe
from saveos.archives import service as archives
from saveos.checkins.schemas import HeartbeatTold
from saveos.checkins.service import SKEW_SECONDS
from saveos.core.clock import now
from saveos.core.i18n import SIZE_UNITS, gettext, language
from saveos.core.inputs import Filter
from saveos.core.pagination import decode_id, decode_time_and_id, encode_cursor, split, time_and_id
from saveos.dashboard import queries, told, words
from saveos.dashboard.rendering import View, redirect, url, view
from saveos.hosts import groups, service, ssh_keys
from saveos.hosts.models import Host
from saveos.jobs import service as jobs
from saveos.maintenance import drift
from saveos.policies import fleet
from saveos.policies import service as policies
from saveos.repositories import service as repositories
from saveos.secrets import service as secrets

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("hosts:read"))]
Writer = Annotated[View, Depends(view("hosts:write"))]
LIMIT = 50


@router.get("/hosts")
def list_hosts(
    page: Reader,
    *,
    q: Filter = "",
    protection: Filter = "",
    group: Filter = "",
    tag: Filter = "",
    policy: Filter = "",
    drift: Filter = "",
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """List hosts, filtered and in pages."""
    filters = {
        "q": q.strip(),
        "protection": protection,
        "group": group,
        "tag": tag,
        "policy": policy,
        "drift": "true" if drift == "true" else "",
    }
    given = {key: value for key, value in filters.items() if value}
    found = service.list_hosts(page.session, page.tenant_id, **given, cursor=cursor or None, limit=LIMIT + 1)
    rows, following = split(found, LIMIT, lambda host: [host.name])
    counts = service.count_protection(page.session, page.tenant_id)
    return page.render(
        "hosts/list.html",
        rows=queries.host_rows(page.session, rows),
        filters=filters,
        choices=_choices(page),
        total=sum(counts.values()),
        matching=service.count_hosts(page.session, page.tenant_id, **given) if given else sum(counts.values()),
        filtered=bool(given),
        waiting=queries.count_waiting(page.session, page.tenant_id),
        chips=_chips(counts, filters) + _drift_chip(page, filters),
        first_page=url("/hosts", **filters) if cursor else "",
        next_page=url("/hosts", **filters, cursor=following) if following else "",
    )


def _matching(page: View, given: dict[str, str], counts: dict[str, int]) -> int:
    """Return how many hosts match; what the chips count already is not counted twice."""
    if not given:
        return sum(counts.values())
    if given.keys() == {"protection"}:
        return counts.get(given["protection"], 0)
    return service.count_hosts(page.session, page.tenant_id, **given)


def _choices(page: View) -> list[tuple[str, str, str, list[str]]]:
    """Return the list's select fields that have values: name, label, the entry for none, values."""
    every = [
        ("group", gettext("Group"), gettext("All groups"), queries.groups(page.session, page.tenant_id)),
        ("policy", gettext("Policy"), gettext("All policies"), queries.policies(page.session, page.tenant_id)),
        ("tag", gettext("Tag"), gettext("All tags"), queries.tags(page.session, page.tenant_id)),
    ]
    return [each for each in every if each[3]]


def _chips(counts: dict[str, int], filters: dict[str, str]) -> list[dict[str, Any]]:
    chosen = filters["protection"]
    every = {
        "tone": "none",
        "label": gettext("All"),
        "count": sum(counts.values()),
        "href": url("/hosts", **filters | {"protection": ""}),
        "current": not chosen,
    }
    order = ("failing", "silent", "late", "never", "protected", "none")
    return [every] + [
        {
            "tone": words.protections[kind].tone,
            "label": gettext(words.protections[kind].label),
            "count": counts.get(kind, 0),
            "href": url("/hosts", **filters | {"protection": kind}),
            "current": kind == chosen,
        }
        for kind in order
        if counts.get(kind) or kind == chosen
    ]


def _drift_chip(page: View, filters: dict[str, str]) -> list[dict[str, Any]]:
    count = service.count_hosts(page.session, page.tenant_id, drift="true")
    chosen = filters["drift"] == "true"
    if not count and not chosen:
        return []
    return [
        {
            "tone": "warn",
            "label": gettext("Drift"),
            "count": count,
            "href": url("/hosts", **filters | {"drift": "" if chosen else "true"}),
            "current": chosen,
        }
    ]


@router.get("/hosts/{name}")
def show_host(page: Reader, name: str) -> Response:
    """Show a host: state, figures, latest runs, machine, repository."""
    host = service.get_host(page.session, page.tenant_id, name)
    runs = queries.host_runs(page.session, host.id)
    latest = next((run for run in runs if run.kind == "backup"), None)
    stores = _repositories(page, host)
    return _tab(
        page,
        host,
        "",
        archive_count=queries.count_archives(page.session, host.id),
        chart=_chart(page, host),
        days=queries.days_of(page.session, [host.id])[host.id],
        drill=host.facts.get("drill"),
        drifted=drift.describe(page.session, host),
        proof=words.proofs[service.proof_of(host, now())],
        fingerprints=[_fingerprint(key) for key in host.ssh_host_keys],
        heartbeat=_heartbeat(host),
        running=queries.running_on(page.session, [host.id]).get(host.id),
        groups=groups.group_names(page.session, [host.id]).get(host.id, []),
        last_error=told.error(latest.error_code, latest.error) if latest and latest.state == "failed" else None,
        next_run_at=queries.next_run_of(host, now()),
        overdue=host.due_at is not None and host.due_at < now(),
        parts=_parts(host),
        policy=host.policy,
        repositories=stores,
        escrow=secrets.escrow_state(page.session, page.tenant_id, [row.id for row in stores]),
        recovery=secrets.current_key(page.session, page.tenant_id),
        may_read_secrets=page.actor.may("secrets:read"),
        runs=runs,
        template="overview",
    )


def _heartbeat(host: Host) -> dict[str, Any] | None:
    """Return what the host told of itself last, read with care; None where it sends no heartbeats."""
    if host.heartbeat_at is None:
        return None
    try:
        told = HeartbeatTold.model_validate(host.heartbeat | {"versions": {}})
    except ValidationError:
        return None
    disks = [
        {"path": disk.path, "free": disk.free, "total": disk.total, "used": 1 - disk.free / disk.total}
        for disk in told.disks
        if disk.total
    ]
    skew = host.clock_skew
    return {
        "told": told,
        "disks": disks,
        "skew": skew,
        "is_skewed": skew is not None and abs(skew) > SKEW_SECONDS,
        "load": " ".join(f"{each:.2f}" for each in told.load),
    }


def _tab(page: View, host: Host, tab: str, template: str = "", **values: Any) -> Response:
    """Render one tab of a host."""
    tabs = [("", gettext("Overview")), ("jobs", gettext("Jobs")), ("activity", gettext("Activity"))]
    if host.is_agent:
        tabs[1:1] = [("archives", gettext("Archives")), ("policy", gettext("Policy"))]
    shown = words.protections[service.protection(host, now())]
    return page.render(
        f"hosts/{template or tab}.html",
        host=host,
        tab=tab,
        tabs=tabs,
        protection=shown,
        drift=service.has_drift(host) or host.drifted_since is not None,
        **values,
    )


def _fingerprint(key: str) -> dict[str, str]:
    return {"type": key.split(maxsplit=1)[0], "fingerprint": ssh_keys.fingerprint(key)}


def _parts(host: Host) -> str:
    parts = [gettext("agent")] if host.is_agent else []
    parts += [gettext("storage server")] if host.is_storage_server else []
    return ", ".join(parts)


def _chart(page: View, host: Host) -> dict[str, str] | None:
    """Return the attributes of the chart of sizes; None with fewer than two archives."""
    points = queries.archive_sizes(page.session, host.id)
    if len(points) < 2:
        return None
    series = [
        {"label": gettext("Size"), "values": [size for _, size, _ in points]},
        {"label": gettext("Added"), "values": [added for _, _, added in points]},
    ]
    return {
        "times": json.dumps([int(when.timestamp()) for when, _, _ in points]),
        "series": json.dumps(series),
        "units": json.dumps(SIZE_UNITS[language()]),
    }


@router.get("/hosts/{name}/archives")
def list_host_archives(
    page: Reader, name: str, cursor: Annotated[str, Query(max_length=1000)] = ""
) -> Response:
    """List a host's archives."""
    host = service.get_host(page.session, page.tenant_id, name)
    found = archives.list_archives(
        page.session, page.tenant_id, host=str(host.id), cursor=cursor or None, limit=LIMIT + 1
    )
    rows, following = split(found, LIMIT, lambda row: [row.started_at.isoformat(), str(row.id)])
    path = f"/hosts/{host.name}/archives"
    return _tab(
        page,
        host,
        "archives",
        archives=rows,
        show_host=False,
        archive_count=queries.count_archives(page.session, host.id),
        first_page=path if cursor else "",
        next_page=url(path, cursor=following) if following else "",
    )


@router.get("/hosts/{name}/jobs")
def list_host_jobs(page: Reader, name: str, cursor: Annotated[str, Query(max_length=1000)] = "") -> Response:
    """List the jobs that touched a host."""
    host = service.get_host(page.session, page.tenant_id, name)
    found = jobs.list_jobs(
        page.session, page.tenant_id, host=str(host.id), before=decode_id(cursor or None), limit=LIMIT + 1
    )
    path = f"/hosts/{host.name}/jobs"
    following = encode_cursor([str(found[LIMIT - 1].id)]) if len(found) > LIMIT else ""
    return _tab(
        page,
        host,
        "jobs",
        jobs=queries.job_rows(page.session, found[:LIMIT]),
        first_page=path if cursor else "",
        next_page=url(path, cursor=following) if following else "",
    )


@router.get("/hosts/{name}/activity")
def list_host_activity(
    page: Reader, name: str, cursor: Annotated[str, Query(max_length=1000)] = ""
) -> Response:
    """List what happened at a host: its runs, and what people did to it."""
    host = service.get_host(page.session, page.tenant_id, name)
    found = queries.host_acts(page.session, host, decode_time_and_id(cursor or None), LIMIT + 1)
    acts, following = split(found, LIMIT, lambda act: time_and_id(act.at, act.id))
    path = f"/hosts/{host.name}/activity"
    return _tab(
        page,
        host,
        "activity",
        acts=acts,
        first_page=path if cursor else "",
        next_page=url(path, cursor=following) if following else "",
    )


@router.get("/hosts/{name}/policy")
def show_host_policy(page: Reader, name: str) -> Response:
    """Show what a host gets: which policy and why, what borgmatic is told, and what is not there yet."""
    host = service.get_host(page.session, page.tenant_id, name)
    policy: Any = host.policy
    retention = [
        ("keep_within", gettext("Keep all within")),
        ("keep_hourly", gettext("Keep hourly")),
        ("keep_daily", gettext("Keep daily")),
        ("keep_weekly", gettext("Keep weekly")),
        ("keep_monthly", gettext("Keep monthly")),
        ("keep_yearly", gettext("Keep yearly")),
    ]
    overrides = policy.overrides if policy else {}
    return _tab(
        page,
        host,
        "policy",
        policy=policy,
        effective=fleet.effective(page.session, host),
        own=policy.name if policy and host.own_policy_id == policy.id else "",
        policies=queries.policies(page.session, page.tenant_id),
        places={str(row.id): row.server or row.path for row in _repositories(page, host)},
        retention_words=retention,
        overrides=json.dumps(overrides, indent=2) if overrides else "",
    )


def _repositories(page: View, host: Host) -> Sequence[Any]:
    return repositories.list_repositories(page.session, page.tenant_id, host=str(host.id), limit=10)


@router.post("/hosts/{name}/policy")
def choose_policy(page: Writer, name: str, policy: Annotated[str, Form(max_length=100)] = "") -> Response:
    """Give a host a policy of its own choice, or let it follow its groups and the default."""
    host = service.get_host(page.session, page.tenant_id, name)
    chosen = policies.get_policy(page.session, page.tenant_id, policy) if policy else None
    policies.assign(page.session, host, chosen)
    describe(page.session, f"host:{host.name}", policy=chosen.name if chosen else None)
    return redirect(f"/hosts/{host.name}/policy", "saved")
