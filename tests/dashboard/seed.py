"""Fill a database with a fleet that looks real. Also a program: seed.py HOME [HOSTS] makes an installation.

Deterministic: the same hosts, archives and jobs each time, relative to now.
"""

import json
import os
import random
import sys
import uuid
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from saveos.accounts.models import Tenant, User
from saveos.accounts.service import create_token, create_user, record
from saveos.alerts import channels
from saveos.alerts import service as alerts
from saveos.alerts.schemas import ChannelIn
from saveos.archives.models import Archive
from saveos.checkins.models import Run, RunningBackup
from saveos.core import security
from saveos.core.clock import now
from saveos.core.database import new_id
from saveos.core.security import hash_password
from saveos.enrolment.models import EnrolmentToken, Registration
from saveos.hosts.models import Group, GroupMember, Host
from saveos.jobs.models import Job, JobHost, JobLog
from saveos.policies import service as policies
from saveos.policies import versions
from saveos.policies.models import Policy
from saveos.policies.schemas import PolicyIn, PolicyPatch
from saveos.repositories.models import Approval, Check, Guard, GuardState, Repository, Sample
from saveos.restores.models import Restore
from saveos.schedules import service as schedules
from saveos.schedules.models import Schedule
from saveos.secrets.models import Escrow, RecoveryKey
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

PASSWORD = "correct horse battery"  # of the users marie (admin) and vera (viewer)
ROLES = ("web", "db", "mail", "app", "cache", "git", "ci", "dns", "file", "mon")
SITES = ("par1", "par2", "lyo1", "fra1", "ams2")
SYSTEMS = ("Debian 12", "Debian 13")
VERSIONS = {"agent": "0.1.0", "borg": "1.4.5", "borgmatic": "2.1.10"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB2Z0hdfT+9vT3k0n8rJrHcB3nq2gVt5gq6m1e0aXwqP"
TASKS = (
    "Check what the host offers",
    "Start the backup, or join the one that runs",
    "Wait for the run's record",
    "Report",
)


@dataclass
class Seeded:
    """What tests need to find again."""

    tenant_id: uuid.UUID
    host: str
    archive_id: uuid.UUID
    running_job: uuid.UUID
    failed_job: uuid.UUID
    provision_job: uuid.UUID
    policy_id: uuid.UUID | None = None  # of a policy with two versions that no host has
    schedule_id: uuid.UUID | None = None  # of one with a history
    channel_id: uuid.UUID | None = None
    repository_id: uuid.UUID | None = None  # of `host`, held by its guard
    used_policy_id: uuid.UUID | None = None  # of the policy that hosts have
    user_id: uuid.UUID | None = None  # of paula, who has a token


def seed(session: Session, count: int = 60) -> Seeded:
    """Add users, storage server, hosts with runs and archives, and jobs of every kind."""
    tenant_id = session.scalars(select(Tenant.id)).one()
    chance = random.Random(7)
    _users(session, tenant_id)
    policy = session.scalars(select(Policy)).first() or Policy(tenant_id=tenant_id, name="default")
    policy.sources, policy.is_default = ["/etc", "/home", "/srv"], True
    policy.excludes, policy.retention = ["/home/*/.cache"], {"keep_within": "7d", "keep_daily": 7}
    session.add(policy)
    session.flush()
    versions.keep(session, policy, by="marie", note="what the fleet has")
    store = _store(session, tenant_id)
    hosts = _hosts(session, tenant_id, policy, chance, count)
    _groups(session, tenant_id, hosts)
    repositories = _repositories(session, tenant_id, hosts, store)
    _recovery(session, tenant_id, repositories)
    archives = _history(session, tenant_id, hosts, repositories, chance, days=30 if count <= 500 else 14)
    session.flush()
    _heartbeats(session, tenant_id, hosts)
    _enrolment(session, tenant_id, hosts)
    _alerts(session, tenant_id)
    made = _jobs(session, tenant_id, hosts, archives, chance)
    _plans(session, made)
    made.used_policy_id = policy.id
    made.user_id = _acts(session, tenant_id, made)
    held = next(host["id"] for host in hosts if host["name"] == made.host)
    made.repository_id = _guards(session, tenant_id, store, repositories, repositories[held])
    return made


def _plans(session: Session, made: Seeded) -> None:
    """A policy with versions, a schedule with every outcome in its history, a channel that does not deliver."""
    dumps = [
        {"kind": "postgresql"},
        {
            "kind": "mariadb",
            "name": "shop",
            "hostname": "db.example.net",
            "username": "u",
            "password": "s3cret",
        },
    ]
    asked: dict[str, Any] = {"name": "dumps", "sources": ["/etc", "/srv/dumps"], "databases": dumps}
    asked |= {"schedule": "15 */4 * * *", "zone": "Europe/Paris", "hooks": {"before": ["sync # s3cret"]}}
    policy = policies.create_policy(session, made.tenant_id, PolicyIn(**asked), by="marie")
    change = PolicyPatch(excludes=["*.iso"], note="images are elsewhere")
    policies.change_policy(session, policy, change, by="paula")
    schedule = Schedule(
        tenant_id=made.tenant_id,
        name="health each morning",
        operation="health",
        targets={"all": True},
        cron="0 7 * * 1-5",
        zone="Europe/Paris",
        last_job_id=made.failed_job,
        created_by="marie",
    )
    session.add(schedule)
    session.flush()
    schedules.plan(schedule, now())
    for days, outcome, reason in (
        (3, "started", ""),
        (2, "skipped", "The controller was stopped."),
        (1, "failed", "None of these hosts can run health: provision one first."),
    ):
        job = session.get(Job, made.failed_job) if outcome == "started" else None
        at = now() - timedelta(days=days)
        schedules.note(session, schedule, at, outcome, reason, at=at, job=job, count=1 if job else days)
    channel = channels.create_channel(
        session, made.tenant_id, ChannelIn(name="ops", url="json://127.0.0.1:9/s3cret", severities=["critical"])
    )
    made.policy_id, made.schedule_id, made.channel_id = policy.id, schedule.id, channel.id


def _users(session: Session, tenant_id: uuid.UUID) -> None:
    hashed = hash_password(PASSWORD)
    for name, role in (("marie", "admin"), ("vera", "viewer"), ("otto", "operator"), ("paula", "viewer")):
        user, _ = create_user(session, tenant_id, name, role, PASSWORD)
        user.password_hash = hashed


def _acts(session: Session, tenant_id: uuid.UUID, made: Seeded) -> uuid.UUID:
    """What people did, and paula's token with few rights; returns her id."""
    paula = session.scalars(select(User).where(User.name == "paula")).one()
    create_token(session, tenant_id, paula, "wall screen", ["hosts:read", "jobs:read", "alerts:read"])
    for actor, action, object_, detail in (
        ("otto (token night shift)", "start operation", f"job:{made.failed_job}", {"operation": "backup"}),
        ("marie", "change host", f"host:{made.host}", {"tags": ["prod", "web"], "port": 2222}),
        ("marie", "create policy", "policy:dumps", {}),
        ("marie", "change user", "user:paula", {"role": "viewer"}),
        ("enrolment token racks", "register host", "registration:web-99", {}),
    ):
        act = record(session, tenant_id, actor, action, object_, address="2001:db8:85a3::8a2e:370:7334")
        act.detail = detail
    return paula.id


def _alerts(session: Session, tenant_id: uuid.UUID) -> None:
    """What the first sweep finds: one is taken care of, one is muted, and a channel was mended."""
    alerts.sweep(session)
    found = alerts.list_alerts(session, tenant_id, limit=2)
    for alert, act in zip(found, ("acknowledge", "mute"), strict=False):
        if act == "mute":
            alerts.mute(session, tenant_id, alert.id, now() + timedelta(days=1))
        else:
            alerts.acknowledge(session, tenant_id, alert.id, "marie")
    cause = ("channel_failing", "channel:ops")
    alerts.open_alert(session, tenant_id, *cause, "The channel ops took nothing for four hours.")
    alerts.resolve_alert(session, tenant_id, *cause)


def _store(session: Session, tenant_id: uuid.UUID) -> Host:
    store = Host(
        tenant_id=tenant_id,
        name="vault-1.par1.example.net",
        address="192.0.2.2",
        is_agent=False,
        is_storage_server=True,
        state="enrolled",
        os="Debian 13",
        seen_at=now(),
        ssh_host_keys=[KEY],
        tags=["par1"],
    )
    session.add(store)
    session.flush()
    return store


def _hosts(
    session: Session, tenant_id: uuid.UUID, policy: Policy, chance: random.Random, count: int
) -> list[dict[str, Any]]:
    rows = []
    for number in range(1, count + 1):
        role, site = chance.choice(ROLES), chance.choice(SITES)
        kind = chance.choices(("protected", "late", "failing", "silent", "never"), (86, 4, 4, 2, 2))[0]
        age = timedelta(minutes=chance.randint(20, 1300))
        last: datetime | None = now() - age
        due = now() + timedelta(hours=30) - age
        seen = now() - timedelta(minutes=chance.randint(1, 50))
        if kind == "late":
            last, due = now() - timedelta(hours=40), now() - timedelta(hours=4)
        elif kind == "silent":
            last, due, seen = now() - timedelta(days=5), now() - timedelta(days=3), now() - timedelta(days=4)
        elif kind == "never":
            last = None
        rows.append(
            {
                "id": new_id(),
                "tenant_id": tenant_id,
                "name": f"{role}-{number:05d}.{site}.example.net",
                "address": f"198.51.{number // 250}.{number % 250 + 1}",
                "tags": sorted({role, site, chance.choice(("prod", "prod", "stage"))}),
                "policy_id": policy.id,
                "policy_source": "default",
                "applied_version_id": None if number % 23 == 1 else policy.current_version_id,
                "state": "pending" if kind == "never" and number % 2 else "enrolled",
                "os": chance.choice(SYSTEMS),
                "versions": VERSIONS,
                "ssh_host_keys": [KEY],
                "seen_at": seen,
                "last_run_state": "failed" if kind == "failing" else "succeeded" if last else "",
                "last_run_at": last,
                "last_backup_at": last,
                "last_proven_at": last if kind == "protected" else None,
                "last_drill_at": last if kind == "protected" else None,
                "last_drill_state": "proven" if kind == "protected" else "",
                "last_size": chance.randint(1 << 30, 1 << 39) if last else None,
                "due_at": due if last else None,
            }
        )
    session.execute(insert(Host), rows)
    return rows


def _heartbeats(session: Session, tenant_id: uuid.UUID, hosts: list[dict[str, Any]]) -> None:
    """What agents tell between runs: some are on a backup, one has a wrong clock, one a full disk."""
    alive = [host for host in hosts if host["seen_at"] > now() - timedelta(hours=1)]
    rows = []
    for number, host in enumerate(alive):
        full, skewed = number == 3, number == 5
        disks = [
            {
                "path": "/",
                "total": 50 << 30,
                "free": (1 if full else 31) << 30,
                "inodes": 3276800,
                "inodes_free": 3000000,
            },
            {"path": "/srv", "total": 900 << 30, "free": 410 << 30, "inodes": None, "inodes_free": None},
        ]
        beat = {
            "at": host["seen_at"].isoformat(),
            "init": "systemd",
            "boot_time": (now() - timedelta(days=41)).isoformat(),
            "disks": disks,
            "load": [0.42, 0.31, 0.2],
            "cpus": 4,
            "memory": {"total": 16 << 30, "available": 9 << 30},
            "clock_synchronised": not skewed,
            "next_run_at": (now() + timedelta(hours=9)).isoformat(),
            "running": None,
            "spool": 2 if number == 7 else 0,
        }
        rows.append(
            {
                "id": host["id"],
                "heartbeat": beat,
                "heartbeat_at": host["seen_at"],
                "clock_skew": 340.0 if skewed else 0.2,
                "disk_free_share": 0.02 if full else 0.45,
            }
        )
    session.execute(update(Host), rows)
    for number, host in enumerate(alive[:3]):
        read = (host["last_size"] or 1 << 30) * (number + 1) // 4
        session.add(
            RunningBackup(
                host_id=host["id"],
                tenant_id=tenant_id,
                run_id=new_id(),
                kind="backup",
                trigger="timer",
                phase="create",
                started_at=now() - timedelta(minutes=4 * number + 2),
                files=48211 * (number + 1),
                original_size=read,
                compressed_size=read // 2,
                deduplicated_size=read // 40,
                updated_at=now() + timedelta(hours=1),  # for as long as tests look
            )
        )


def _recovery(session: Session, tenant_id: uuid.UUID, repositories: dict[uuid.UUID, uuid.UUID]) -> None:
    """A managed recovery key, to which most hosts sealed; some did to an earlier one, some not at all."""
    old = RecoveryKey(
        tenant_id=tenant_id, public_key="b2xk", fingerprint="0" * 64, mode="offline", retired_at=now()
    )
    key = RecoveryKey(tenant_id=tenant_id, public_key="bmV3", fingerprint="5e" * 32, mode="managed")
    session.add_all((old, key))
    session.flush()
    rows = [
        {
            "id": new_id(),
            "tenant_id": tenant_id,
            "repository_id": repository_id,
            "host_id": host_id,
            "recovery_key_id": old.id if number % 17 == 3 else key.id,
            "sealed": b"sealed",
            "digest": "0" * 64,
        }
        for number, (host_id, repository_id) in enumerate(repositories.items())
        if number % 19 != 5
    ]
    session.execute(insert(Escrow), rows)


def _enrolment(session: Session, tenant_id: uuid.UUID, hosts: list[dict[str, Any]]) -> None:
    """Tokens of each kind, and hosts that asked: one waits, one failed, one is in."""
    token = EnrolmentToken(
        tenant_id=tenant_id,
        name="rack 7",
        hash=security.token_hash("rack 7"),
        expires_at=now() + timedelta(hours=6),
        max_uses=20,
        uses=3,
        groups=["web"],
        tags=["par1"],
        created_by="marie",
    )
    old = EnrolmentToken(
        tenant_id=tenant_id,
        name="trial",
        hash=security.token_hash("trial"),
        expires_at=now() - timedelta(days=6),
        max_uses=1,
        policy="default",
        pre_approved=True,
        created_by="marie",
    )
    session.add_all((token, old))
    session.flush()
    states = (("waiting", "", None), ("failed", "The host refused the controller's SSH key.", None))
    for number, (state, reason, host) in enumerate((*states, ("done", "", hosts[1]))):
        session.add(
            Registration(
                tenant_id=tenant_id,
                token_id=token.id,
                host_id=host["id"] if host else None,
                name=host["name"] if host else f"new-{number + 1}.par1.example.net",
                address=f"198.51.100.{number + 20}",
                ssh_host_keys=[KEY],
                agent_token_sha256=security.token_hash(f"agent {number}"),
                os="Debian 13",
                peer=f"198.51.100.{number + 20}",
                state=state,
                reason=reason,
            )
        )


def _groups(session: Session, tenant_id: uuid.UUID, hosts: list[dict[str, Any]]) -> None:
    for name in ("databases", "web"):
        group = Group(tenant_id=tenant_id, name=name)
        session.add(group)
        session.flush()
        prefix = "db-" if name == "databases" else "web-"
        session.add_all(
            GroupMember(group_id=group.id, host_id=host["id"])
            for host in hosts
            if host["name"].startswith(prefix)
        )


def _repositories(
    session: Session, tenant_id: uuid.UUID, hosts: list[dict[str, Any]], store: Host
) -> dict[uuid.UUID, uuid.UUID]:
    rows = [
        {
            "id": new_id(),
            "tenant_id": tenant_id,
            "host_id": host["id"],
            "server_id": store.id,
            "kind": "ssh",
            "quota": "500G",
            "initialised_at": now() - timedelta(days=40),
            "key_exported_at": now() - timedelta(days=40),
            "size": (host["last_size"] or 0) // 3,
        }
        for host in hosts
    ]
    session.execute(insert(Repository), rows)
    return {row["host_id"]: row["id"] for row in rows}


def _guards(
    session: Session,
    tenant_id: uuid.UUID,
    store: Host,
    repositories: dict[uuid.UUID, uuid.UUID],
    held: uuid.UUID,
) -> uuid.UUID:
    """Add what the guard says, growth of 60 days, and one repository that is held; return that one."""
    at, gib = now(), 1024**3
    session.add(
        Guard(
            server_id=store.id,
            tenant_id=tenant_id,
            reported_at=at - timedelta(minutes=12),
            hold_days=14,
            clock_synced=True,
            free=900 * gib,
            total=4000 * gib,
        )
    )
    for days in range(60):
        used = (3100 - 22 * days - (days * 37) % 11) * gib
        row = {"tenant_id": tenant_id, "day": at.date() - timedelta(days=days)}
        session.add(Sample(subject_id=store.id, used=used, held=210 * gib, free=4000 * gib - used, **row))
        session.add(Sample(subject_id=held, used=(60 - days // 2) * gib, held=4 * gib, **row))
    ids = list(repositories.values())
    for place, identity in enumerate(ids):
        state = GuardState(repository_id=identity, tenant_id=tenant_id, reported_at=at, digest="ab" * 32)
        state.state = "held" if identity == held else "compacted" if place % 9 == 0 else "ok"
        state.keyless_at, state.keyless_state = at - timedelta(days=place % 7), "ok"
        state.data_at, state.data_state = at - timedelta(days=9), "ok"
        state.archives_expected, state.bytes, state.held_bytes = 18, 60 * gib, 4 * gib
        state.freeable_bytes, state.freeable_share, state.guard_seconds = gib // 3, 0.006, 1.7
        state.copies = [
            {
                "at": (at - timedelta(days=days)).isoformat(),
                "extra_bytes": gib,
                "good": identity != held or days > 0,
            }
            for days in range(4)
        ]
        session.add(state)
    session.flush()
    found = session.get_one(GuardState, held)
    found.held_since, found.freeable_share, found.freeable_bytes = at - timedelta(hours=2), 0.97, 58 * gib
    gone = [{"id": f"{number:064x}", "name": f"web-2026-11-{number:02d}T02:04:11"} for number in range(1, 15)]
    found.reasons = [
        {
            "code": "vanished",
            "message": "14 archives are gone that policy keeps.",
            "level": "critical",
            "holds": True,
            "would_destroy": gone,
            "archives": 14,
        },
        {
            "code": "freeable",
            "message": "97.0 % of the repository would be freed.",
            "level": "critical",
            "holds": True,
        },
    ]
    found.detail = "14 archives are gone that policy keeps"
    session.add_all(
        [
            Check(
                tenant_id=tenant_id,
                repository_id=held,
                kind="archives",
                state="damaged",
                at=at - timedelta(days=30),
                seconds=41.5,
                detail="1 archive is damaged",
                archives=[
                    {"id": "", "name": "web-2026-10-20", "state": "damaged", "detail": "a chunk is missing"}
                ],
            ),
            Approval(
                tenant_id=tenant_id,
                repository_id=held,
                reason="freeable",
                digest="cd" * 32,
                note="moved the films away",
                created_by="marie",
                created_at=at - timedelta(days=20),
                until=at - timedelta(days=19),
            ),
        ]
    )
    return held


def _history(
    session: Session,
    tenant_id: uuid.UUID,
    hosts: list[dict[str, Any]],
    repositories: dict[uuid.UUID, uuid.UUID],
    chance: random.Random,
    days: int,
) -> dict[uuid.UUID, list[dict[str, Any]]]:
    """A run each day; some fail, most leave an archive. Large fleets keep their archives short."""
    runs: list[dict[str, Any]] = []
    archives: dict[uuid.UUID, list[dict[str, Any]]] = {}
    for host in hosts:
        if host["last_backup_at"] is None:
            continue
        failing = host["last_run_state"] == "failed"
        for back in range(days - 1, -1, -1):
            started = host["last_backup_at"] - timedelta(days=back)
            state = chance.choices(("succeeded", "warning", "failed"), (95, 3, 2))[0]
            if back == 0:
                state = "failed" if failing else "succeeded"
            seconds = chance.randint(20, 900)
            run_id = uuid.UUID(int=chance.getrandbits(128), version=4)
            runs.append(_run(tenant_id, host, run_id, started, seconds, state))
            if state != "failed" and (len(hosts) <= 500 or back < 3):
                archive = _archive(
                    tenant_id, host, repositories[host["id"]], run_id, started, seconds, back, chance
                )
                archives.setdefault(host["id"], []).append(archive)
    names = {host["id"]: host["name"] for host in hosts}
    for start in range(0, len(runs), 5000):
        part = runs[start : start + 5000]
        if len(hosts) <= 500:
            _adopt(session, part, names)
        session.execute(insert(Run), part)
    every = [archive for each in archives.values() for archive in each]
    for start in range(0, len(every), 5000):
        session.execute(insert(Archive), every[start : start + 5000])
    return archives


def _adopt(session: Session, runs: list[dict[str, Any]], names: dict[uuid.UUID, str]) -> None:
    """A job of each run that a host started by itself, as the worker makes them."""
    jobs, members = [], []
    for run in sorted(runs, key=lambda each: each["started_at"]):
        bad = run["state"] == "failed"
        run["job_id"] = _id_at(run["started_at"])
        jobs.append(
            {
                "id": run["job_id"],
                "tenant_id": run["tenant_id"],
                "operation": "backup",
                "state": "failed" if bad else "succeeded",
                "trigger": "timer",
                "targets": {"hosts": [names[run["host_id"]]]},
                "created_at": run["started_at"],
                "started_at": run["started_at"],
                "finished_at": run["finished_at"],
                "timeout": 0,
                "hosts_total": 1,
                "hosts_done": 1,
                "hosts_failed": int(bad),
                "error": run["error"],
            }
        )
        state = "failed" if bad else "changed"
        name = names[run["host_id"]]
        members.append({"job_id": run["job_id"], "host_id": run["host_id"], "name": name, "state": state})
    session.execute(insert(Job), jobs)
    session.execute(insert(JobHost), members)


def _id_at(at: datetime) -> uuid.UUID:
    """An id with the time of its making, as UUIDv7 ids have."""
    high = (int(at.timestamp() * 1000) << 80) | (7 << 76)
    return uuid.UUID(int=high | (2 << 62) | random.getrandbits(60))


def _run(
    tenant_id: uuid.UUID, host: dict[str, Any], run_id: uuid.UUID, started: datetime, seconds: int, state: str
) -> dict[str, Any]:
    error = (
        "The storage server vault-1.par1.example.net does not answer on port 22. "
        "Check that it is up and that this host may reach it."
    )
    return {
        "id": run_id,
        "tenant_id": tenant_id,
        "host_id": host["id"],
        "kind": "backup",
        "trigger": "timer",
        "job_id": _id_at(started),  # replaced where jobs are made
        "state": state,
        "started_at": started,
        "finished_at": started + timedelta(seconds=seconds),
        "error_code": "server_unreachable" if state == "failed" else "",
        "error": error if state == "failed" else "",
    }


def _archive(
    tenant_id: uuid.UUID,
    host: dict[str, Any],
    repository_id: uuid.UUID,
    run_id: uuid.UUID,
    started: datetime,
    seconds: int,
    back: int,
    chance: random.Random,
) -> dict[str, Any]:
    size = int((host["last_size"] or 1 << 30) * (1 - back * 0.006) * chance.uniform(0.985, 1.0))
    return {
        "id": new_id(),
        "tenant_id": tenant_id,
        "host_id": host["id"],
        "repository_id": repository_id,
        "run_id": run_id,
        "borg_id": f"{chance.getrandbits(256):064x}",
        "name": f"{host['name'].split('.')[0]}-{started:%Y-%m-%dT%H:%M:%S}",
        "started_at": started,
        "finished_at": started + timedelta(seconds=seconds),
        "duration": float(seconds),
        "files": size // 180_000,
        "original_size": size,
        "compressed_size": int(size * 0.58),
        "deduplicated_size": int(size * chance.uniform(0.001, 0.02)),
    }


def _jobs(
    session: Session,
    tenant_id: uuid.UUID,
    hosts: list[dict[str, Any]],
    archives: dict[uuid.UUID, list[dict[str, Any]]],
    chance: random.Random,
) -> Seeded:
    good = [host for host in hosts if host["last_run_state"] == "succeeded"]
    for number in range(70):
        host = chance.choice(good)
        at = now() - timedelta(hours=(70 - number) * 4)
        kind = chance.choices(("backup", "health", "browse", "restore"), (80, 10, 6, 4))[0]
        trigger = "timer" if kind == "backup" else chance.choice(("dashboard", "cli", "api"))
        state = chance.choices(("succeeded", "failed", "canceled"), (92, 6, 2))[0]
        _job(session, tenant_id, kind, state, [host], at=at, trigger=trigger, seconds=chance.randint(3, 400))
    one = good[0]
    mine = archives[one["id"]]
    _restore(session, tenant_id, one, mine[-2])
    _browse(session, tenant_id, one, mine[-1])
    provision = _job(
        session,
        tenant_id,
        "provision",
        "succeeded",
        good[:6],
        at=now() - timedelta(hours=2),
        seconds=41,
        trigger="cli",
        who="marie (token laptop)",
    )
    failed = _job(
        session,
        tenant_id,
        "backup",
        "partial",
        good[:24],
        at=now() - timedelta(minutes=50),
        seconds=312,
        trigger="dashboard",
        who="marie",
        failed=3,
    )
    running = _job(
        session,
        tenant_id,
        "backup",
        "running",
        good[:18],
        at=now() - timedelta(minutes=4),
        trigger="dashboard",
        who="marie",
        failed=1,
        undone=7,
    )
    _log(session, failed, [host["name"] for host in good[:24]], 2600, failed=3)
    _log(session, running, [host["name"] for host in good[:18]], 400, failed=1, end=False)
    _log(session, provision, [host["name"] for host in good[:6]], 90)
    session.flush()
    return Seeded(tenant_id, one["name"], mine[-1]["id"], running.id, failed.id, provision.id)


def _job(
    session: Session,
    tenant_id: uuid.UUID,
    operation: str,
    state: str,
    hosts: list[dict[str, Any]],
    *,
    at: datetime,
    seconds: int = 0,
    trigger: str = "timer",
    who: str = "",
    failed: int = 0,
    undone: int = 0,
    parameters: dict[str, Any] | None = None,
    result: dict[str, Any] | None = None,
) -> Job:
    """A job whose id has the time of its making, as UUIDv7 ids have."""
    failed = failed or (len(hosts) if state == "failed" else 0)
    error = "3 of 24 hosts failed. Look at their lines below, then retry them." if state == "partial" else ""
    error_type = "hosts-failed" if state in ("partial", "failed") else ""
    if state == "failed":
        error = "The host does not answer over SSH. Check that it is up, then retry."
    job = Job(
        id=_id_at(at),
        tenant_id=tenant_id,
        operation=operation,
        state=state,
        trigger=trigger,
        requested_by=who,
        targets={"hosts": [str(host["id"]) for host in hosts]},
        parameters=parameters or {},
        attempt=1,
        created_at=at,
        started_at=at,
        finished_at=None if undone else at + timedelta(seconds=seconds),
        hosts_total=len(hosts),
        hosts_done=len(hosts) - undone,
        hosts_failed=failed,
        error=error,
        error_type=error_type,
    )
    session.add(job)
    session.flush()
    for place, host in enumerate(hosts):
        end = "failed" if place < failed else "queued" if place >= len(hosts) - undone else "changed"
        if undone and len(hosts) - undone <= place < len(hosts) - undone + 4:
            end = "running"
        session.add(_job_host(job, host, end, result))
    return job


def new_job(session: Session, made: Seeded, state: str) -> Job:
    """A backup job of the first host, by hand of a test."""
    host = session.scalars(select(Host).where(Host.name == made.host)).one()
    undone = 0 if state == "succeeded" else 1
    row = {"id": host.id, "name": host.name}
    return _job(session, made.tenant_id, "backup", state, [row], at=now(), undone=undone, trigger="api")


def _job_host(job: Job, host: dict[str, Any], state: str, result: dict[str, Any] | None) -> JobHost:
    tasks: list[list[str]] = []
    if state != "queued":
        tasks = [[TASKS[0], "ok"], [TASKS[1], "changed"]]
        if state in ("changed", "failed"):
            tasks.append([TASKS[2], "failed" if state == "failed" else "ok"])
        if state == "changed":
            tasks.append([TASKS[3], "skipped" if job.operation == "health" else "ok"])
    error = "Borg could not reach vault-1.par1.example.net (exit code 2)." if state == "failed" else ""
    return JobHost(
        job_id=job.id,
        name=host["name"],
        host_id=host["id"],
        state=state,
        tasks=tasks,
        error=error,
        result=result or {},
        started_at=job.started_at if state != "queued" else None,
        finished_at=job.finished_at,
    )


def _restore(session: Session, tenant_id: uuid.UUID, host: dict[str, Any], archive: dict[str, Any]) -> None:
    told = {
        "files": 128,
        "bytes": 5_400_000,
        "destination": "/var/lib/saveos-agent/restores/4f1c",
        "failed_total": 0,
    }
    result = {"run": {"state": "succeeded", "restore": told}}
    job = _job(
        session,
        tenant_id,
        "restore",
        "succeeded",
        [host],
        at=now() - timedelta(hours=6),
        seconds=9,
        trigger="dashboard",
        who="marie",
        result=result,
    )
    session.add(
        Restore(
            tenant_id=tenant_id,
            archive_id=archive["id"],
            host_id=host["id"],
            job_id=job.id,
            paths=["/etc/nginx", "/srv/www/index.html"],
            requested_by="marie",
            created_at=now() - timedelta(hours=6),
        )
    )


def _browse(session: Session, tenant_id: uuid.UUID, host: dict[str, Any], archive: dict[str, Any]) -> None:
    folders = {"/": ("etc", "home", "srv"), "/etc": ("apt", "nginx", "ssh", "systemd")}
    files = {
        "/etc": ("crontab", "fstab", "hostname", "hosts", "<b>odd & name</b>.conf", "os-release", "passwd")
    }
    for path, names in folders.items():
        entries = [_entry(path, name, "d") for name in names]
        entries += [_entry(path, name, "-") for name in files.get(path, ())]
        if path == "/etc":
            entries.append(_entry(path, "localtime", "l") | {"link": "/usr/share/zoneinfo/Europe/Paris"})
        _job(
            session,
            tenant_id,
            "browse",
            "succeeded",
            [host],
            at=now() - timedelta(minutes=30),
            seconds=3,
            trigger="dashboard",
            who="marie",
            parameters={
                "archive": archive["name"],
                "repository_id": str(archive["repository_id"]),
                "path": path,
            },
            result={"browse": {"path": path, "entries": entries, "truncated": False}},
        )


def _entry(folder: str, name: str, kind: str) -> dict[str, Any]:
    return {
        "name": name,
        "path": f"{folder.rstrip('/')}/{name}",
        "type": kind,
        "mode": "drwxr-xr-x" if kind == "d" else "-rw-r--r--",
        "user": "root",
        "group": "root",
        "size": 0 if kind == "d" else len(name) * 517,
        "mtime": (now() - timedelta(days=len(name) * 3)).isoformat(),
        "link": None,
    }


def _log(
    session: Session, job: Job, names: list[str], count: int, *, failed: int = 0, end: bool = True
) -> None:
    """A log of about `count` events in chunks of 500, as the engine stores them."""
    lines: list[tuple[str, str, str, str]] = [("play", "", "", "Back hosts up now")]
    for task in TASKS:
        lines.append(("task", "", task, task))
        rounds = max(1, count // len(TASKS) // len(names))
        for turn in range(rounds):
            for place, name in enumerate(names):
                text = f"{name.split('.')[0]}: 14,{turn:03d} files, 3.{place} GB read, 41 MB added"
                kind = "changed" if task == TASKS[1] else "ok"
                if task == TASKS[2] and place < failed and turn == rounds - 1:
                    kind, text = (
                        "failed",
                        "Borg could not reach the storage server.\nConnection closed by remote host.",
                    )
                lines.append((kind, name, task, text))
    if end:
        lines.append(("recap", "", "", "\n".join(f"{name}: ok=3 changed=1 failed=0" for name in names)))
    events = [
        {"n": n, "t": round(now().timestamp(), 3), "k": kind, "h": host, "task": task, "text": text}
        for n, (kind, host, task, text) in enumerate(lines, 1)
    ]
    append_log(session, job, events)


def append_log(session: Session, job: Job, events: list[dict[str, Any]]) -> None:
    """Store events as chunks."""
    for start in range(0, len(events), 500):
        part = events[start : start + 500]
        data = zlib.compress("\n".join(json.dumps(event) for event in part).encode())
        session.add(JobLog(job_id=job.id, first=part[0]["n"], last=part[-1]["n"], data=data))
    job.events = events[-1]["n"]


FOUND = {  # operation → [(share of hosts, finding)]
    "cleanup": [
        (0.7, ("apt-archives", "info", "", "Package files of apt: 412.8 MB can be removed.", True)),
        (0.5, ("journal", "info", "", "Archived journal files: 1.1 GB can be removed.", True)),
        (0.2, ("npm-cache", "info", "", "Caches of npm: 96.4 MB can be removed.", True)),
        (
            0.05,
            ("rule-refused", "warning", "app-cache", "The cleanup rule app-cache is not carried out.", False),
        ),
    ],
    "validation": [
        (
            0.05,
            (
                "passphrase-wrong",
                "critical",
                "",
                "The passphrase on this host does not open its repository.",
                False,
            ),
        ),
        (0.1, ("secret-readable", "warning", "/etc/saveos/token", "A secret can be read by others.", True)),
        (0.15, ("source-empty", "warning", "/srv/exports", "A source of the policy is empty.", False)),
    ],
    "dependencies": [
        (
            0.1,
            ("security-update", "critical", "openssl", "openssl has a security update (CVE-2026-1234).", True),
        ),
        (0.4, ("update", "info", "nginx", "nginx has an update.", True)),
        (0.15, ("restart-needed", "warning", "nginx.service", "nginx.service runs replaced code.", False)),
    ],
}


def maintain(session: Session, tenant_id: uuid.UUID) -> None:
    """Results and findings of maintenance over two weeks, on every agent."""
    from saveos.maintenance import findings
    from saveos.maintenance.models import MaintenanceResult

    chance = random.Random(11)
    query = select(Host).where(Host.tenant_id == tenant_id, Host.is_agent, Host.state == "enrolled")
    hosts = list(session.scalars(query.order_by(Host.name)))
    for operation, told in FOUND.items():
        for days in (13, 12, 10, 7, 6, 4, 3, 1, 0):
            job = Job(
                tenant_id=tenant_id, operation=operation, mode="check", state="succeeded", trigger="schedule"
            )
            job.hosts_total = job.hosts_done = len(hosts)
            job.created_at = now() - timedelta(days=days, minutes=40)
            session.add(job)
            session.flush()
            for host in hosts:
                found = [
                    dict(zip(("id", "severity", "subject", "title", "fixable"), each, strict=True))
                    for share, each in told
                    if chance.random() < share * (1 + days / 20)
                ]
                summary = {"planned_bytes": chance.randrange(10**8, 2 * 10**9), "freed_bytes": 0}
                result = {operation: {"findings": found, "summary": summary}}
                row = JobHost(job_id=job.id, name=host.name, host_id=host.id, result=result, state="ok")
                findings.record(session, job, row)
            of_job = update(MaintenanceResult).where(MaintenanceResult.job_id == job.id)
            session.execute(of_job.values(at=job.created_at))


def main() -> None:
    """Make an installation in HOME with HOSTS hosts; log in as marie."""
    home, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 60
    os.environ["SAVEOS_HOME"] = str(home)
    from saveos.core.settings import Settings
    from saveos.upkeep.opening import open_database

    database = open_database(Settings(home=home))
    with database.session() as session:
        made = seed(session, count)
        maintain(session, made.tenant_id)
        session.query(User).filter(User.name == "admin").update({"must_change_password": True})
    database.close()
    print(made)


if __name__ == "__main__":
    main()
