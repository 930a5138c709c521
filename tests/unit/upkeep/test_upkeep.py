"""The controller's own: exports that restore with all but tokens, cleaning by age, a new installation key."""

import os
import signal
import subprocess
import sys
import uuid
from datetime import timedelta
from unittest.mock import Mock

import pytest
from saveos import migrations
from saveos.accounts.models import Audit, Login, Tenant, Token, User
from saveos.accounts.service import bootstrap, create_token, seal_for, unseal_for
from saveos.alerts.models import Alert, Channel, Delivery
from saveos.alerts.service import list_alerts, open_alert, resolve_alert
from saveos.archives.catalogue import open_store
from saveos.archives.store.entries import Item
from saveos.archives.store.searching import Wanted
from saveos.core import sealing, security
from saveos.core.clock import now
from saveos.core.database import Database
from saveos.core.settings import Settings
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobLog
from saveos.secrets.service import init_recovery
from saveos.upkeep import daily, export, keys
from saveos.upkeep.clean import BATCH, clean
from sqlalchemy import func, select, update

PLACE = ("tenants", "note")
REPOSITORY = uuid.UUID("0193aaaa-0000-7000-8000-000000000001")


@pytest.fixture
def settings(tmp_path):
    """An installation on SQLite with a host, a token, a session and a sealed value."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    settings = Settings(home=home)
    database = opened(settings)
    migrations.upgrade(database)
    with database.session() as session:
        made = bootstrap(session)
        tenant, user = session.get_one(Tenant, made.tenant_id), session.get_one(User, made.user_id)
        create_token(session, tenant.id, user, "ci", ["*"])
        session.add(Login(user_id=user.id, hash="h" * 64, expires_at=now() + timedelta(days=1)))
        session.add(Host(tenant_id=tenant.id, name="web1", address="10.0.0.1"))
        tree = [Item(b"/etc", 0, 1, 0o040755), Item(b"/etc/hosts", 5, 1, 0o100644)]
        with open_store(session, home, tenant.id, REPOSITORY) as store:
            store.index(str(REPOSITORY), "0", 0.0, tree, complete=True)
    database.close()
    (home / "tls").mkdir()
    (home / "tls" / "ca.key").write_text("canary ca key")
    return settings


def opened(settings):
    return Database(settings.sqlalchemy_url, security.load_kek(settings.home))


def counted(settings, model):
    database = opened(settings)
    try:
        with database.session() as session:
            return session.scalar(select(func.count()).select_from(model))
    finally:
        database.close()


def recovery(settings):
    public, private = sealing.new_pair()
    database = opened(settings)
    with database.session() as session:
        init_recovery(session, session.scalars(select(Tenant.id)).one(), public)
    database.close()
    return private


def test_an_export_restores_on_another_machine_with_everything_but_tokens(settings, tmp_path):
    private = recovery(settings)
    database, reading = opened(settings), opened(settings)
    with reading.session() as session:  # in use meanwhile
        session.scalars(select(Host)).all()
        manifest = export.export(settings, tmp_path / "export")
    database.close()
    reading.close()
    assert manifest.keys == "sealed" and (tmp_path / "export").stat().st_mode & 0o777 == 0o700
    content = b"".join(path.read_bytes() for path in (tmp_path / "export").rglob("*") if path.is_file())
    assert (settings.home / "kek").read_bytes() not in content and b"canary ca key" not in content
    fresh = Settings(home=tmp_path / "new")
    with pytest.raises(export.ExportError, match="--key FILE"):
        export.restore(fresh, tmp_path / "export")
    with pytest.raises(export.ExportError, match="do not open"):
        export.restore(fresh, tmp_path / "export", sealing.new_pair()[1])
    assert not fresh.home.exists()
    export.restore(fresh, tmp_path / "export", private)
    assert (counted(fresh, Token), counted(fresh, Login), counted(fresh, Host)) == (0, 0, 1)
    assert counted(settings, Token) == 1, "the running controller keeps its tokens"
    assert (fresh.home / "tls" / "ca.key").read_text() == "canary ca key"
    assert (fresh.home / "kek").stat().st_mode & 0o777 == 0o400
    again = opened(fresh)
    with again.session() as session:
        tenant = session.scalars(select(Tenant)).one()
        with open_store(session, fresh.home, tenant.id, REPOSITORY) as store:
            assert [each.entry.path for each in store.search(Wanted(["hosts"]))] == [b"/etc/hosts"]
        sealed = seal_for(session, tenant.id, (PLACE[0], tenant.id, PLACE[1]), b"x")
        assert unseal_for(session, tenant.id, (PLACE[0], tenant.id, PLACE[1]), sealed) == b"x"
        acts = [row.action for row in session.scalars(select(Audit))]
    again.close()
    assert "restore controller" in acts
    with pytest.raises(export.ExportError, match="holds an installation already"):
        export.restore(fresh, tmp_path / "export", private)


def test_a_damaged_export_is_refused(settings, tmp_path):
    export.export(settings, tmp_path / "export")
    path = tmp_path / "export" / "saveos.db"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(export.ExportError, match="damaged"):
        export.restore(Settings(home=tmp_path / "new"), tmp_path / "export")
    with pytest.raises(export.ExportError, match="no export"):
        export.check(tmp_path)


def test_without_an_offline_key_the_keys_are_plain_and_private(settings, tmp_path):
    manifest = export.export(settings, tmp_path / "export", catalogue=False)
    key = tmp_path / "export" / "keys" / "kek"
    assert manifest.keys == "plain" and key.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "export" / "catalogue").exists()
    export.restore(Settings(home=tmp_path / "new"), tmp_path / "export")
    assert counted(Settings(home=tmp_path / "new"), Host) == 1


def test_a_second_export_takes_the_first_ones_place(settings, tmp_path):
    first = export.export(settings, tmp_path / "export")
    second = export.export(settings, tmp_path / "export")
    assert export.read_manifest(tmp_path / "export").at == second.at > first.at
    assert [path.name for path in tmp_path.iterdir() if "export" in path.name] == ["export"]
    at = now()
    assert not export.is_due(tmp_path / "export", timedelta(hours=1), at)
    assert export.is_due(tmp_path / "export", timedelta(hours=1), at + timedelta(hours=2))
    assert export.is_due(tmp_path / "none", timedelta(hours=1), at)


def test_what_a_killed_export_left_is_put_right(settings, tmp_path, monkeypatch):
    target = tmp_path / "export"
    first = export.export(settings, target)
    target.rename(tmp_path / ".export-former")  # killed between two renames
    old, young = tmp_path / ".export-abcd1234", tmp_path / ".export-efgh5678"
    for left in (old, young):
        (left / "keys").mkdir(parents=True)
    os.utime(old, (0, 0))
    with monkeypatch.context() as full:
        full.setattr(export, "_write", Mock(side_effect=OSError("no space left on device")))
        with pytest.raises(OSError, match="no space"):
            export.export(settings, target)
    assert export.read_manifest(target).at == first.at
    assert young.exists(), "another export may be at work there"
    assert not old.exists()


def test_the_daily_step_exports_and_cleans_once_a_day(settings, monkeypatch):
    database = opened(settings)
    old = now() - timedelta(days=200)
    with database.session() as session:
        tenant_id = session.scalars(select(Tenant.id)).one()
        for finished in (old, now()):
            job = Job(tenant_id=tenant_id, operation="backup", state="succeeded", finished_at=finished)
            session.add(job)
            session.flush()
            for first in range(1, 4):
                session.add(JobLog(job_id=job.id, first=first, last=first, data=b"x"))
        running = Job(tenant_id=tenant_id, operation="backup", state="running", created_at=old)
        session.add(running)
    assert clean(settings, database, check=True)["job-logs"] == 3
    assert counted(settings, JobLog) == 6
    step = daily.Daily(settings, database)
    with monkeypatch.context() as full:
        full.setattr(daily, "export", Mock(side_effect=OSError("no space left on device")))
        with pytest.raises(OSError, match="no space"):
            step.step()
    assert counted(settings, JobLog) == 3, "a full disk is cleaned all the same"
    with database.session() as session:
        (alert,) = list_alerts(session, tenant_id, limit=9)
    assert (alert.rule, alert.object) == ("own_backup", "controller")
    step.step()
    with database.session() as session:
        assert list_alerts(session, tenant_id, limit=9) == []
    assert export.read_manifest(daily.spool(settings)).database == "saveos.db"
    assert counted(settings, Job) == 3, "jobs are kept longer than their logs"
    before = (settings.home / ".cleaned").stat().st_mtime_ns
    step.step()
    assert (settings.home / ".cleaned").stat().st_mtime_ns == before
    database.close()


def test_more_than_a_batch_goes_and_what_is_kept_for_ever_stays(settings):
    database = opened(settings)
    old = now() - timedelta(days=5000)
    with database.session() as session:
        tenant_id = session.scalars(select(Tenant.id)).one()
        session.add_all(Audit(tenant_id=tenant_id, actor="a", action="b", at=old) for _ in range(BATCH + 3))
    kept = settings.model_copy(update={"keep_audit_days": 0})
    assert "audit" not in clean(kept, database)
    assert clean(settings, database)["audit"] == BATCH + 3
    assert clean(settings, database)["audit"] == 0
    database.close()


def test_alerts_and_what_was_told_of_them_stay_as_long_as_is_set(settings):
    database = opened(settings)
    with database.session() as session:
        tenant_id = session.scalars(select(Tenant.id)).one()
        channel = Channel(
            tenant_id=tenant_id, name="ops", url=b"sealed", kind="json", address="", enabled=False
        )
        session.add(channel)
        session.flush()
        for days in (390, 410):
            at = now() - timedelta(days=days)
            cause = (tenant_id, "schedule_failed", f"schedule:{days}")
            open_alert(session, *cause, "It could not start.").last_seen = now() - timedelta(days=500)
            resolve_alert(session, *cause)
            session.execute(update(Alert).where(Alert.object == cause[2]).values(resolved_at=at))
            for state in ("delivered", "pending"):
                told = {
                    "kind": "opened",
                    "severity": "warning",
                    "title": "t",
                    "body": "b",
                    "created_at": at,
                    "state": state,
                }
                session.add(Delivery(tenant_id=tenant_id, channel_id=channel.id, **told))
    assert clean(settings.model_copy(update={"keep_alerts_days": 0}), database).get("alerts") is None
    counts = clean(settings, database)
    assert (counts["alerts"], counts["deliveries"]) == (1, 1)
    assert (counted(settings, Alert), counted(settings, Delivery)) == (1, 3), "what waits is still to be sent"
    database.close()


@pytest.mark.parametrize("point", [0, 1, 2, 3])
def test_a_new_installation_key_killed_at_each_step_opens(settings, point):
    """Killed before the new key is written, before and after the commit; then settled, everything opens."""
    before = (settings.home / "kek").read_bytes()
    child = os.fork()
    if child == 0:

        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        name = ("_write", "_place", "_put_in_force", "")[point]
        if name:
            setattr(keys, name, die)
        keys.rotate_key(settings)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == (0 if point == 3 else -signal.SIGKILL)
    assert keys.settle_key(settings) == {1: "rolled back", 2: "finished"}.get(point, "")
    after = (settings.home / "kek").read_bytes()
    assert (after != before) is (point >= 2)
    database = opened(settings)
    with database.session() as session:
        tenant = session.scalars(select(Tenant)).one()
        assert seal_for(session, tenant.id, (PLACE[0], tenant.id, PLACE[1]), b"x")
    database.close()


@pytest.mark.postgresql
def test_postgresql_is_dumped_and_restored(tmp_path, cluster):
    """By pg_dump and pg_restore; the password would go by the environment, here it is a socket."""
    names = [f"upkeep{os.getpid()}a", f"upkeep{os.getpid()}b"]
    urls = [cluster.create(name) for name in names]
    (tmp_path / "home").mkdir(mode=0o700)
    settings = Settings(home=tmp_path / "home", database_url=urls[0])
    database = opened(settings)
    migrations.upgrade(database)
    with database.session() as session:
        made = bootstrap(session)
        create_token(session, made.tenant_id, session.get_one(User, made.user_id), "ci", ["*"])
    database.close()
    assert export.export(settings, tmp_path / "export").database == "saveos.pgdump"
    with pytest.raises(export.ExportError, match="PostgreSQL: set SAVEOS_DATABASE_URL"):
        export.restore(Settings(home=tmp_path / "wrong"), tmp_path / "export")
    fresh = Settings(home=tmp_path / "new", database_url=urls[1])
    export.restore(fresh, tmp_path / "export")
    assert (counted(fresh, User), counted(fresh, Token), counted(settings, Token)) == (1, 0, 1)
    for name in names:
        cluster.drop(name)


@pytest.mark.parametrize("module", ["export", "clean", "keys"])
def test_a_command_that_loads_only_this_knows_all_tables_it_names(module):
    script = f"import saveos.upkeep.{module}; from sqlalchemy.orm import configure_mappers; configure_mappers()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
