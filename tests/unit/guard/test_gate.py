"""The gate: what an intruder does with a host's own credentials is held, shown, and undone."""

import json
import random
import shutil

import pytest

from tests.guarded import PASSPHRASE, load

guard = load()
DAY = 86_400


def codes(report, holding=True):
    """Codes of the reasons that hold."""
    return {each["code"] for each in report["reasons"] if each["holds"] or not holding}


def attack(storage, kind, dice):
    """Do what an intruder can, through the forced command."""
    if kind == "delete":
        for name in sorted(storage.names()):
            storage.client("delete", f"{storage.url}::{name}")
    elif kind == "future":
        for number in range(4):
            when = f"2035-01-{10 + number}T00:00:00"
            storage.client(
                "create", "--timestamp", when, f"{storage.url}::f{dice.random()}", str(storage.shell)
            )
        storage.client("prune", "--keep-daily=3", storage.url)
    elif kind == "key":
        storage.client("key", "change-passphrase", storage.url, BORG_NEW_PASSPHRASE="stolen")
    elif kind == "quota":
        rubbish = storage.base / "rubbish"
        rubbish.write_bytes(dice.randbytes(11_000_000))
        said = storage.client("create", f"{storage.url}::rubbish", str(rubbish), code=None)
        assert "quota" in said.lower(), said
        for name in sorted(storage.names() & {each["name"] for each in storage.archives}):
            storage.client("delete", f"{storage.url}::{name}")


@pytest.mark.parametrize("kind", ["delete", "future", "key", "quota"])
def test_an_attack_is_held_and_undone(storage, kind):
    """Several runs hold; what the policy keeps comes back byte for byte, and the next backup is in order."""
    if kind == "quota":
        storage.shell.write_text(storage.shell.read_text().rstrip() + " --storage-quota 10M\n")
    wanted = {archive["name"]: storage.restore(archive["name"]) for archive in storage.archives}
    before = {file.name for file in (storage.path / "data").rglob("*") if file.is_file()}
    attack(storage, kind, random.Random(5))
    storage.wait()
    for _ in range(3):
        report = storage.told_and_run()
        assert report["state"] == "held", report
        assert codes(report) & {"vanished", "key"}, report
    assert before <= {file.name for file in (storage.path / "data").rglob("*") if file.is_file()}
    done = storage.undo()
    assert done["state"] == "done"
    storage.mend()
    assert {name: storage.restore(name) for name in wanted} == wanted
    storage.client("check", "--verify-data", storage.url)
    storage.write("later", 99)
    storage.back_up("later")
    storage.wait()
    assert storage.told_and_run()["state"] in ("ok", "compacted")
    storage.client("check", "--verify-data", storage.url)


def test_what_was_deleted_before_any_word_is_held_until_the_word_comes(storage):
    """The timer's run has no fresh word: it compacts nothing, and says it waits; the word makes it an alarm."""
    attack(storage, "delete", random.Random(1))
    report = storage.run()
    assert (report["state"], report["pending"]) == ("ok", 3)
    assert "waiting" in codes(report, holding=False)
    assert report["good_copy"] == report["copies"][0]["at"], "a copy that nobody could judge is not good"
    storage.wait()
    assert codes(storage.told_and_run()) >= {"vanished"}


def test_an_approval_lifts_what_was_shown_and_nothing_else(storage):
    storage.client("delete", f"{storage.url}::a0")
    storage.wait()
    report = storage.told_and_run()
    assert codes(report) >= {"vanished"}
    first = {"id": "p1", "reason": "vanished", "digest": report["digest"], "by": "ann"}
    for wrong in (
        {**first, "digest": "0" * 64},
        {**first, "reason": "clock"},
        {**first, "until": "2020-01-01T00:00:00Z"},
    ):
        assert storage.told_and_run(approvals=[wrong])["state"] == "held"
    storage.client("delete", f"{storage.url}::a1")
    storage.wait()
    report = storage.told_and_run(approvals=[first])
    assert report["state"] == "held"
    vanished = next(each for each in report["reasons"] if each["code"] == "vanished")
    assert [each["name"] for each in vanished["would_destroy"]] == ["a1"]
    approvals = [
        first,
        *({"id": code, "reason": code, "digest": report["digest"]} for code in sorted(codes(report))),
    ]
    report = storage.told_and_run(approvals=approvals)
    assert report["state"] == "compacted", report
    assert storage.names() == {"a2"}
    storage.client("check", "--verify-data", storage.url)
    kinds = [json.loads(line)["kind"] for line in (storage.state / "r1/ledger.jsonl").read_text().splitlines()]
    assert "accept" in kinds and "hold" in kinds and "compact" in kinds
    assert [copy["why"] for copy in report["copies"]].count("compact") == 1, (
        "what was compacted is held none the less"
    )


def test_a_person_s_own_deletion_is_no_alarm(storage):
    storage.client("delete", f"{storage.url}::a0")
    storage.archives[0]["requested"] = True
    storage.wait()
    assert storage.told_and_run()["state"] in ("ok", "compacted")


def test_objects_written_over_are_seen(storage):
    """An intruder who speaks Borg's protocol puts rubbish in place of an object, and leaves all archives."""
    target = bytes.fromhex(storage.archives[1]["id"])
    speak(storage, [("put", {b"id": target, b"data": b"rubbish"})])
    storage.wait()
    report = storage.told_and_run()
    assert report["state"] == "held" and "tampered" in codes(report), report
    storage.undo()
    storage.mend()
    storage.client("check", "--verify-data", storage.url)


def test_objects_deleted_behind_archives_are_seen(storage):
    """All archives stand, but more is marked deleted than ended archives explain."""
    storage.settings["freeable_limit"] = 2
    storage.write("large", 77, 8_000_000)
    storage.back_up("large")
    storage.wait()
    assert storage.told_and_run()["state"] == "ok"
    copy = sorted(each for each in storage.hold.iterdir() if not each.name.startswith("."))[-1]
    view = guard.View(str(copy))
    keep = {bytes.fromhex(archive["id"]) for archive in storage.archives} | {guard.MANIFEST}
    there = [bytes(view.index.map[18 + 40 * at : 50 + 40 * at]) for at in range(view.index.buckets)]
    there = [key for key in there if view.index.get(key) and key not in keep]
    speak(storage, [("delete", {b"id": key}) for key in there])
    storage.wait()
    report = storage.told_and_run()
    assert report["state"] == "held" and codes(report) == {"freeable"}, report


def speak(storage, calls):
    """Speak Borg's RPC to `borg serve`, as an intruder's own program would."""
    import subprocess

    from tests.unit.guard.test_borg_files import pack

    serve = subprocess.Popen([str(storage.shell)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    number = 0

    def call(method, arguments):
        nonlocal number
        number += 1
        serve.stdin.write(pack({b"i": number, b"m": method.encode(), b"a": arguments}))
        serve.stdin.flush()
        answer = b""
        while True:
            answer += serve.stdout.read1(65536)
            try:
                found = guard.unpack(answer)
                break
            except ValueError:
                continue
        assert b"exception_class" not in found, found

    call("negotiate", {b"client_data": {b"client_version": [1, 4, 5]}})
    opened = {b"path": str(storage.path).encode(), b"lock_wait": 1, b"lock": True, b"exclusive": True}
    call("open", {**opened, b"create": False, b"append_only": False})
    for method, arguments in calls:
        call(method, {**arguments, b"wait": True})
    call("commit", {b"compact": False, b"save_space": False})
    serve.stdin.close()
    serve.wait(60)


def test_a_symbolic_link_in_a_repository_leads_nowhere(storage, tmp_path):
    """Who breaks out of the forced command cannot make the guard link, or take, files of others."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "1").write_text("of others")
    shutil.rmtree(storage.path / "data")
    (storage.path / "data").symlink_to(secret.parent)
    report = storage.told_and_run()
    assert report["state"] in ("held", "damaged"), report
    assert (secret / "1").stat().st_nlink == 1


def test_a_segment_that_vanished_or_was_replaced_is_damage(storage):
    file = max((storage.path / "data/0").iterdir(), key=lambda each: each.stat().st_size)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    for _ in range(2):
        assert codes(storage.told_and_run()) >= {"damaged"}
    storage.undo()
    assert storage.told_and_run()["state"] == "ok"


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"open_alerts": ["storage"]}, "alert"),
        ({"retention": {"keep_daily": 3}}, ""),
    ],
)
def test_the_controller_s_word_holds(storage, told, code):
    report = storage.told_and_run(**told)
    assert codes(report) == ({code} if code else set()), report


def test_a_hold_is_never_shortened_from_outside(storage):
    assert storage.tell(hold_days=30) is None
    refused = storage.tell(hold_days=2)
    assert refused == {"asked": 2, "kept": 30}
    report = guard.run(storage.settings, [], storage.time)
    assert (report["hold_days"], report["hold_refused"]) == (30, {"asked": 2, "kept": 30})
    storage.tell(hold_days=100_000)
    assert guard.run(storage.settings, [], storage.time)["hold_days"] == guard.LONGEST_HOLD
    storage.settings["hold_days"] = 1
    assert guard.run(storage.settings, [], storage.time)["hold_days"] == guard.LONGEST_HOLD


def test_copies_are_dropped_when_they_were_held_but_never_the_last_good(storage, monkeypatch):
    monkeypatch.setattr(guard, "kernel_clock_synced", lambda: True)
    good = storage.run()["good_copy"]
    attack(storage, "delete", random.Random(3))
    storage.wait()
    start = storage.time
    for day in (0, 10, 40):
        storage.tell()
        report = guard.run(storage.settings, [], start + day * DAY)["repositories"][0]
    assert report["good_copy"] == good and len(report["copies"]) == 2, report["copies"]


def test_nothing_expires_while_the_clock_is_wrong(storage, monkeypatch):
    monkeypatch.setattr(guard, "kernel_clock_synced", lambda: False)
    storage.write("more", 5)
    storage.back_up("more")
    copies = len(storage.run()["copies"])
    for ahead in (400 * DAY, -3 * 365 * DAY):
        report = guard.run(storage.settings, [], storage.time + ahead)["repositories"][0]
        assert "clock" in codes(report), report
        assert len(report["copies"]) >= copies


def test_a_quota_is_warned_of_before_it_is_full(tmp_path, programs):
    from tests.guarded import Storage

    storage = Storage(tmp_path, programs[0], quota="10M")
    storage.write("one", 1, 9_000_000)
    storage.back_up("one")
    storage.wait()
    report = storage.told_and_run()
    assert report["state"] == "ok" and codes(report, holding=False) == {"quota"}
    assert report["quota"] == 10_000_000 and report["quota_used"] > 9_000_000


def test_a_client_at_work_stops_neither_copy_nor_judgement(storage):
    """A lock that a host holds for ever prevents no copy; only a compact waits."""
    lock = storage.path / "lock.exclusive"
    lock.mkdir()
    storage.write("x", 9)
    (lock / "other@1.1-0").write_text("")
    report = storage.run()
    assert report["copies"], report
    shutil.rmtree(lock)


def test_the_passphrase_is_nowhere_at_the_guard(storage):
    for file in [*storage.state.rglob("*"), *storage.hold.rglob("*")]:
        if file.is_file():
            assert PASSPHRASE.encode() not in file.read_bytes()
