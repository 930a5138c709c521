"""Rules about disks, clocks, repositories and certificates: what opens them, what ends them, what they say."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from saveos.accounts import keys
from saveos.alerts import rules, service
from saveos.alerts.certificates import judge_certificates
from saveos.core import tls
from saveos.core.clock import now
from saveos.core.database import write_lock


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        ({"disk_free_share": 0.04}, "disk_full"),
        ({"disk_free_share": 0.09}, "disk_low"),
        ({"disk_free_share": 0.1}, None),
        ({"storage_free_share": 0.0, "disk_free_share": 0.5}, "disk_full"),
        ({"storage_free_share": 0.3, "disk_free_share": 0.08}, "disk_low"),
        ({"clock_skew": 61.0}, "clock"),
        ({"clock_skew": -3600.0}, "clock"),
        ({"clock_skew": 59.0}, None),
        ({"state": "paused", "clock_skew": 3600.0, "disk_free_share": 0.0}, None),
    ],
)
def test_facts_of_hosts(fleet: Any, facts: dict[str, Any], rule: str | None) -> None:
    fleet.host("web1", **facts)
    fleet.sweep()
    assert [(alert.rule, alert.severity) for alert in fleet.alerts()] == (
        [(rule, rules.RULES[rule].severity)] if rule else []
    )
    if rule:
        assert "web1" in fleet.alerts()[0].summary


def test_sentences_name_the_number_and_what_to_do(fleet: Any) -> None:
    fleet.host("web1", disk_free_share=0.031, clock_skew=-7300.0)
    fleet.host("vault", storage_free_share=0.08, disk_free_share=0.5)
    fleet.sweep()
    said = {alert.rule: alert.summary for alert in fleet.alerts()}
    assert said["disk_full"].startswith("A file system of web1 has 3.1 % left: free some")
    assert said["disk_low"].startswith("The file system of the repositories on vault has 8.0 % left")
    assert said["clock"].startswith("The clock of web1 is 122 minutes behind: let chrony")


def test_a_host_has_several_causes_at_once(fleet: Any) -> None:
    host = fleet.host("web1", due_at=1, seen_at=0, clock_skew=90.0, disk_free_share=0.01)
    fleet.sweep()
    assert {alert.rule for alert in fleet.alerts()} == {"overdue", "clock", "disk_full"}
    fleet.change(host, clock_skew=0.5)
    assert fleet.sweep().resolved == 1
    assert {alert.rule for alert in fleet.alerts("open")} == {"overdue", "disk_full"}


def test_a_disk_that_fills_up_is_told_at_each_step_and_does_not_flutter(fleet: Any) -> None:
    fleet.channel()
    host = fleet.host("web1", disk_free_share=0.09)
    steps = []
    for share in (0.09, 0.101, 0.09, 0.049, 0.055, 0.049, 0.2):
        fleet.change(host, disk_free_share=share)
        fleet.sweep()
        steps.append([alert.rule for alert in fleet.alerts("open")])
    assert steps == [["disk_low"]] * 3 + [["disk_full"]] * 3 + [[]]
    assert [(told.kind, told.title) for told in fleet.queued()] == [
        ("opened", "SaveOS: web1: disk filling up"),
        ("opened", "SaveOS: web1: disk nearly full"),
        ("resolved", "SaveOS: resolved: web1: disk nearly full"),
    ]
    assert "20.0 % left" in fleet.queued()[-1].body


def test_a_full_disk_that_gets_better_by_half_is_low(fleet: Any) -> None:
    host = fleet.host("web1", disk_free_share=0.04)
    fleet.sweep()
    fleet.change(host, disk_free_share=0.08)
    fleet.sweep()
    assert [alert.rule for alert in fleet.alerts("open")] == ["disk_low"]


def test_a_claim_that_its_server_never_saw_is_an_alert_of_its_host(fleet: Any) -> None:
    fleet.channel()
    host = fleet.host("web1")
    repository = fleet.repository(host, claimed_at=3, last_commit_at=50, missing_since=1)
    fleet.sweep()
    (alert,) = fleet.alerts()
    assert (alert.rule, alert.severity, alert.host_id) == ("mismatch", "critical", host)
    assert alert.object == f"repository:{repository}"
    assert alert.since == fleet.start - timedelta(hours=1)
    assert "its storage server vault never saw it: its last commit is of" in alert.summary
    fleet.change_repository(repository, missing_since=None)
    assert fleet.sweep() == service.Swept(resolved=1)
    assert fleet.queued()[-1].body == "The storage server of web1 has what the host tells of."


def test_damage_says_more_than_a_mismatch(fleet: Any) -> None:
    repository = fleet.repository(
        fleet.host("web1"), missing_since=1, fault="its directory is gone from /srv/saveos"
    )
    fleet.sweep()
    (alert,) = fleet.alerts()
    assert alert.rule == "repository_damaged"
    assert (
        alert.summary
        == "The repository of web1 on vault is not in order: its directory is gone from /srv/saveos."
    )
    fleet.change_repository(repository, fault="")
    fleet.sweep()
    assert [each.rule for each in fleet.alerts("open")] == ["mismatch"]


def test_a_quota_is_near_its_end(fleet: Any) -> None:
    repository = fleet.repository(fleet.host("web1"), quota="100G", quota_bytes=10**11, size=91 * 10**9)
    fleet.sweep()
    (alert,) = fleet.alerts()
    assert alert.rule == "quota"
    assert "uses 91 % of its quota 100G" in alert.summary
    fleet.change_repository(repository, size=89 * 10**9)
    assert fleet.sweep().resolved == 0  # within the slack
    fleet.change_repository(repository, quota_bytes=2 * 10**11)
    assert fleet.sweep().resolved == 1


def test_a_repository_that_its_host_leaves_out_is_told(fleet: Any) -> None:
    repository = fleet.repository(fleet.host("web1"), created_at=80)
    fleet.sweep()
    (alert,) = fleet.alerts()
    assert (alert.rule, alert.since) == ("left_out", fleet.start - timedelta(hours=80))
    assert "web1 backs up, but its repository on vault got no archive since" in alert.summary
    fleet.change_repository(repository, claimed_told_at=5)
    assert fleet.sweep() == service.Swept(resolved=1)


def test_a_repository_of_a_host_that_backs_up_rarely_is_not_left_out(fleet: Any) -> None:
    fleet.repository(fleet.host("web1", last_backup_at=100), created_at=500, claimed_told_at=100)
    assert fleet.sweep() == service.Swept()


def test_a_host_that_is_paused_for_long_is_told(fleet: Any) -> None:
    host = fleet.host("web1", state="paused", last_backup_at=24 * 31)
    fleet.host("web2", state="paused", last_backup_at=24 * 29)
    fleet.sweep()
    (alert,) = fleet.alerts()
    assert (alert.rule, alert.host_id) == ("paused_long", host)
    assert "web1 is paused, so nobody watches it" in alert.summary
    fleet.change(host, state="enrolled", last_backup_at=1)
    assert fleet.sweep() == service.Swept(resolved=1)


def test_nothing_is_judged_of_repositories_of_hosts_that_are_not_watched(fleet: Any) -> None:
    fleet.repository(fleet.host("web1", state="paused"), missing_since=1, fault="x", quota_bytes=1, size=5)
    assert fleet.sweep() == service.Swept()


def test_a_muted_repository_stays_muted_when_it_gets_worse(fleet: Any, database: Any) -> None:
    fleet.channel()
    repository = fleet.repository(fleet.host("web1"), missing_since=1)
    fleet.sweep()
    with database.session() as session:
        service.mute(session, fleet.tenant_id, fleet.alerts()[0].id, now() + timedelta(hours=48))
    fleet.change_repository(repository, fault="its directory is gone")
    fleet.sweep()
    assert [(alert.rule, alert.state) for alert in fleet.alerts()] == [
        ("mismatch", "resolved"),
        ("repository_damaged", "muted"),
    ]
    assert [told.kind for told in fleet.queued()] == ["opened"]


def test_a_host_whose_heartbeat_stops_is_silent_since_then(fleet: Any) -> None:
    fleet.host("web1", heartbeat_at=2, seen_at=2)  # its next backup is not due yet
    fleet.sweep()
    (alert,) = fleet.alerts()
    assert (alert.rule, alert.since) == ("silent", fleet.start - timedelta(hours=2))
    assert "was last heard of at" in alert.summary


# ---- the controller's certificates


def judge(database: Any, identity: Any, days: float) -> None:
    with database.session() as session:
        write_lock(session)
        judge_certificates(session, identity, now() + timedelta(days=days))


def test_a_certificate_that_is_not_renewed_is_told_once_to_every_tenant(
    fleet: Any, database: Any, tmp_path: Path
) -> None:
    with database.session() as session:
        other = keys.make_tenant(session, "other").id
    fleet.channel()
    identity = tls.ensure(tmp_path, ["controller.test"])
    judge(database, identity, 59)  # 31 days are left
    assert fleet.alerts() == []
    judge(database, identity, 75)
    judge(database, identity, 76)
    (alert,) = fleet.alerts()
    assert (alert.rule, alert.object, alert.count) == ("certificate", "controller", 1)
    assert f"ends on {identity.not_after:%Y-%m-%d} and was not renewed" in alert.summary
    with database.session() as session:
        assert len(service.list_alerts(session, other, limit=5)) == 1
    judge(database, tls.ensure(tmp_path, ["controller.test"], renew=True), 0)
    assert [(told.kind, told.title) for told in fleet.queued()] == [
        ("opened", "SaveOS: certificate near its end"),
        ("resolved", "SaveOS: resolved: certificate near its end"),
    ]


def test_the_ca_is_told_of_earlier(fleet: Any, database: Any) -> None:
    judge(database, SimpleNamespace(not_after=now() + timedelta(80), ca_not_after=now() + timedelta(85)), 0)
    (alert,) = fleet.alerts()
    assert "CA ends on" in alert.summary
