"""Care of archives on a real host: a protected one survives pruning, and stays browsable under its new id."""

import json

import pytest
from fleet import at_rest
from serving import until
from support import on

pytestmark = pytest.mark.lab
POLICY = {
    "name": "cared",
    "sources": ["/srv/data/cared"],
    "schedule": "0 3 1 1 *",
    "retention": {"keep_daily": 1},
}
NOTE = "/srv/data/cared/note"


def back_up(fleet, text):
    """Back `bare` up with a note; return its newest archive, once it is in the catalogue."""
    on(fleet.bare, 'mkdir -p "${1%/*}" && echo "$2" > "$1"', NOTE, text)
    fleet.controller.done("backup", "bare")
    at_rest(fleet.bare)
    newest = fleet.controller.items("/archives?host=bare")[0]
    until(lambda: about(fleet, newest)["catalogue"] == "indexed", 90, "the archive in the catalogue")
    return newest


def about(fleet, archive):
    return fleet.controller.get(f"/archives/{archive['id']}")


def names(fleet):
    return {item["name"] for item in json.loads(on(fleet.bare, "saveos-agent snapshots --json"))["items"]}


@pytest.fixture(scope="module")
def cared(fleet):
    """The fleet, with a host `bare` that keeps one archive a day; afterwards it is as it was."""
    on(fleet.bare, "mkdir -p /srv/data/cared")
    fleet.controller.post("/policies", POLICY, 201)
    assert fleet.controller.http("PATCH", "/hosts/bare", {"policy": "cared"}).is_success
    at_rest(fleet.bare)
    fleet.controller.done("provision", "bare")
    # policies always keep some days of all; a day is too long for a test
    on(fleet.bare, "sed -i '/^keep_within/d' /etc/saveos/borgmatic/*.yaml")
    yield fleet
    assert fleet.controller.http("PATCH", "/hosts/bare", {"policy": None}).is_success
    at_rest(fleet.bare)
    fleet.controller.done("provision", "bare")
    on(fleet.bare, "rm -rf /srv/data/cared /root/cared.tar.gz")


def test_a_protected_archive_survives_retention_and_the_rest_follows(cared):
    first = back_up(cared, "one")
    cared.controller.command("archives", "protect", first["id"], "--wait")
    kept = about(cared, first)
    assert (kept["name"], kept["protected"]) == (f"+{first['name']}", True)
    assert kept["borg_id"] != first["borg_id"]
    second, third = back_up(cared, "two"), back_up(cared, "three")
    at_rest(cared.bare)
    left = names(cared)
    assert {kept["name"], third["name"]} <= left
    assert second["name"] not in left
    until(lambda: about(cared, second)["gone_at"], 30, "that the second is gone")
    assert about(cared, first)["gone_at"] is None
    found = cared.controller.get(f"/archives/{first['id']}/files?path=/srv/data/cared")["items"]
    assert [each["name"] for each in found] == ["note"]
    cared.controller.done("restore", "bare", archive=first["id"], paths=[NOTE], destination="/root/cared")
    assert on(cared.bare, f"cat /root/cared{NOTE}; rm -r /root/cared").strip() == "one"

    on(cared.bare, 'echo fourth > "$1"; touch /srv/data/cared/new', NOTE)
    said = cared.controller.command("archives", "compare", third["id"], "host")
    found = {each["path"]: each["kind"] for each in said["differences"]}
    assert (found[NOTE], found["/srv/data/cared/new"]) == ("modified", "added")
    text = cared.controller.command("archives", "diff", third["id"], "host", NOTE)
    assert {"-three", "+fourth"} <= set(text["difference"].splitlines())
    assert cared.controller.command("archives", "show-file", third["id"], NOTE) == {"text": "three\n"}
    for told in cared.controller.items("/jobs?operation=diff")[:2]:
        kept = cared.controller.http("GET", f"/jobs/{told['id']}/log?format=text").text
        kept += str(cared.controller.items(f"/jobs/{told['id']}/hosts")) + str(told)
        assert "fourth" not in kept and "three" not in kept
    assert "three" not in str(cared.controller.items("/restores")) + str(cared.controller.items("/audit"))
    cared.controller.command("archives", "export", first["id"], "/root/cared.tar.gz", "--wait")
    out = on(cared.bare, "stat -c %a /root/cared.tar.gz; tar -xzOf /root/cared.tar.gz srv/data/cared/note")
    assert out.split() == ["600", "one"]

    answer = cared.controller.http("POST", f"/archives/{first['id']}/care", {"action": "delete"})
    assert answer.status_code == 409
    cared.controller.command("archives", "unprotect", first["id"], "--wait")
    before = cared.controller.command("archives", "delete", first["id"], "--check")
    assert (before["archive"]["name"], before["now"]) == (first["name"], None)
    assert first["name"] in names(cared)
    cared.controller.command("archives", "delete", first["id"], "--yes", "--wait")
    gone = about(cared, first)
    assert (gone["removed_why"], bool(gone["gone_at"]), first["name"] in names(cared)) == (
        "request",
        True,
        False,
    )
