"""How long lists of hosts take in a large fleet: the dashboard's page and the API's, one after the other."""

import argparse
import contextlib
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import httpx
import saveos.app  # noqa: F401 - all tables
from saveos.accounts.models import Tenant
from saveos.core.clock import now
from saveos.core.database import Database, new_id
from saveos.core.security import load_kek
from saveos.hosts.models import Group, GroupMember, Host
from saveos.policies.service import default_policy
from saveos.repositories.models import Repository
from sqlalchemy import insert, select

from bench.checkins import Server
from bench.common import Table

PASSWORD = "correct horse battery staple"
PAGES = {
    "page": "/hosts",
    "page of one group": "/hosts?group=g3",
    "page of those that are late": "/hosts?protection=late",
    "page with a word searched": "/hosts?q=h0777",
    "API list": "/api/v1/hosts",
    "API list, 500 a page": "/api/v1/hosts?limit=500",
    "API list of those that are late": "/api/v1/hosts?protection=late",
    "API list with a tag": "/api/v1/hosts?tag=t5",
    "overview": "/",
}


def flags(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's flags."""
    parser.add_argument("--page-hosts", type=int, default=10_000, help="hosts in the table")
    parser.add_argument("--page-requests", type=int, default=60, help="requests of each page")


def run(options: argparse.Namespace) -> Table:
    """Ask for each page so many times."""
    table = Table(
        f"Lists of {options.page_hosts} hosts, on SQLite",
        ("what", "median", "p95", "worst", "bytes", "load"),
        "Aim: page and API list p95 under 50 ms.",
    )
    with tempfile.TemporaryDirectory(prefix="saveos-bench-") as folder:
        place = Server(Path(folder) / "home")
        place.start(SAVEOS_TLS="off")
        try:
            fill(place, options.page_hosts)
            with contextlib.closing(logged_in(place)) as person:
                for what, path in PAGES.items():
                    measure(table, what, person, path, options.page_requests)
                later = person.get("/api/v1/hosts?limit=500").json()["next"]
                measure(
                    table,
                    "API list, a later page",
                    person,
                    f"/api/v1/hosts?cursor={later}",
                    options.page_requests,
                )
        finally:
            place.stop()
    return table


def measure(table: Table, what: str, person: httpx.Client, path: str, count: int) -> None:
    """Ask `count` times and add a row."""
    times, size = [], 0
    for _ in range(count + 3):
        began = time.perf_counter()
        answer = person.get(path)
        times.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200, answer.text[:500]
        size = len(answer.content)
    ordered = sorted(times[3:])  # the first ones fill caches
    at = [ordered[int(len(ordered) * share)] for share in (0.5, 0.95)]
    table.add(what, *(f"{ms:.0f} ms" for ms in (*at, ordered[-1])), size, f"{os.getloadavg()[0]:.1f}")


def logged_in(place: Server) -> httpx.Client:
    """Log in as a person, with the one-time password changed."""
    person = httpx.Client(base_url=place.url, headers={"Origin": place.url}, trust_env=False, timeout=30)
    once = (place.home / "admin-password").read_text().strip()
    for path, body in (
        ("login", {"name": "admin", "password": once}),
        ("password", {"current": once, "new": PASSWORD}),
        ("login", {"name": "admin", "password": PASSWORD}),
    ):
        person.post(f"/api/v1/auth/{path}", json=body).raise_for_status()
    return person


def fill(place: Server, hosts: int) -> None:
    """Write a fleet: most hosts are well, some late or silent, in ten groups, with tags and repositories."""
    database = Database(f"sqlite:///{place.home / 'saveos.db'}", load_kek(place.home))
    at = now()
    with database.session(writes=True) as session:
        tenant_id = session.scalars(select(Tenant.id)).one()
        policy = default_policy(session, tenant_id)
        policy_id = policy.id if policy else None
        groups = [Group(tenant_id=tenant_id, name=f"g{number}") for number in range(10)]
        session.add_all(groups)
        session.flush()
        rows, members, repositories = [], [], []
        for number in range(hosts):
            host_id = new_id()
            late = at + timedelta(hours=-2 if number % 20 == 0 else 20)
            rows.append(
                {
                    "id": host_id,
                    "tenant_id": tenant_id,
                    "name": f"h{number:05}.example.net",
                    "address": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
                    "state": "enrolled",
                    "policy_id": policy_id,
                    "tags": [f"t{number % 7}", "linux"],
                    "os": "Debian GNU/Linux 12 (bookworm)",
                    "versions": {"agent": "0.1.0", "borg": "1.4.5", "borgmatic": "2.1.10"},
                    "facts": {
                        "init": "systemd",
                        "host_keys": [],
                        "health": {"state": "ok", "findings": [], "x": "y" * 3000},
                    },
                    "heartbeat": {
                        "disks": [{"path": "/", "total": 10**12, "free": 10**11}] * 3,
                        "load": [0, 0, 0],
                    },
                    "heartbeat_at": at if number % 50 else at - timedelta(hours=3),
                    "seen_at": at,
                    "last_run_state": "succeeded",
                    "last_run_at": at - timedelta(hours=4),
                    "last_backup_at": at - timedelta(hours=4),
                    "last_size": 10**9,
                    "due_at": late,
                }
            )
            members.append({"group_id": groups[number % 10].id, "host_id": host_id})
            path = {"kind": "local", "path": "/backup", "host_id": host_id, "tenant_id": tenant_id}
            repositories.append(path)
        session.execute(insert(Host), rows)
        session.execute(insert(GroupMember), members)
        session.execute(insert(Repository), repositories)
    database.close()
