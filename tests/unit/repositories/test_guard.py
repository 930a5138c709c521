"""What a guard reports is kept as its server's word only; approvals hold for exactly what was shown."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from saveos.alerts import service as alerts
from saveos.archives import retention
from saveos.archives.models import Archive
from saveos.core.clock import now
from saveos.core.database import write_lock
from saveos.core.errors import Conflict, Invalid
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import guard as handlers
from saveos.maintenance.guard import check_undo
from saveos.repositories import guard, rules, storage
from saveos.repositories.models import Check, Guard, GuardState, Repository, Sample
from sqlalchemy import select

DIGEST = "ab" * 32
VANISHED = {
    "code": "vanished",
    "message": "2 archives are gone that policy keeps.",
    "level": "critical",
    "holds": True,
    "would_destroy": [{"id": "11" * 32, "name": "web1-2026-11-01"}],
}


class Guarded:
    """A server `vault` with the repository of host `web1`, and what its guard tells."""

    def __init__(self, database: Any, tenant_id: uuid.UUID, add_host: Any) -> None:
        self.database, self.tenant_id = database, tenant_id
        self.server = add_host("vault", is_agent=False, is_storage_server=True)
        self.host = add_host("web1", last_backup_at=now())
        with database.session() as session:
            made = now() - timedelta(days=90)
            row = Repository(
                tenant_id=tenant_id, host_id=self.host.id, server_id=self.server.id, initialised_at=made
            )
            row.quota, row.quota_bytes = "1000", 1000
            session.add(row)
        self.id = row.id
        self.told = 0

    def seen(self, **fields: Any) -> dict[str, Any]:
        return {"id": str(self.id), "state": "ok", "digest": DIGEST, "bytes": 400} | fields

    def held(self, **fields: Any) -> dict[str, Any]:
        return self.seen(state="held", reasons=[VANISHED], **fields)

    def report(self, *repositories: dict[str, Any], of: Host | None = None, **fields: Any) -> GuardState | None:
        self.told += 1
        at = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=self.told)).isoformat()
        report = {"schema": 1, "at": at, "hold_days": 14, "free": 600, "total": 1000, "clock_synced": True}
        self.take("guard", report | {"repositories": list(repositories)} | fields, of or self.server)
        return self.state()

    def take(self, key: str, result: dict[str, Any], host: Host, mode: str = "run", **parameters: Any) -> None:
        handler = {"guard": handlers.guarded, "check": handlers.checked, "undo": handlers.undone}[key]
        with self.database.session() as session:
            row = JobHost(name=host.name, host_id=host.id, result={key: result}, state="ok")
            job = Job(tenant_id=self.tenant_id, operation=key, mode=mode, parameters=parameters)
            handler(session, job, row)

    def state(self) -> GuardState | None:
        with self.database.session() as session:
            found: GuardState | None = session.get(GuardState, self.id)
            return found

    def archive(self, days: float, **fields: Any) -> str:
        """Add an archive of so many days ago, reported when it was made; return Borg's id."""
        borg_id = uuid.uuid4().hex * 2
        at = now() - timedelta(days=days)
        values = {"reported_at": at, "started_at": at, "name": f"web1-{days}", "deduplicated_size": 10} | fields
        with self.database.session() as session:
            row = {"tenant_id": self.tenant_id, "host_id": self.host.id, "repository_id": self.id}
            session.add(Archive(borg_id=borg_id, **row, **values))
        return borg_id

    def alerts(self, hours: float = 0) -> dict[str, str]:
        with self.database.session() as session:
            write_lock(session)
            alerts.sweep(session, now() + timedelta(hours=hours), rules.FAMILIES)
            rows = alerts.list_alerts(session, self.tenant_id, state="open", limit=50)
            return {row.rule: row.summary for row in rows}

    def approve(self, **fields: Any) -> Any:
        asked = {"reason": "vanished", "digest": DIGEST, "days": 2, "note": "", "by": "ann"} | fields
        with self.database.session() as session:
            return guard.approve(session, session.get_one(Repository, self.id), **asked)

    def word(self) -> dict[str, Any]:
        with self.database.session() as session:
            told = json.loads(retention.told(session, session.get_one(Host, self.server.id)))
        assert isinstance(told, dict)
        return dict(told["repositories"][str(self.id)]) | {"hold_days": told["hold_days"]}


@pytest.fixture
def guarded(database: Any, tenant_id: uuid.UUID, add_host: Any) -> Guarded:
    return Guarded(database, tenant_id, add_host)


def test_a_hold_is_kept_with_its_reasons_and_alerted_until_it_ends(guarded: Guarded) -> None:
    found = guarded.report(guarded.held())
    assert found is not None
    assert (found.state, found.digest, found.reasons[0]["code"]) == ("held", DIGEST, "vanished")
    since = found.held_since
    assert guarded.report(guarded.held()).held_since == since  # type: ignore[union-attr]
    sentence = guarded.alerts()["guard_held"]
    assert "2 archives are gone that policy keeps" in sentence
    assert "vault" in sentence
    assert len([rule for rule in guarded.alerts() if rule == "guard_held"]) == 1
    after = guarded.report(guarded.seen())
    assert after is not None
    assert (after.state, after.held_since) == ("ok", None)
    assert "guard_held" not in guarded.alerts()


def test_the_same_report_twice_and_a_foreign_repository_change_nothing(guarded: Guarded, add_host: Any) -> None:
    guarded.report(guarded.held())
    since = guarded.state()
    guarded.told -= 1
    assert guarded.report(guarded.held()).reported_at == since.reported_at  # type: ignore[union-attr]
    other = add_host("other", is_agent=False, is_storage_server=True)
    assert guarded.report(guarded.seen(state="ok"), of=other).state == "held"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "wrong",
    [
        {"bytes": -1},
        {"state": "fine"},
        {"digest": "../x"},
        {"freeable_share": 7},
        {"copies": [{"at": "9999-12-31T00:00:00Z"}]},
        {"reasons": [{"code": "Not A Code"}]},
        {"last_check": {"at": "x", "state": "ok"}},
    ],
)
def test_a_hostile_report_is_refused_as_a_whole(guarded: Guarded, wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="cannot be used"):
        guarded.report(guarded.seen(**wrong))
    assert guarded.state() is None


def test_words_of_a_report_stay_on_one_line(guarded: Guarded) -> None:
    found = guarded.report(guarded.held() | {"reasons": [VANISHED | {"message": "a\n\x1b[31mb"}]})
    assert found is not None
    assert found.detail == "a  [31mb"


def test_a_repository_that_the_guard_knew_and_knows_no_more_is_missing(guarded: Guarded) -> None:
    guarded.report(guarded.seen())
    found = guarded.report()
    assert found is not None
    assert found.state == "missing"
    assert "repository_damaged" in guarded.alerts()
    guarded.report(guarded.seen())
    assert "repository_damaged" not in guarded.alerts()


def test_a_guard_is_silent_when_it_never_told_or_told_no_more(guarded: Guarded) -> None:
    assert "never guarded" in guarded.alerts()["guard_silent"]
    guarded.report(guarded.seen())
    assert "guard_silent" not in guarded.alerts(1)
    assert "guard_silent" in guarded.alerts(2.1)
    guarded.report(guarded.seen(), interval_seconds=21_600)
    assert "guard_silent" not in guarded.alerts(11)
    assert "guard_silent" in guarded.alerts(13)


def test_a_refused_shorter_hold_is_told(guarded: Guarded) -> None:
    guarded.report(guarded.seen(), hold_refused={"asked": 3, "kept": 14})
    assert "3 days were asked, 14 are kept" in guarded.alerts()["guard_refused"]
    guarded.report(guarded.seen())
    assert "guard_refused" not in guarded.alerts()


def test_quotas_warn_early_then_late(guarded: Guarded) -> None:
    for size, rule in ((700, None), (800, "quota_near"), (950, "quota"), (885, "quota"), (800, "quota_near")):
        guarded.report(guarded.seen(bytes=size))
        found = guarded.alerts()
        assert {"quota", "quota_near"} & found.keys() == ({rule} if rule else set()), size


def test_checks_fail_and_come_late(guarded: Guarded) -> None:
    at = now().isoformat()
    guarded.report(guarded.seen(last_check={"at": at, "state": "ok", "seconds": 3}))
    assert "check_late" in guarded.alerts()  # its data was never read
    whole = {"at": at, "kind": "data", "repositories": [{"repository_id": str(guarded.id), "state": "ok"}]}
    guarded.take("check", whole, guarded.host)
    assert "check_late" not in guarded.alerts()
    broken = guarded.archive(2)
    archives = [{"id": broken, "name": "x", "state": "damaged", "detail": "a chunk is missing"}]
    found = {"repository_id": str(guarded.id), "state": "damaged", "detail": "1 error", "archives": archives}
    later = (now() + timedelta(seconds=1)).isoformat()
    guarded.take("check", {"at": later, "kind": "archives", "repositories": [found]}, guarded.host)
    assert "1 error" in guarded.alerts()["check_failed"]
    with guarded.database.session() as session:
        assert session.scalar(select(Archive.check_state).where(Archive.borg_id == broken)) == "failed"
        kinds = session.scalars(select(Check.kind).order_by(Check.id)).all()
    assert kinds == ["keyless", "data", "archives"]
    sound = found | {"state": "ok", "detail": "", "archives": []}
    later = (now() + timedelta(seconds=2)).isoformat()
    guarded.take("check", {"at": later, "kind": "archives", "repositories": [sound]}, guarded.host)
    assert "check_failed" not in guarded.alerts()


def test_a_check_is_kept_once_whatever_its_guards_clock_says(guarded: Guarded) -> None:
    ahead = (now() + timedelta(hours=1)).isoformat()
    for told in (ahead, ahead, now().isoformat()):  # the clock is set right before the third
        for _ in range(2):
            guarded.report(guarded.seen(last_check={"at": told, "state": "ok", "seconds": 3}))
    with guarded.database.session() as session:
        checks = session.scalars(select(Check).order_by(Check.id)).all()
    assert len(checks) == 2
    assert all(each.at <= now() for each in checks)


def test_who_does_not_hold_a_repository_has_no_word_about_it(guarded: Guarded, add_host: Any) -> None:
    found = {"repository_id": str(guarded.id), "state": "damaged"}
    told = {"at": now().isoformat(), "kind": "data", "repositories": [found]}
    guarded.take("check", told, add_host("stranger"))
    guarded.take("check", told | {"kind": "keyless"}, guarded.host)
    assert guarded.state() is None


def test_an_approval_is_for_the_reason_and_what_was_shown(guarded: Guarded) -> None:
    with pytest.raises(Conflict, match="does not hold"):
        guarded.approve()
    guarded.report(guarded.held())
    with pytest.raises(Conflict, match="changed since"):
        guarded.approve(digest="cd" * 32)
    with pytest.raises(Conflict, match="not held for freeable"):
        guarded.approve(reason="freeable")
    with pytest.raises(Conflict, match="no approval lifts clock"):
        guarded.approve(reason="clock")
    made = guarded.approve()
    (told,) = guarded.word()["approvals"]
    assert (told["reason"], told["digest"], told["by"]) == ("vanished", DIGEST, "ann")
    with guarded.database.session() as session:
        guard.revoke(session, session.get_one(Repository, guarded.id), made.id, "bob")
    assert guarded.word()["approvals"] == []


def test_the_guard_is_told_archives_rules_alerts_and_the_hold(guarded: Guarded) -> None:
    living, gone = guarded.archive(1), guarded.archive(20, gone_at=now() - timedelta(days=2))
    guarded.archive(200, gone_at=now() - timedelta(days=100))
    removed = guarded.archive(3, removed_why="request", protected=True)
    with guarded.database.session() as session:
        session.get_one(Host, guarded.server.id).variables = {"server_guard_hold_days": 30}
        session.get_one(Host, guarded.host.id).variables = {"agent_retention": {"keep_daily": 3}}
        for rule in ("failed", "guard_held", "silent"):
            alerts.open_alert(session, guarded.tenant_id, rule, f"host:{rule}", "x", host_id=guarded.host.id)
        renamed = session.scalars(select(Archive).where(Archive.borg_id == living)).one()
        for _ in range(2):
            retention.note_former_id(session, renamed)
            session.flush()
        renamed.borg_id = "cc" * 32
    word = guarded.word()
    assert {each["id"] for each in word["archives"]} == {living, gone, removed, "cc" * 32}
    ended = next(each for each in word["archives"] if each["id"] == living)
    assert ended["requested"] is True  # its new name has another id
    marked = next(each for each in word["archives"] if each["id"] == removed)
    assert (marked["requested"], marked["protected"]) == (True, True)
    assert word["retention"] == {"keep_daily": 3}
    assert word["open_alerts"] == ["failed"]  # the guard's own alerts and missed backups do not hold
    assert word["hold_days"] == 30


def test_growth_is_one_sample_a_day_and_foretells_when_a_server_is_full(guarded: Guarded) -> None:
    guarded.report(guarded.seen(copies=[{"at": "2026-01-01T00:00:00Z", "extra_bytes": 50}]))
    guarded.report(guarded.seen(bytes=500))
    with guarded.database.session() as session:
        today = session.get_one(Sample, (guarded.id, now().date()))
        assert (today.used, today.held) == (500, 0)
        for days in range(1, 10):
            day = now().date() - timedelta(days=days)
            session.add(
                Sample(subject_id=guarded.server.id, day=day, tenant_id=guarded.tenant_id, used=400 - 20 * days)
            )
        (server,) = storage.list_servers(session, guarded.tenant_id)
        assert (server.used, server.free, server.full_in_days) == (400, 600, 30)
        assert session.get_one(Guard, guarded.server.id).hold_days == 14


def test_after_an_undo_archives_are_what_the_mended_host_says(guarded: Guarded) -> None:
    back, never = guarded.archive(2, gone_at=now()), guarded.archive(1)
    told = {"repository_id": str(guarded.id), "state": "mended", "archives": [back], "key_imported": True}
    guarded.take("undo", told, guarded.host, repository_id=str(guarded.id))
    with guarded.database.session() as session:
        gone = dict(session.execute(select(Archive.borg_id, Archive.gone_at)).all())
    assert gone[back] is None
    assert gone[never] is not None


def test_an_undo_is_for_one_host_and_its_own_repository(guarded: Guarded, add_host: Any) -> None:
    asked = {"repository_id": str(guarded.id), "to": "latest-good"}
    with guarded.database.session() as session:
        check_undo(session, [guarded.host], asked)
        for hosts in ([guarded.host, guarded.server], [add_host("web2")]):
            with pytest.raises(Invalid):
                check_undo(session, hosts, asked)
