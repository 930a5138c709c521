"""How long a sweep over 10,000 hosts takes: all well, 1 % late, a lasting outage, and all at once.

.venv/bin/python bench/alerts_sweep.py
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from saveos import migrations
from saveos.accounts import keys
from saveos.alerts import channels, service
from saveos.alerts.schemas import ChannelIn
from saveos.core.clock import now
from saveos.core.database import Database, write_lock
from saveos.hosts.models import Host
from sqlalchemy import update

HOSTS = 10_000
ROUNDS = 7


def main() -> None:
    """Print a table of milliseconds, commit included."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'bench.db'}", b"k" * 32)
        migrations.upgrade(database)
        at = now()
        fill(database)
        print(f"sweep over {HOSTS} hosts, ms: best and median of {ROUNDS}")
        show("all well", lambda: sweep(database, at))
        late(database, "h000%")
        show("1 % fall late", lambda: sweep(database, at), times=1)
        show("1 % stay late", lambda: sweep(database, at))
        late(database, "h%")
        show("99 % fall late at once", lambda: sweep(database, at), times=1)
        show("all stay late", lambda: sweep(database, at))
        show("all noted as seen", lambda: sweep(database, at + timedelta(minutes=20)), times=1)
        with database.session() as session:
            session.execute(update(Host).values(due_at=at + timedelta(days=1)))
        show("all well again at once", lambda: sweep(database, at), times=1)
        database.close()


def fill(database: Database) -> None:
    """Add hosts that are well, and a channel that is told everything."""
    at = now()
    times = {"seen_at": at, "last_run_at": at, "last_backup_at": at, "due_at": at + timedelta(hours=30)}
    with database.session() as session:
        tenant = keys.make_tenant(session, "bench").id
        session.add_all(
            Host(tenant_id=tenant, name=f"h{number:05}", address="x", state="enrolled", **times)
            for number in range(HOSTS)
        )
        channels.create_channel(session, tenant, ChannelIn(name="ops", url="https://hooks.example.net/x"))


def late(database: Database, names: str) -> None:
    """Let the next backup of hosts be past due."""
    with database.session() as session:
        session.execute(update(Host).where(Host.name.like(names)).values(due_at=now() - timedelta(hours=1)))


def sweep(database: Database, at: datetime) -> None:
    """Sweep once, as the worker does."""
    with database.session() as session:
        write_lock(session)
        service.sweep(session, at)


def show(what: str, act: Callable[[], None], times: int = ROUNDS) -> None:
    """Measure and print one line."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        act()
        taken.append((time.perf_counter() - started) * 1000)
    print(f"{what:24} {min(taken):8.1f} {statistics.median(taken):8.1f}")


if __name__ == "__main__":
    main()
