"""How long the sweep for alerts takes over a large fleet: in peace, in an outage, and when one begins.

All rules are judged, over hosts with the facts and the heartbeat of a real one, and a repository each.
"""

import argparse
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

from saveos import migrations
from saveos.accounts import keys
from saveos.alerts import channels, rules, service
from saveos.alerts.schemas import ChannelIn
from saveos.core.clock import now
from saveos.core.database import Database, write_lock
from saveos.hosts.models import Host
from saveos.repositories import rules as repository_rules
from saveos.repositories.models import Repository
from sqlalchemy import update

from bench.common import Table, timed

ROUNDS = 7
FAMILIES = (*rules.FAMILIES, *repository_rules.FAMILIES)
FACTS = {
    "health": {"findings": [], "units": {f"unit{number}": "active" for number in range(30)}},
    "os": "x" * 1500,
}
HEARTBEAT = {
    "disks": [{"path": "/srv", "free": 5, "total": 10}],
    "versions": {"borg": "1.4.5"},
    "more": "x" * 600,
}


def flags(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's flags."""
    parser.add_argument("--sweep-hosts", type=int, default=10_000, help="hosts in the table")


def run(options: argparse.Namespace) -> Table:
    """Sweep a database on disk, as the worker does, commits included."""
    table = Table(
        f"Sweep for alerts over {options.sweep_hosts} hosts, on SQLite",
        ("hosts that are", "best", "worst"),
        "Aim: under 200 ms.",
    )
    with tempfile.TemporaryDirectory(prefix="saveos-bench-") as folder:
        database = Database(f"sqlite:///{Path(folder) / 'bench.db'}", b"k" * 32)
        migrations.upgrade(database)
        fill(database, options.sweep_hosts)
        at = now()
        measure(table, "all well", database, at)
        set_due(database, at - timedelta(hours=1), "h000%")
        measure(table, "1 % newly late", database, at, rounds=1)
        measure(table, "1 % late", database, at)
        set_due(database, at - timedelta(hours=1))
        measure(table, "99 % newly late", database, at, rounds=5)
        measure(table, "all late", database, at)
        set_due(database, at + timedelta(days=1))
        measure(table, "all newly well", database, at, rounds=5)
        shrink(database, 0.02, "h000%")
        measure(table, "1 % newly short of space", database, at, rounds=1)
        measure(table, "1 % short of space", database, at)
        database.close()
    return table


def fill(database: Database, hosts: int) -> None:
    """Add hosts that are well, and a channel that is told everything."""
    at = now()
    facts = {
        "facts": FACTS,
        "heartbeat": HEARTBEAT,
        "disk_free_share": 0.5,
        "clock_skew": 0.2,
        "heartbeat_at": at,
    }
    times = {"seen_at": at, "last_run_at": at, "last_backup_at": at, "due_at": at + timedelta(hours=30)}
    with database.session() as session:
        tenant = keys.make_tenant(session, "bench").id
        fleet = [
            Host(tenant_id=tenant, name=f"h{number:05}", address="x", state="enrolled", **times, **facts)
            for number in range(hosts)
        ]
        session.add_all(fleet)
        session.flush()
        seen = {"size": 10**9, "quota": "100G", "quota_bytes": 10**11, "last_commit_at": at, "checked_at": at}
        session.add_all(
            Repository(tenant_id=tenant, host_id=host.id, server_id=fleet[0].id, initialised_at=at, **seen)
            for host in fleet
        )
        channels.create_channel(session, tenant, ChannelIn(name="ops", url="https://hooks.example.net/x"))


def set_due(database: Database, due_at: datetime, names: str = "%") -> None:
    """Set when the next backup of hosts is due."""
    with database.session() as session:
        session.execute(update(Host).where(Host.name.like(names)).values(due_at=due_at))


def shrink(database: Database, share: float, names: str) -> None:
    """Set how much space hosts have left."""
    with database.session() as session:
        session.execute(update(Host).where(Host.name.like(names)).values(disk_free_share=share))


def measure(table: Table, what: str, database: Database, at: datetime, rounds: int = ROUNDS) -> None:
    """Sweep so many times and add a row."""
    times = [timed(lambda: sweep(database, at)) * 1000 for _ in range(rounds)]
    table.add(what, f"{min(times):.0f} ms", f"{max(times):.0f} ms")


def sweep(database: Database, at: datetime) -> None:
    """Sweep once, in a transaction of its own."""
    with database.session() as session:
        write_lock(session)
        service.sweep(session, at, FAMILIES)
