"""Set-up, users and agent tokens."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from saveos.accounts import service
from saveos.accounts.models import Token, User
from saveos.core.database import new_id
from saveos.core.errors import Conflict, TooMany
from saveos.core.security import verify_password
from sqlalchemy import func, select


def test_bootstrap_happens_once(session, installation, tenant_id):
    again = service.bootstrap(session)
    assert (again.tenant_id, again.password) == (tenant_id, None)
    assert session.scalar(select(func.count()).select_from(User)) == 1
    admin = session.get_one(User, again.user_id)
    path = installation.home / "admin-password"
    assert path.stat().st_mode & 0o777 == 0o600
    assert verify_password(path.read_text().strip(), admin.password_hash)
    assert admin.must_change_password


def test_the_last_admin_stays(session, tenant_id):
    admin = session.get_one(User, service.bootstrap(session).user_id)
    for change in ({"role": "viewer", "active": None}, {"role": None, "active": False}):
        with pytest.raises(Conflict, match="last admin"):
            service.change_user(session, admin, language=None, **change)
    second, _ = service.create_user(session, tenant_id, "second", "admin")
    second.active = False  # who cannot log in is no admin that is left
    with pytest.raises(Conflict, match="last admin"):
        service.change_user(session, admin, role="viewer", active=None, language=None)
    second.active = True
    service.change_user(session, admin, role="viewer", active=None, language="fr")
    assert (admin.role, admin.language) == ("viewer", "fr")


@pytest.mark.both_engines
def test_two_admins_who_demote_each_other_at_once_leave_one(database, tenant_id):
    with database.session() as session:
        ids = [
            service.bootstrap(session).user_id,
            service.create_user(session, tenant_id, "eve", "admin")[0].id,
        ]
    both = threading.Barrier(2, timeout=60)

    def demote(user_id):
        """Read the user as a route does, then change them; the lock makes the second wait for the first."""
        with contextlib.suppress(Conflict), database.session(writes=database.is_sqlite) as session:
            user = service.get_user(session, tenant_id, user_id)
            if not database.is_sqlite:  # where the first statement of a write takes the lock already
                both.wait()
            service.change_user(session, user, role="viewer", active=None, language=None)
            session.flush()
            time.sleep(0.2)

    with ThreadPoolExecutor() as pool:
        list(pool.map(demote, ids))
    with database.session() as session:
        assert sorted(session.get_one(User, each).role for each in ids) == ["admin", "viewer"]


def test_a_hosts_new_token_ends_its_old_one_and_a_cloned_one_is_refused(session, tenant_id):
    host, clone = new_id(), new_id()
    for hashed in ("a" * 64, "a" * 64, "b" * 64):
        service.set_agent_token(session, tenant_id, host, "web1", hashed)
    hashes = session.scalars(select(Token.hash).where(Token.host_id == host)).all()
    assert hashes == ["b" * 64]
    with pytest.raises(Conflict, match="cloned"):
        service.set_agent_token(session, tenant_id, clone, "web2", "b" * 64)


def test_few_hashes_run_at_once(monkeypatch):
    from saveos.accounts import throttle

    monkeypatch.setattr(throttle, "HASH_WAIT", 0.01)
    with throttle.one_hash(), throttle.one_hash(), pytest.raises(TooMany), throttle.one_hash():
        pass
    with throttle.one_hash():
        pass


def test_failed_log_ins_are_forgotten_after_a_while_and_memory_is_bounded(monkeypatch):
    from saveos.accounts import throttle

    clock = [1000.0]
    monkeypatch.setattr(throttle.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(throttle, "MAX_KEYS", 100)
    limiter = throttle.Throttle()
    for _ in range(10):
        limiter.failed("ann", "10.0.0.1")
    with pytest.raises(TooMany):
        limiter.check("ann", "10.0.0.1")
    limiter.check("ann", "10.0.0.2")
    limiter.check("bob", "10.0.0.1")
    clock[0] += throttle.WINDOW + 1
    limiter.check("ann", "10.0.0.1")
    for n in range(500):
        limiter.failed(f"user{n}", f"10.1.0.{n}")
    assert len(limiter._failures) <= 100
