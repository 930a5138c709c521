"""Content leaves its host by downloads and for another host, and only by whole, allowed and read transfers."""

import io
import subprocess
import tarfile
import time

import httpx
import pytest
from serving import until
from support import make_tree, on, tree

pytestmark = pytest.mark.lab
ODD, BIG = "/srv/data/odd", "/srv/data/big"
LEDGER = "/srv/data/accounts/Ledger 2026.ods"


@pytest.fixture(scope="module")
def archive(fleet):
    """An archive of `web` with an odd tree, a ledger, and more than any pipe between its ends holds."""
    on(fleet.web, 'mkdir -p /srv/data/accounts && echo balance > "$1"', LEDGER)
    on(fleet.web, f"rm -rf {ODD}; head -c 60000000 /dev/urandom > {BIG}")
    make_tree(fleet.web, ODD)
    fleet.controller.done("backup", "web")
    yield fleet.controller.items("/archives?host=web")[0]
    on(fleet.web, f"rm -rf {ODD} {BIG} /srv/data/accounts")


def test_a_download_is_a_tar_archive_of_what_was_chosen(fleet, archive, tmp_path):
    goal = tmp_path / "back.tar"
    told = fleet.controller.command(
        "restores", "download", "--host", "web", "--path", "/srv/data/accounts", "--to", str(goal)
    )
    assert told["bytes"] == goal.stat().st_size
    with tarfile.open(fileobj=io.BytesIO(_plain(goal.read_bytes()))) as tar:
        assert tar.extractfile(LEDGER.strip("/")).read() == b"balance\n"
    shown = fleet.controller.get(f"/restores/{told['restore']}")
    assert (shown["kind"], shown["outcome"]["sent"]) == ("download", told["bytes"])
    again = fleet.controller.http("GET", f"/restores/{told['restore']}/content")
    assert again.status_code == 409 and "ask for" in again.json()["detail"]
    acts = [entry["action"] for entry in fleet.controller.items("/audit")]
    assert "create restore" in acts and "read content" in acts


def test_a_path_that_is_not_there_is_said_so(fleet, archive, tmp_path):
    said = fleet.controller.command(
        *("restores", "download", "--host", "web", "--path", "/no/such", "--to", str(tmp_path / "none")),
        code=None,
    )
    assert said["code"] == 1, said
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away_ends_the_host_s_end(fleet, archive):
    controller = fleet.controller
    body = {"archive": archive["id"], "paths": [BIG], "download": True}
    made = controller.post("/restores", body, 202)
    headers, began = {"Authorization": f"Bearer {controller.token}"}, 0
    address = f"{controller.url}/api/v1/restores/{made['restore']['id']}/content"
    with httpx.stream(
        "GET", address, headers=headers, timeout=120, trust_env=False, verify=controller.trust
    ) as answer:
        assert answer.status_code == 200 and answer.headers["x-saveos-form"] in ("tar.gz", "tar.zst")
        began = len(next(answer.iter_raw()))
    assert began
    job = controller.ended(made["job"]["id"])
    assert job["state"] == "failed" and "went away" in job["by_host"]["web"]["error"], controller.story(job)
    assert on(fleet.web, "pgrep -fc '[b]org.*export-tar' || true").strip() == "0"


def test_a_reader_that_stands_still_is_given_up_and_memory_stays_bounded(fleet, archive):
    """The host's end is held back: what nobody reads stays on the host."""
    controller = fleet.controller
    made = controller.post("/restores", {"archive": archive["id"], "paths": [BIG], "download": True}, 202)
    headers = {"Authorization": f"Bearer {controller.token}"}
    address = f"{controller.url}/api/v1/restores/{made['restore']['id']}/content"
    with httpx.stream(
        "GET", address, headers=headers, timeout=120, trust_env=False, verify=controller.trust
    ) as answer:
        content = answer.iter_raw()
        next(content)
        time.sleep(5)
        assert controller.get(f"/jobs/{made['job']['id']}")["state"] == "running"
        controller.post(f"/jobs/{made['job']['id']}/cancel", None, 202)
        with pytest.raises(httpx.TransportError):
            for _ in content:
                pass
    until(lambda: controller.get(f"/jobs/{made['job']['id']}")["state"] == "canceled", 300, "the cancel")


def test_an_odd_tree_comes_to_another_host_as_it_was(fleet, archive):
    expected = tree(fleet.web, ODD)
    fleet.controller.command(
        *("restores", "create", "--host", "web", "--target-host", "cron", "--path", ODD),
        *("--destination", "/srv/from-web", "--wait"),
    )
    restore = fleet.controller.items("/restores")[0]
    assert (restore["kind"], restore["target_host"]) == ("other_host", "cron")
    assert restore["outcome"]["verified"] is True and restore["outcome"]["failed_total"] == 0
    assert tree(fleet.cron, f"/srv/from-web{ODD}") == expected
    left = "ls -A /var/lib/saveos-agent/restores /srv | grep -E 'saveos-(send|partial)' || true"
    assert on(fleet.web, left) == on(fleet.cron, left) == ""
    on(fleet.cron, "rm -rf /srv/from-web")


def test_content_that_may_not_pass_is_refused(fleet, archive):
    controller = fleet.controller
    controller.command("settings", "set", "--content-through-controller", "off")
    try:
        for body in ({"download": True}, {"target_host": "cron"}):
            refused = controller.http("POST", "/restores", {"archive": archive["id"], **body})
            assert refused.status_code == 403 and "content_through_controller" in refused.json()["detail"]
    finally:
        controller.command("settings", "set", "--content-through-controller", "on")


def test_a_controller_that_is_killed_ends_the_host_s_end(fleet, archive):
    controller = fleet.controller
    made = controller.post("/restores", {"archive": archive["id"], "paths": [BIG], "download": True}, 202)
    headers = {"Authorization": f"Bearer {controller.token}"}
    address = f"{controller.url}/api/v1/restores/{made['restore']['id']}/content"
    try:
        with httpx.stream(
            "GET", address, headers=headers, timeout=120, trust_env=False, verify=controller.trust
        ) as answer:
            next(answer.iter_raw())
            controller.kill()
        until(lambda: on(fleet.web, "pgrep -fc '[e]xport-tar' || true").strip() == "0", 120, "the host's end")
    finally:
        controller.start()
    job = controller.ended(made["job"]["id"], 120)
    assert job["state"] in ("failed", "lost"), controller.story(job)


def _plain(packed):
    """Return the tar archive that is compressed by gzip or zstd."""
    program = ["gzip", "-dc"] if packed.startswith(b"\x1f\x8b") else ["zstd", "-dc"]
    return subprocess.run(program, input=packed, capture_output=True, check=True).stdout
