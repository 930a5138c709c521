"""The catalogue of real archives: what hosts send is what Borg holds; a lost file is found and brought back."""

import base64
import stat
from datetime import datetime

import pytest
from fleet import at_rest
from serving import until
from support import make_tree, on, tree

pytestmark = pytest.mark.lab
ODD = "/srv/data/odd"
LOST = "/srv/data/accounts/Ledger 2026.ods"


def back_up(fleet, name):
    """Back a host up; return its newest archive, once it is in the catalogue."""
    fleet.controller.done("backup", name)
    newest = fleet.controller.items(f"/archives?host={name}")[0]

    def look():
        state = fleet.controller.get(f"/archives/{newest['id']}")
        return state["catalogue"] == "indexed" and state

    found = until(look, 90, f"{name}'s newest archive in the catalogue")
    at_rest(fleet.lab.hosts[name])
    return found


def walk(fleet, archive, path):
    """Return {path below: entry} of everything below a directory of an archive, as the API pages it."""
    found, waiting = {}, [f"path={path}"]
    while waiting:
        query = waiting.pop()
        cursor = ""
        while True:
            more = f"&cursor={cursor}" if cursor else ""
            page = fleet.controller.get(f"/archives/{archive['id']}/files?{query}&limit=7{more}")
            for entry in page["items"]:
                found[entry["ref"]] = entry
                if entry["is_directory"]:
                    waiting.append(f"ref={entry['ref']}")
            cursor = page["next"]
            if not cursor:
                break
    return found


@pytest.fixture(scope="module")
def story(fleet):
    """Three archives of `web`: an odd tree and a ledger; the ledger gone; a note changed."""
    on(fleet.web, 'mkdir -p /srv/data/accounts && echo balance > "$1"', LOST)
    on(fleet.web, "rm -rf /srv/data/odd")
    make_tree(fleet.web, ODD)
    made = [back_up(fleet, "web")]
    on(fleet.web, 'rm "$1"; echo one > /srv/data/accounts/note', LOST)
    made.append(back_up(fleet, "web"))
    on(fleet.web, "echo another > /srv/data/accounts/note")
    made.append(back_up(fleet, "web"))
    yield made
    on(fleet.web, "rm -rf /srv/data/odd /srv/data/accounts")


def test_the_catalogue_has_every_path_of_an_odd_tree(fleet, story):
    expected = {path: entry for path, entry in tree(fleet.web, ODD).items() if path != "."}
    found = {}
    for entry in walk(fleet, story[0], ODD).values():
        path = base64.urlsafe_b64decode(entry["ref"] + "=" * (-len(entry["ref"]) % 4)).decode("latin-1")
        found[path.removeprefix(f"{ODD}/")] = entry
    assert found.keys() == expected.keys()
    for path, entry in expected.items():
        assert stat.S_IFMT(found[path]["mode"]) == entry["kind"], path
        assert oct(stat.S_IMODE(found[path]["mode"])) == entry["mode"], path
        assert datetime.fromisoformat(found[path]["modified_at"]).timestamp() == entry["mtime"] // 10**9, path


def test_a_file_deleted_archives_ago_is_found_and_restored_by_one_command(fleet, story):
    hit = fleet.controller.get("/find?q=ledger&host=web")  # other tests have ledgers elsewhere
    assert [(each["path"], each["gone"], each["archive_id"]) for each in hit] == [(LOST, True, story[0]["id"])]
    job = fleet.controller.command("find", "Ledger 2026.ods", "--host", "web", "--restore", "--wait")
    staged = on(fleet.web, 'find /var/lib/saveos-agent/restores -name "Ledger 2026.ods" -exec cat {} +')
    assert "balance" in staged, job


def test_versions_and_differences_tell_what_happened_when(fleet, story):
    versions = fleet.controller.get(f"/archives/{story[2]['id']}/versions?path=/srv/data/accounts/note")
    assert [(each["size"], each["archive_id"]) for each in versions] == [
        (8, story[2]["id"]),
        (4, story[1]["id"]),
    ]
    differs = fleet.controller.get(
        f"/archives/{story[0]['id']}/compare/{story[2]['id']}?path=/srv/data/accounts"
    )
    assert [(each["path"], each["kind"]) for each in differs["items"]] == [
        (LOST, "removed"),
        ("/srv/data/accounts/note", "added"),
    ]


def test_a_dropped_catalogue_hinders_no_restore_and_is_built_anew(fleet, story):
    repository = story[2]["repository_id"]
    before = walk(fleet, story[2], ODD)
    fleet.controller.post(f"/repositories/{repository}/catalogue/rebuild", None, 202)
    fleet.controller.done("restore", "web", archive=story[2]["id"], paths=["/srv/data/accounts/note"])
    on(fleet.web, "saveos-agent catalogue")
    until(
        lambda: fleet.controller.get(f"/archives/{story[2]['id']}")["catalogue"] == "indexed",
        60,
        "the catalogue anew",
    )
    assert walk(fleet, story[2], ODD) == {ref: entry | {"changed": ""} for ref, entry in before.items()}
