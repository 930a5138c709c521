"""The sweep: which host raises which alert, once, and how it ends."""

import threading
from datetime import timedelta

import pytest
from saveos.accounts import keys
from saveos.alerts import channels, service
from saveos.alerts.models import Alert, Delivery
from saveos.core.clock import now
from saveos.hosts import groups
from saveos.hosts.models import Host
from saveos.hosts.service import protection
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

CONDITIONS = [
    ({}, None),
    ({"due_at": 1, "seen_at": 0}, "overdue"),
    ({"due_at": 0.1, "seen_at": None}, "overdue"),  # not yet long past due
    ({"due_at": 30, "seen_at": 40}, "silent"),
    ({"due_at": 30, "seen_at": None}, "silent"),
    ({"due_at": 30, "seen_at": 20}, "overdue"),  # it speaks, but backs nothing up
    ({"last_run_state": "failed"}, "failed"),
    ({"last_run_state": "failed", "due_at": 3, "seen_at": 1}, "failed"),
    ({"last_run_state": "failed", "last_backup_at": None, "due_at": None}, "failed"),
    ({"last_run_state": "canceled"}, None),
    ({"last_run_state": "warning"}, None),
    ({"last_run_state": "incomplete"}, "incomplete"),
    ({"last_run_state": "incomplete", "due_at": 1, "seen_at": 0}, "overdue"),
    (
        {"state": "pending", "seen_at": None, "last_backup_at": None, "due_at": None, "last_run_state": ""},
        "never_enrolled",
    ),
    (
        {"state": "pending", "created_at": 0.5, "last_backup_at": None, "due_at": None, "last_run_state": ""},
        None,
    ),
    ({"state": "pending", "is_agent": False, "is_storage_server": True, "due_at": None}, "never_enrolled"),
    ({"last_backup_at": None, "due_at": None, "last_run_state": ""}, "never_backed_up"),
    ({"last_backup_at": None, "due_at": None, "last_run_state": "", "created_at": 23}, None),
    (
        {"last_backup_at": None, "due_at": 1, "seen_at": 0, "last_run_state": "", "created_at": 3},
        "never_backed_up",
    ),
    ({"is_agent": False, "is_storage_server": True, "last_backup_at": None, "due_at": None}, None),
    ({"state": "paused", "due_at": 30, "seen_at": None, "last_run_state": "failed"}, None),
    ({"state": "decommissioned", "due_at": 30}, None),
]


@pytest.mark.parametrize(("facts", "rule"), CONDITIONS)
def test_which_condition_raises_which_alert(fleet, facts, rule):
    host_id = fleet.host("web1", **facts)
    assert fleet.sweep().opened == (rule is not None)
    alerts = fleet.alerts()
    assert [alert.rule for alert in alerts] == ([rule] if rule else [])
    if rule:
        (alert,) = alerts
        assert (alert.state, alert.count, alert.host_id, alert.object) == (
            "open",
            1,
            host_id,
            f"host:{host_id}",
        )
        assert "web1" in alert.summary
        assert alert.since < fleet.start


def test_an_alert_agrees_with_the_hosts_protection(fleet, session):
    names = {"silent": "silent", "failing": "failed", "late": "overdue"}
    for number, (facts, _) in enumerate(CONDITIONS):
        fleet.host(f"h{number}", **facts)
    fleet.sweep()
    found = {alert.host_id: alert.rule for alert in fleet.alerts()}
    for host in session.scalars(select(Host).where(Host.state == "enrolled")):
        kind = protection(host, fleet.start)
        wanted = (
            "incomplete" if host.last_run_state == "incomplete" and kind == "protected" else names.get(kind)
        )
        assert found.get(host.id) == wanted or kind == "never", (host.name, kind)


def test_a_lasting_cause_raises_one_alert(fleet):
    fleet.host("web1", due_at=1, seen_at=0)
    assert [fleet.sweep(minutes / 60).opened for minutes in range(5)] == [1, 0, 0, 0, 0]
    (alert,) = fleet.alerts()
    assert alert.count == 1
    assert alert.last_seen == alert.first_seen == fleet.start  # not written at each sweep
    fleet.sweep(0.5)
    assert fleet.alerts()[0].last_seen == fleet.start + timedelta(hours=0.5)


def test_further_failed_runs_count_and_are_told_once(fleet):
    host = fleet.host("web1", last_run_state="failed")
    fleet.channel()
    fleet.sweep()
    for hours in (4, 3, 2):
        fleet.change(host, last_run_at=hours)
        fleet.sweep()
        fleet.sweep()
    (alert,) = fleet.alerts()
    assert (alert.count, len(fleet.queued())) == (4, 1)


def test_an_alert_resolves_by_itself_and_says_so_and_the_next_is_a_new_one(fleet):
    fleet.channel()
    host = fleet.host("web1", due_at=1, seen_at=0)
    fleet.sweep()
    fleet.change(host, last_backup_at=0, due_at=-24)
    assert fleet.sweep() == service.Swept(resolved=1)
    assert fleet.sweep() == service.Swept()
    assert fleet.alerts()[0].resolved_at == fleet.start
    fleet.change(host, due_at=1)
    assert fleet.sweep() == service.Swept(opened=1)
    assert [alert.state for alert in fleet.alerts()] == ["resolved", "open"]
    assert [(told.kind, told.title) for told in fleet.queued()] == [
        ("opened", "SaveOS: web1: backup overdue"),
        ("resolved", "SaveOS: resolved: web1: backup overdue"),
        ("opened", "SaveOS: web1: backup overdue"),
    ]
    assert "well again" in fleet.queued()[1].body


def test_overdue_that_falls_silent_is_told_as_silent_not_as_resolved(fleet):
    fleet.channel()
    fleet.host("web1", due_at=1, seen_at=5)
    fleet.sweep()
    fleet.sweep(25)
    assert [(alert.rule, alert.state) for alert in fleet.alerts()] == [
        ("overdue", "resolved"),
        ("silent", "open"),
    ]
    assert [told.title for told in fleet.queued()] == [
        "SaveOS: web1: backup overdue",
        "SaveOS: web1: agent silent",
    ]
    assert fleet.alerts()[1].severity == "critical"


def test_a_paused_host_is_said_to_be_watched_no_more(fleet):
    fleet.channel()
    host = fleet.host("web1", due_at=1)
    fleet.sweep()
    fleet.change(host, state="paused")
    fleet.sweep()
    assert "not watched" in fleet.queued()[1].body


def test_a_mute_ends_and_the_alert_opens_again(fleet, database):
    fleet.channel()
    fleet.host("web1", due_at=1, seen_at=0)
    fleet.sweep()
    with database.session() as session:
        service.mute(session, fleet.tenant_id, fleet.alerts()[0].id, now() + timedelta(hours=2))
    assert fleet.sweep(1) == service.Swept()
    assert fleet.alerts()[0].state == "muted"
    assert fleet.sweep(2.1) == service.Swept(reopened=1)
    assert (fleet.alerts()[0].state, fleet.alerts()[0].muted_until) == ("open", None)
    assert fleet.queued()[-1].title == "SaveOS: reopened: web1: backup overdue"


def test_a_muted_alert_resolves_silently(fleet, database):
    fleet.channel()
    host = fleet.host("web1", due_at=1, seen_at=0)
    fleet.sweep()
    with database.session() as session:
        service.mute(session, fleet.tenant_id, fleet.alerts()[0].id, now() + timedelta(hours=2))
    fleet.change(host, due_at=-20)
    fleet.sweep()
    assert fleet.alerts()[0].state == "resolved"
    assert [told.kind for told in fleet.queued()] == ["opened"]


def test_a_muted_host_stays_muted_when_it_falls_silent(fleet, database):
    fleet.channel()
    fleet.host("web1", due_at=1, seen_at=5)
    fleet.sweep()
    with database.session() as session:
        service.mute(session, fleet.tenant_id, fleet.alerts()[0].id, now() + timedelta(hours=48))
    assert fleet.sweep(25).opened == 0
    assert [(alert.rule, alert.state) for alert in fleet.alerts()] == [
        ("overdue", "resolved"),
        ("silent", "muted"),
    ]
    assert fleet.sweep(49).reopened == 1
    assert [told.kind for told in fleet.queued()] == ["opened", "reopened"]


def test_sweeps_at_once_open_one_alert(fleet, database):
    for number in range(50):
        fleet.host(f"h{number}", due_at=1, seen_at=0)
    opened: list[int] = []
    threads = [threading.Thread(target=lambda: opened.append(fleet.sweep().opened)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(opened) == 50
    assert len(fleet.alerts()) == 50


def test_the_database_refuses_a_second_open_alert_of_one_cause(fleet, database):
    fleet.host("web1", due_at=1, seen_at=0)
    fleet.sweep()
    first = fleet.alerts()[0]
    copy = {name: getattr(first, name) for name in first.__mapper__.columns.keys() if name != "id"}  # noqa: SIM118
    with pytest.raises(IntegrityError), database.session() as session:
        session.add(type(first)(**copy))


def test_many_changes_take_several_transactions(fleet, monkeypatch):
    monkeypatch.setattr("saveos.alerts.sweep.BATCH", 10)
    channel = fleet.channel()
    hosts = [fleet.host(f"h{number:02}", due_at=1, seen_at=0) for number in range(25)]
    swept = [fleet.sweep() for _ in range(4)]
    assert [(each.opened, each.more) for each in swept] == [(10, True), (10, True), (5, False), (0, False)]
    for host in hosts:
        fleet.change(host, due_at=-20)
    assert [fleet.sweep().resolved for _ in range(4)] == [10, 10, 5, 0]
    kinds = [told.kind for told in fleet.queued(channel)]
    assert kinds == ["digest"] * 2 + ["opened"] * 5 + ["digest"] * 2 + ["resolved"] * 5
    digest = fleet.queued(channel)[0]
    assert digest.title == "SaveOS: 10 backup overdue"
    assert len(digest.body.splitlines()) == 10


def test_each_tenant_has_its_own(fleet, database):
    with database.session() as session:
        other = keys.make_tenant(session, "other").id
        session.add(
            Host(tenant_id=other, name="web1", address="x", state="enrolled", due_at=now() - timedelta(hours=1))
        )
    fleet.channel()
    assert fleet.sweep().opened == 1
    assert fleet.alerts() == fleet.queued() == []
    with database.session() as session:
        assert len(service.list_alerts(session, other, limit=5)) == 1


def test_the_number_of_statements_does_not_grow_with_the_fleet(fleet, statements):
    with fleet.database.session() as session:
        groups.create_group(session, fleet.tenant_id, "web")
    fleet.channel(groups=["web"])
    counts = []
    for size in (3, 200):
        for number in range(size):
            fleet.host(f"h{size}-{number}", due_at=1, seen_at=0)
        before = len(statements())
        assert fleet.sweep().opened == size
        counts.append(len(statements()) - before)
    before = len(statements())
    fleet.sweep()
    assert counts[1] - counts[0] <= 1  # one more batch of rows
    assert len(statements()) - before <= 32  # two for each family, and what all share


def test_what_changed_is_told_to_the_feed(fleet, database):
    told = []
    database.after_commit.append(told.append)
    fleet.host("web1", due_at=1, seen_at=0)
    fleet.sweep()
    fleet.sweep()
    assert [topic for topics in told for _, topic in topics] == ["alerts"]


def test_what_stays_open_is_told_again_once_a_week(fleet):
    ops, other = fleet.channel(), fleet.channel("phone", severities=["critical"])
    fleet.host("web1", due_at=1, seen_at=0)
    muted = fleet.host("web2", due_at=1, seen_at=0)
    fleet.sweep()
    with fleet.database.session() as session:
        (alert,) = [each for each in fleet.alerts() if each.host_id == muted]
        service.acknowledge(session, fleet.tenant_id, alert.id, "ana")

    def reminded(days_ago):
        with fleet.database.session() as session:
            then = now() - timedelta(days=days_ago)
            session.execute(update(Alert).values(first_seen=then))
            session.execute(update(Delivery).values(created_at=then))
            return channels.remind(session, now())

    assert [reminded(days) for days in (1, 6.9, 7.1)] == [0, 0, 1]
    assert fleet.queued(other) == [], "it is told of nothing of this"
    again = fleet.queued(ops)[-1]
    assert (again.kind, again.title) == ("reminder", "SaveOS: still open: 1 backup overdue")
    assert "web1" in again.body and "web2" not in again.body
    assert again.fields["event"] == "reminder"
    assert [reminded(days) for days in (6, 8)] == [0, 1], "a week has to pass"
