"""Hold, alert, approve, undo, mend, check and restore through the controller's doors, on real hosts."""

import hashlib
import json

import pytest
from fleet import at_rest
from serving import until
from support import on

pytestmark = pytest.mark.lab
DATA = "/srv/data/undone"
POLICY = {
    "name": "undone",
    "sources": [DATA],
    "schedule": "0 3 1 1 *",
    "retention": {"keep_within": "1d", "keep_daily": 7},
}
# What an intruder who is root has: borg with the host's own passphrase, key and way to its repository.
DELETE = (
    "c=$(ls /etc/saveos/borgmatic/*.yaml); "
    '/opt/saveos/bin/borgmatic --config "$c" borg -- delete --glob-archives "$1"'
)
LOCK_OUT = (
    "c=$(ls /etc/saveos/borgmatic/*.yaml); BORG_NEW_PASSPHRASE=stolen "
    '/opt/saveos/bin/borgmatic --config "$c" borg -- key change-passphrase'
)


@pytest.fixture(scope="module")
def guarded(fleet):
    """The fleet, with host `bare` backing a directory of its own up, guarded from before the first archive."""
    on(fleet.bare, "mkdir -p $1 && head -c 2000000 /dev/urandom > $1/ledger", DATA)
    fleet.controller.post("/policies", POLICY, 201)
    assert fleet.controller.http("PATCH", "/hosts/bare", {"policy": "undone"}).is_success
    at_rest(fleet.bare)
    fleet.controller.done("provision", "bare")
    # The guard gives a deletion two minutes for the controller's word about it to come; a test does not.
    on(fleet.vault, 'sed -i \'s/"settle_seconds": *[0-9]*/"settle_seconds": 0/\' /etc/saveos/guard.json')
    for number in range(2):
        on(fleet.bare, "echo $2 > $1/note; head -c 300000 /dev/urandom > $1/part$2", DATA, str(number))
        fleet.controller.done("backup", "bare")
        at_rest(fleet.bare)
    guard(fleet)
    yield fleet
    assert fleet.controller.http("PATCH", "/hosts/bare", {"policy": None}).is_success
    on(fleet.bare, "rm -r $1", DATA)
    fleet.controller.done("provision", "bare")


def guard(fleet, **parameters):
    """Have the guard of `vault` run; return what it then says of the repository of `bare`."""
    job = fleet.controller.done("guard", "vault", **parameters)
    (found,) = fleet.controller.items("/repositories/guard?host=bare")
    return found | {"report": job["by_host"]["vault"]["result"]["guard"]}


def codes(found):
    return {each["code"] for each in found["reasons"] if each["holds"]}


def alert(fleet, rule, *, name="bare", there=True):
    """Wait until an alert of a rule is open, or is not; return it."""

    def look():
        found = [
            each for each in fleet.controller.items(f"/alerts?host={name}&state=open") if each["rule"] == rule
        ]
        return (found or [None])[0] if there else not found

    return until(look, 40, f"alert {rule} of {name}: {there}")


def living(fleet):
    return {each["name"] for each in fleet.controller.items("/archives?host=bare")}


def test_a_wipe_and_a_changed_passphrase_are_held_alerted_and_undone_to_the_last_byte(guarded):
    fleet = guarded
    before = living(fleet)
    ledger = on(fleet.bare, "sha256sum $1/ledger | cut -c1-64", DATA).strip()
    on(fleet.bare, DELETE, "*")
    on(fleet.bare, LOCK_OUT)
    said = on(
        fleet.bare, '/opt/saveos/bin/borgmatic --config "$(ls /etc/saveos/borgmatic/*.yaml)" list 2>&1', code=1
    )
    assert "passphrase" in said.lower(), said
    found = guard(fleet)
    assert found["state"] == "held", json.dumps(found, indent=1)
    assert {"vanished", "key"} <= codes(found)
    assert "holds the repository of bare" in alert(fleet, "guard_held")["summary"]
    shown = fleet.controller.command("repositories", "guard", "bare", code=3)
    assert shown["items"][0]["digest"] == found["digest"]
    copies = fleet.controller.command("repositories", "copies", "bare")["items"]
    assert any(each["good"] for each in copies)

    planned = fleet.controller.command("repositories", "undo", "bare", "--check", "--wait", code=None)
    assert planned["state"] == "succeeded", planned
    assert fleet.controller.items("/repositories/guard?host=bare")[0]["state"] == "held"
    done = fleet.controller.command("repositories", "undo", "bare", "--yes", "--wait")
    assert done["state"] == "succeeded", done
    assert living(fleet) == before
    job = fleet.controller.done("check", "bare", kind="data")
    (checked,) = job["by_host"]["bare"]["result"]["check"]["repositories"]
    assert (checked["state"], {each["state"] for each in checked["archives"]}) == ("ok", {"ok"})
    fleet.controller.done(
        "restore", "bare", archive="latest", paths=[f"{DATA}/ledger"], destination="/root/back"
    )
    assert (
        on(fleet.bare, "sha256sum /root/back$1/ledger | cut -c1-64; rm -r /root/back", DATA).strip() == ledger
    )
    after = guard(fleet)
    assert after["state"] in ("ok", "compacted", "approved"), json.dumps(after, indent=1)
    alert(fleet, "guard_held", there=False)
    fleet.controller.done("backup", "bare")  # and its host backs up as ever
    at_rest(fleet.bare)


def test_what_a_person_approves_is_freed_and_nothing_else(guarded):
    fleet = guarded
    oldest = min(fleet.controller.items("/archives?host=bare"), key=lambda each: each["started_at"])
    on(fleet.bare, DELETE, oldest["name"])
    held = guard(fleet)
    assert (held["state"], "vanished" in codes(held)) == ("held", True), json.dumps(held, indent=1)
    path = f"/repositories/{held['repository_id']}/approvals"
    wrong = {"reason": "vanished", "digest": hashlib.sha256(b"another").hexdigest(), "days": 1}
    assert fleet.controller.http("POST", path, wrong).status_code == 409
    for code in sorted(codes(held)):
        asked = ["--reason", code, "--digest", held["digest"], "--note", "it was me"]
        fleet.controller.command("repositories", "approve", "bare", *asked)
    freed = guard(fleet)
    assert freed["state"] in ("approved", "compacted"), json.dumps(freed, indent=1)
    alert(fleet, "guard_held", there=False)
    assert fleet.controller.done("check", "bare", kind="archives")
    acts = [each["action"] for each in fleet.controller.items("/audit")]
    assert "approve compaction" in acts


def test_the_controller_cannot_shorten_a_hold(guarded):
    fleet = guarded
    variables = fleet.controller.get("/hosts/vault")["variables"]
    shorter = variables | {"server_guard_hold_days": 2}
    assert fleet.controller.http("PATCH", "/hosts/vault", {"variables": shorter}).is_success
    report = guard(fleet)["report"]
    assert (report["hold_days"], report["hold_refused"]) == (14, {"asked": 2, "kept": 14})
    assert "2 days were asked, 14 are kept" in alert(fleet, "guard_refused", name="vault")["summary"]
    assert fleet.controller.http("PATCH", "/hosts/vault", {"variables": variables}).is_success
    assert guard(fleet)["report"]["hold_refused"] is None
    alert(fleet, "guard_refused", name="vault", there=False)


def test_a_keyless_check_finds_a_flipped_bit_on_demand(guarded):
    fleet = guarded
    assert fleet.controller.done("check", "bare")
    flip = (
        "f=$(ls -S /srv/saveos/repositories/$1/data/*/* | head -1); "
        "python3 -c \"import sys; f = open(sys.argv[1], 'r+b'); f.seek(5000); b = f.read(1)[0]; "
        'f.seek(5000); f.write(bytes([b ^ 8]))" $f'
    )
    (found,) = fleet.controller.items("/repositories/guard?host=bare")
    on(fleet.vault, flip, found["repository_id"])
    try:
        job = fleet.controller.ended(fleet.controller.ask("check", "bare"))
        (checked,) = job["by_host"]["vault"]["result"]["check"]["repositories"]
        assert checked["state"] == "damaged", checked
        alert(fleet, "check_failed")
    finally:
        on(fleet.vault, flip, found["repository_id"])
    assert fleet.controller.done("check", "bare")
    alert(fleet, "check_failed", there=False)
