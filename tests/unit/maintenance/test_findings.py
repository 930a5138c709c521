"""Results of operations with findings: stored once, compared, resolved, listed, mended, alerted."""

import uuid
from typing import Any

import pytest
from pydantic import Field
from saveos.accounts.access import Actor
from saveos.alerts.models import Alert
from saveos.alerts.sweep import sweep
from saveos.core.errors import Conflict, Invalid
from saveos.core.inputs import RequestModel
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import findings, rules, service
from saveos.maintenance.models import Finding, MaintenanceLatest, MaintenanceResult
from saveos.maintenance.operations import OPERATIONS, Operation
from saveos.maintenance.parameters import Fixes
from saveos.maintenance.schemas import FindingFilter
from sqlalchemy import select


def found(kind: str, severity: str = "warning", subject: str = "", **more: Any) -> dict[str, Any]:
    return {"id": kind, "severity": severity, "subject": subject, "title": f"{kind} {subject}."} | more


@pytest.fixture
def tell(database: Any, tenant_id: uuid.UUID, add_host: Any) -> Any:
    """Return a function that tells a result of web1 as one job's; returns the job's id."""
    host = add_host("web1")

    def tell(
        *told: dict[str, Any],
        mode: str = "run",
        job: uuid.UUID | None = None,
        operation: str = "tidy",
        **more: Any,
    ) -> uuid.UUID:
        with database.session() as session:
            found = (
                Job(tenant_id=tenant_id, operation=operation, mode=mode)
                if job is None
                else session.get_one(Job, job)
            )
            session.add(found)
            session.flush()
            result = {operation: {"schema": 1, "state": "ok", "findings": list(told)} | more}
            row = JobHost(job_id=found.id, name="web1", host_id=host.id, result=result, state="ok")
            findings.record(session, found, row)
            return found.id

    tell.host = host  # type: ignore[attr-defined]
    return tell


@pytest.fixture
def now_open(database: Any) -> Any:
    def read() -> set[tuple[str, str, str]]:
        with database.session() as session:
            rows = session.scalars(select(Finding).where(Finding.resolved_at.is_(None)))
            return {(row.kind, row.subject, row.severity) for row in rows}

    return read


def latest(database: Any) -> MaintenanceLatest:
    with database.session() as session:
        return session.scalars(select(MaintenanceLatest)).one()


def test_telling_twice_keeps_one_result(tell: Any, database: Any, now_open: Any) -> None:
    job = tell(found("old-file", subject="/a"), summary={"bytes": 5})
    tell(found("old-file", subject="/a"), summary={"bytes": 5}, job=job)
    tell(found("old-file", subject="/a"), found("dead", "critical"), summary={"bytes": 6}, job=job)
    with database.session() as session:
        result = session.scalars(select(MaintenanceResult)).one()
    assert (result.state, result.critical, result.warning, result.summary) == ("critical", 1, 1, {"bytes": 6})
    assert now_open() == {("old-file", "/a", "warning"), ("dead", "", "critical")}
    assert latest(database).worst == "dead ."


def test_what_is_gone_is_resolved_and_comes_back_anew(tell: Any, database: Any, now_open: Any) -> None:
    tell(found("old-file", subject="/a"), found("old-file", subject="/b"))
    tell(found("old-file", subject="/b", severity="info"))
    assert now_open() == {("old-file", "/b", "info")}
    tell(found("old-file", subject="/a"), found("old-file", subject="/b"))
    with database.session() as session:
        rows = {row.subject: row for row in session.scalars(select(Finding))}
    assert len(rows) == 2
    assert rows["/a"].first_seen > rows["/b"].first_seen  # /b was open all the time


def test_a_run_that_did_not_look_resolves_nothing_else(tell: Any, now_open: Any) -> None:
    tell(found("dns-fails"), found("old-file"))
    tell(judged=["old-file"])
    assert now_open() == {("dns-fails", "", "warning")}


def test_mended_is_closed_by_a_run_and_open_in_a_check(tell: Any, database: Any, now_open: Any) -> None:
    tell(found("old-file", fixable=True, fixed=True), mode="check")
    assert now_open() == {("old-file", "", "warning")}
    assert latest(database).state == "warning"
    tell(found("old-file", fixable=True, fixed=True))
    assert now_open() == set()
    assert latest(database).state == "ok"


def test_last_hundred_results_are_kept(tell: Any, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "KEPT", 3)
    for number in range(5):
        tell(summary={"number": number})
    with database.session() as session:
        kept = session.scalars(select(MaintenanceResult).order_by(MaintenanceResult.id)).all()
    assert [each.summary["number"] for each in kept] == [2, 3, 4]


@pytest.mark.parametrize(
    "told",
    [
        {"findings": [found("no id!")]},
        {"findings": [found("x", "grave")]},
        {"findings": [found("x", title="y" * 501)]},
        {"findings": [found("x", evidence="a\x00b")]},
        {"findings": [found("x", str(n)) for n in range(1003)]},
        {"summary": {"x": "y" * 20_001}},
        {"findings": "none"},
    ],
)
def test_hostile_result_is_refused(tell: Any, told: Any, now_open: Any) -> None:
    with pytest.raises(Invalid, match="the host's answer cannot be used"):
        tell(**told)
    assert now_open() == set()


def test_comparison_says_what_is_new_gone_and_the_same() -> None:
    a, b, c = found("x", subject="1"), found("x", subject="2"), found("y")
    told = findings.compare([a, c], [a | {"severity": "info"}, b])
    assert told == {"new": [c], "gone": [b], "same": [a]}


def test_worst_findings_come_first_page_by_page(tell: Any, database: Any, tenant_id: uuid.UUID) -> None:
    tell(found("c", "info"), found("a", "critical"), found("b"), found("d", "critical"))
    seen: list[str] = []
    after = None
    for _ in range(3):
        with database.session() as session:
            page = findings.list_findings(session, tenant_id, after=after, limit=2)
        seen += [finding.severity for finding, _ in page]
        if page:
            after = (page[-1][0].rank, page[-1][0].id)
    assert seen == ["critical", "critical", "warning", "info"]
    with database.session() as session:
        one = findings.list_findings(session, tenant_id, severity="info", operation="tidy", limit=9)
        none = findings.list_findings(session, uuid.uuid4(), limit=9)
    assert [row.kind for row, _ in one] == ["c"]
    assert none == []


def test_open_critical_findings_are_one_alert(tell: Any, database: Any) -> None:
    tell(found("a", "critical"), found("b", "critical", "/etc/x"))
    with database.session(writes=True) as session:
        assert sweep(session, families=rules.FAMILIES).opened == 1
    with database.session() as session:
        alert = session.scalars(select(Alert)).one()
    assert (alert.rule, alert.severity, alert.host_id) == ("finding", "critical", tell.host.id)
    assert alert.summary == "tidy found on web1: a . (and 1 more)"
    tell(found("a"))
    with database.session(writes=True) as session:
        assert sweep(session, families=rules.FAMILIES).resolved == 1


def test_health_raises_an_alert_for_what_no_other_rule_tells(tell: Any, database: Any) -> None:
    def swept() -> tuple[int, int]:
        with database.session(writes=True) as session:
            did = sweep(session, families=rules.FAMILIES)
        return did.opened, did.resolved

    told_elsewhere = [found(kind, "critical") for kind in ("never-backed-up", "storage-disk-full", "borg-lock")]
    tell(*told_elsewhere, operation="health")
    assert swept() == (0, 0)
    tell(*told_elsewhere, found("timer-off", "critical"), found("unit-missing"), operation="health")
    assert swept() == (1, 0)
    with database.session() as session:
        alert = session.scalars(select(Alert)).one()
        first_seen = session.scalars(select(Finding.first_seen).where(Finding.kind == "timer-off")).one()
    assert alert.summary == "health found on web1: timer-off ." and alert.since == first_seen
    tell(*told_elsewhere, operation="health")
    assert swept() == (0, 1)


class TidyParameters(RequestModel):
    fix: Fixes = Field([])


def test_fix_makes_one_job_for_hosts_with_the_same_findings(
    tell: Any, database: Any, tenant_id: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidy = Operation(
        "tidy", "tidy.yml", "Tidy up", TidyParameters, supports_check=True,
        on_result=findings.record, fix_parameter="fix",
    )  # fmt: skip
    monkeypatch.setitem(OPERATIONS, "tidy", tidy)
    tell(found("old-file", subject="/a", fixable=True), found("dead", fix="Replace it."))
    actor = Actor(tenant_id, None, None, "ann", frozenset({"jobs:write"}), "")
    with database.session() as session:
        rows = {row.kind: row.id for row in session.scalars(select(Finding))}
        jobs = service.fix(session, actor, [rows["old-file"]], mode="check")
    assert [(job.operation, job.mode, job.parameters) for job in jobs] == [
        ("tidy", "check", {"fix": ["old-file:/a"]})
    ]
    with database.session() as session, pytest.raises(Invalid, match="cannot mend dead by itself: Replace it"):
        service.fix(session, actor, list(rows.values()))
    with database.session() as session, pytest.raises(Invalid, match="there is no finding"):
        service.fix(session, actor, [uuid.uuid4()])


def test_all_that_match_are_mended_but_no_more_than_were_confirmed(
    tell: Any, database: Any, tenant_id: uuid.UUID, add_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidy = Operation("tidy", "tidy.yml", "Tidy", TidyParameters, on_result=findings.record, fix_parameter="fix")
    monkeypatch.setitem(OPERATIONS, "tidy", tidy)
    paths = [found("old-file", subject=f"/{number}", fixable=True) for number in range(120)]
    tell(*paths, found("dead", "critical"), found("stale", "info", fixable=True))
    paused = add_host("web2", state="paused")
    with database.session() as session:
        job = Job(tenant_id=tenant_id, operation="tidy", mode="run")
        session.add(job)
        session.flush()
        result = {"tidy": {"schema": 1, "state": "ok", "findings": [found("old-file", fixable=True)]}}
        row = JobHost(job_id=job.id, name="web2", host_id=paused.id, result=result, state="ok")
        findings.record(session, job, row)
    actor = Actor(tenant_id, None, None, "ann", frozenset({"jobs:write"}), "")
    warnings = FindingFilter(operation="tidy", severity="warning")
    with database.session() as session:
        mendable, left_out = service.fixable(session, tenant_id, warnings)
        assert len(mendable) == 120 and [each.split()[0] for each in left_out] == ["web2"]
        assert len(service.fixable(session, tenant_id, FindingFilter())[0]) == 121
        assert service.fixable(session, uuid.uuid4(), FindingFilter()) == ([], [])
        with pytest.raises(Conflict, match="120 findings match by now, not 119"):
            service.fix_matching(session, actor, warnings, expected=119)
        with pytest.raises(Invalid, match="no finding that matches"):
            service.fix_matching(session, actor, FindingFilter(severity="critical"))
        (job,) = service.fix_matching(session, actor, warnings, expected=120)
        assert len(job.parameters["fix"]) == 120 and job.hosts_total == 1
        monkeypatch.setattr(service, "MOST_JOBS", 0)
        with pytest.raises(Invalid, match="this needs 1 jobs"):
            service.fix_matching(session, actor, warnings)
        monkeypatch.setattr(service, "MOST_FIXED", 100)
        with pytest.raises(Invalid, match="more than 100 findings"):
            service.fixable(session, tenant_id, warnings)
