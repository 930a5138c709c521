"""How many check-ins a second a controller takes over durably, and how long each waits for its answer.

With --url any server's address of pings is put under the same load, so that others can be measured in turn.
"""

import argparse
import contextlib
import json
import os
import sqlite3
import ssl
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import saveos.app  # noqa: F401 - all tables
from saveos.accounts.models import Tenant
from saveos.accounts.service import set_agent_token
from saveos.core.clock import now
from saveos.core.database import Database
from saveos.core.security import load_kek, new_token, token_hash
from saveos.hosts.models import Host
from saveos.policies.service import default_policy
from saveos.repositories.models import Repository
from serving import BIN, free_port, until
from sqlalchemy import select

from bench.common import Table
from bench.load import Load, NextRequest, Seen, put_under, request

COLUMNS = (
    "what",
    "answers/s",
    "p50",
    "p99",
    "worst",
    "other answers",
    "CPU of an answer",
    "in the database",
    "load",
)


def flags(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's flags."""
    parser.add_argument("--url", help="address of another server's pings; without it a controller is started")
    parser.add_argument("--method", default="GET", help="method of its pings")
    parser.add_argument("--body", default="", help="body of its pings")
    parser.add_argument(
        "--header", action="append", default=[], metavar="NAME=VALUE", help="header of its pings"
    )
    parser.add_argument("--checkin-hosts", type=int, default=1000, help="hosts that check in")
    parser.add_argument("--connections", type=int, default=16, help="connections that ask at the same time")
    parser.add_argument("--processes", type=int, default=2, help="processes of load")
    parser.add_argument("--load-seconds", type=float, default=10, help="length of each load")
    parser.add_argument("--rounds", type=int, default=3, help="times that each load is put on")


def run(options: argparse.Namespace) -> Table:
    """Put loads on one after the other; one row each time."""
    aim = "Aim: 700 check-ins a second, p99 under 200 ms, at 16 connections, each acknowledged one durable."
    title = f"Check-ins at {options.connections} connections from {options.processes} processes"
    table = Table(title, COLUMNS, aim)
    if options.url:
        for _ in range(options.rounds):
            add(
                table, f"{options.method} {options.url}", put_under(_load(options, options.url, _ping(options)))
            )
        return table
    with tempfile.TemporaryDirectory(prefix="saveos-bench-") as folder:
        place = Server(Path(folder) / "home")
        place.start(SAVEOS_TLS="off")
        try:
            place.fill(options.checkin_hosts)
            measure(table, options, place)
        finally:
            place.stop()
        place.start(SAVEOS_TLS="on")
        try:
            measure_tls(table, options, place)
        finally:
            place.stop()
    return table


def measure(table: Table, options: argparse.Namespace, place: "Server") -> None:
    """Measure over plain HTTP with kept connections, as other servers are measured."""
    for what, requests in (("check-in of a backup", place.checkins), ("heartbeat", place.heartbeats)):
        put_under(_load(options, place.url, requests, seconds=1))  # warm
        for _ in range(options.rounds):
            before = place.runs()
            used = place.cpu()
            seen = put_under(_load(options, place.url, requests))
            used = (place.cpu() - used) / len(seen.times)
            stored = f"{place.runs() - before} of {seen.statuses[200]}" if requests == place.checkins else ""
            add(table, what, seen, f"{used * 1000:.2f} ms", stored)


def measure_tls(table: Table, options: argparse.Namespace, place: "Server") -> None:
    """Measure over TLS: with kept connections, and with a new one for each request, as agents make them."""
    trust = ssl.create_default_context(cafile=place.home / "tls" / "ca.pem")
    for _ in range(options.rounds):
        kept = _load(options, place.url, place.checkins, tls=trust)
        add(table, "check-in over TLS", put_under(kept))
    for _ in range(options.rounds):
        new = _load(options, place.url, place.heartbeats, tls=trust, reconnect=True)
        add(table, "heartbeat, a new TLS connection each", put_under(new))


def _load(options: argparse.Namespace, url: str, requests: Callable[[int], NextRequest], **more: Any) -> Load:
    sizes = {"connections": options.connections, "processes": options.processes}
    return Load(url, requests, **{**sizes, "seconds": options.load_seconds, **more})


def _ping(options: argparse.Namespace) -> Callable[[int], NextRequest]:
    headers = dict(header.split("=", 1) for header in options.header)
    data = request(options.method, options.url, options.body.encode(), **headers)
    return lambda _: lambda: data


def add(table: Table, what: str, seen: Seen, used: str = "", stored: str = "") -> None:
    """Add a row of what was seen."""
    bad = {status: count for status, count in seen.statuses.items() if not 200 <= status < 300}
    figures = [f"{seen.quantile(share):.0f} ms" for share in (0.5, 0.99, 1)]
    table.add(what, f"{seen.rate:.0f}", *figures, bad or "none", used, stored, f"{os.getloadavg()[0]:.1f}")


@dataclass
class Teller:
    """One host of the bench: its token and its repository."""

    token: str
    repository_id: uuid.UUID


class Server:
    """`saveos serve` in one process on SQLite, with hosts in its table."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tellers: list[Teller] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self, **settings: str) -> None:
        """Start it and wait until it answers."""
        scheme = "https" if settings.get("SAVEOS_TLS") == "on" else "http"
        listen = f"127.0.0.1:{free_port('127.0.0.1')}"
        self.url = f"{scheme}://{listen}"
        bare = {name: value for name, value in os.environ.items() if not name.startswith("SAVEOS_")}
        environment = bare | {"SAVEOS_HOME": str(self.home), "SAVEOS_LISTEN": listen, **settings}
        with self.home.with_name("log").open("ab") as log:
            self.process = subprocess.Popen([BIN / "saveos", "serve"], env=environment, stdout=log, stderr=log)
        until(self.answers, 30, f"an answer of the controller; its log: {self.home.with_name('log')}")

    def answers(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health", verify=False, trust_env=False).is_success
        return False

    def stop(self) -> None:
        """End it."""
        if self.process:
            self.process.terminate()
            self.process.wait(30)

    def fill(self, hosts: int) -> None:
        """Write hosts with repositories and tokens into the database."""
        database = Database(f"sqlite:///{self.home / 'saveos.db'}", load_kek(self.home))
        with database.session(writes=True) as session:
            tenant_id = session.scalars(select(Tenant.id)).one()
            policy = default_policy(session, tenant_id)
            for number in range(hosts):
                host = Host(tenant_id=tenant_id, name=f"h{number:05}", address="x", state="enrolled")
                host.policy_id = policy.id if policy else None
                session.add(host)
                session.flush()
                repository = Repository(tenant_id=tenant_id, host_id=host.id, kind="local", path="/backup")
                session.add(repository)
                token = new_token("agent")
                set_agent_token(session, tenant_id, host.id, host.name, token_hash(token))
                session.flush()
                self.tellers.append(Teller(token, repository.id))
        database.close()

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        fields = (
            Path(f"/proc/{self.process.pid if self.process else 0}/stat").read_text().rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def runs(self) -> int:
        """How many runs are stored."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.home / 'saveos.db'}?mode=ro", uri=True)
        ) as database:
            return int(database.execute("select count(*) from runs").fetchone()[0])

    def checkins(self, number: int) -> NextRequest:
        """Requests that tell of a new backup each, by one host after the other."""
        return self._in_turn(number, "checkins", lambda teller: {"runs": [record(teller)]})

    def heartbeats(self, number: int) -> NextRequest:
        """Heartbeats, by one host after the other."""
        return self._in_turn(number, "heartbeat", lambda _: heartbeat())

    def _in_turn(self, number: int, path: str, make: Callable[[Teller], dict[str, Any]]) -> NextRequest:
        """Make each host's request once; later only the run's id in it is made anew."""
        url = f"{self.url}/api/v1/agents/{path}"
        made = [
            (f"Bearer {teller.token}", json.dumps(make(teller)).encode().partition(PLACE.encode()))
            for teller in self.tellers
        ]

        def requests() -> Iterator[bytes]:
            turn = number * 37
            while True:
                turn += 1
                authorization, (head, place, tail) = made[turn % len(made)]
                body = head + (str(uuid.uuid4()).encode() if place else b"") + tail
                yield request("POST", url, body, Authorization=authorization, Content_Type="application/json")

        return requests().__next__


PLACE = "00000000-0000-4000-8000-000000000000"


def record(teller: Teller) -> dict[str, Any]:
    """A backup's record as an agent makes it, with PLACE for its id."""
    began, ended = ((now() - timedelta(minutes=m)).isoformat() for m in (2, 1))
    sizes = {
        "nfiles": 50_046,
        "original_size": 922_000_000,
        "compressed_size": 5 * 10**8,
        "deduplicated_size": 10**6,
    }
    times = {"started_at": began, "finished_at": ended}
    archive = {"id": uuid.uuid4().hex * 2, "name": "h-2026-07-30T02:00:00", "duration": 60.1, **times, **sizes}
    result = {
        "repository_id": str(teller.repository_id),
        "state": "succeeded",
        "exit_code": 0,
        "archive": archive,
    }
    line = "/etc/saveos/borgmatic/x.yaml: Creating archive, files cache and chunks are in sync\n"
    return {
        "schema": 1,
        "run_id": PLACE,
        "kind": "backup",
        "trigger": "timer",
        "job_id": None,
        "state": "succeeded",
        **times,
        "results": [result | {"error": None, "warnings": []}],
        "error": None,
        "log_tail": line * 20,
        "versions": {"agent": "0.1.0", "borg": "1.4.5", "borgmatic": "2.1.10"},
        "restore": None,
    }


def heartbeat() -> dict[str, Any]:
    """A heartbeat as an agent makes it."""
    disks = [
        {"path": path, "total": 10**12, "free": 10**11, "inodes": 10**8, "inodes_free": 10**7} for path in "/ab"
    ]
    return {
        "at": now().isoformat(),
        "versions": {"agent": "0.1.0", "borg": "1.4.5", "borgmatic": "2.1.10"},
        "os": "Debian GNU/Linux 12 (bookworm)",
        "init": "systemd",
        "boot_time": now().isoformat(),
        "disks": disks,
        "load": [0.1, 0.2, 0.3],
        "memory": {"total": 2**34, "available": 2**33},
        "clock_synchronised": True,
        "next_run_at": now().isoformat(),
        "spool": 0,
    }
