"""Protection: the sentence in Python and the expression in SQL say the same."""

import itertools
from datetime import timedelta

import pytest
from saveos.core.clock import now
from saveos.core.errors import Invalid
from saveos.hosts.models import Host
from saveos.hosts.service import count_protection, find_hosts, protection, protection_sql, record_backup
from sqlalchemy import select

AT = now().replace(microsecond=0)


def hours(number):
    return None if number is None else AT + timedelta(hours=number)


def test_python_and_sql_agree_on_every_combination(session, tenant_id):
    cases = itertools.product(
        (True, False),
        ("pending", "enrolled", "paused", "decommissioned"),
        ("", "succeeded", "failed", "canceled"),
        (None, -50),
        (None, -30, -24, -1, 0, 5),
        (None, -40, -2),
        (None, -2, -0.5),
    )
    for n, (agent, state, run, backup, due, seen, beat) in enumerate(cases):
        session.add(
            Host(
                tenant_id=tenant_id,
                name=f"h{n}",
                address="h",
                is_agent=agent,
                state=state,
                last_run_state=run,
                last_backup_at=hours(backup),
                due_at=hours(due),
                seen_at=hours(seen),
                heartbeat_at=hours(beat),
            )
        )
    session.flush()
    rows = session.execute(select(Host, protection_sql(AT))).all()
    assert len(rows) == 2 * 4 * 4 * 2 * 6 * 3 * 3
    assert [(host.name, protection(host, AT)) for host, _ in rows] == [(host.name, sql) for host, sql in rows]
    assert {sql for _, sql in rows} == {"none", "silent", "failing", "never", "late", "protected"}
    assert sum(count_protection(session, tenant_id).values()) == len(rows) * 3 // 4


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"last_backup_at": -1, "due_at": 5, "last_run_state": "warning"}, "protected"),
        ({"last_backup_at": -30, "due_at": -1, "seen_at": -30}, "late"),
        ({"last_backup_at": -60, "due_at": -30, "seen_at": -60}, "silent"),
        ({"last_backup_at": -60, "due_at": -30, "seen_at": -1}, "late"),
        ({"last_backup_at": -5, "due_at": 5, "last_run_state": "failed"}, "failing"),
        ({"last_backup_at": -1, "due_at": 5, "heartbeat_at": -2}, "silent"),
        ({"last_backup_at": -1, "due_at": 5, "heartbeat_at": -0.9}, "protected"),
        ({}, "never"),
        ({"state": "paused", "due_at": -100}, "none"),
    ],
)
def test_what_people_read(values, expected):
    times = {key: hours(value) if isinstance(value, int | float) else value for key, value in values.items()}
    host = Host(**{"name": "h", "is_agent": True, "state": "enrolled", "last_run_state": ""} | times)
    assert protection(host, AT) == expected


def test_an_older_run_changes_nothing():
    host = Host(name="h")
    due = AT + timedelta(days=1)
    record_backup(host, state="succeeded", finished_at=AT, size=10, succeeded=True, due_at=due)
    older = AT - timedelta(hours=1)
    record_backup(host, state="failed", finished_at=older, size=None, succeeded=False, due_at=None)
    record_backup(host, state="succeeded", finished_at=older, size=5, succeeded=True, due_at=AT)
    assert (host.last_run_state, host.last_backup_at, host.last_size, host.due_at) == ("succeeded", AT, 10, due)


def test_find_hosts_takes_ids_and_names_and_names_what_is_unknown(session, tenant_id):
    hosts = [Host(tenant_id=tenant_id, name=f"w{n}", address="w") for n in range(3)]
    session.add_all(hosts)
    session.flush()
    found = find_hosts(session, tenant_id, ["W2", str(hosts[0].id), "w0", hosts[1].id.hex], "hosts")
    assert [host.name for host in found] == ["w0", "w1", "w2"]
    hosts[1].state = "decommissioned"
    session.flush()
    with pytest.raises(Invalid, match="no host nope, w1") as caught:
        find_hosts(session, tenant_id, ["w0", "nope", "w1"], "targets.hosts")
    assert caught.value.field == "targets.hosts"
