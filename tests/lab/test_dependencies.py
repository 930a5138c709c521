"""Updates on real hosts (Debian 12 and 13) from a local apt repository with a security source.

Each test makes the same start: packages at 1.0 with an ordinary, a security, two held and one impossible
update.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from support import on, play

pytestmark = pytest.mark.lab

REPOSITORY = (Path(__file__).parent / "apt_repository.sh").read_text()
START = """
apt-mark unhold plain libsafe heldback heldsafe wants > /dev/null 2>&1 || true
dpkg --purge plain libsafe heldback heldsafe wants > /dev/null 2>&1 || true
rm -rf /srv/apt /etc/saveos/health.d
for name in plain libsafe heldback heldsafe wants; do package stable $name 1.0; done
dpkg -i /srv/apt/stable/*.deb > /dev/null
rm /srv/apt/stable/*
package stable plain 1.1; package stable libsafe 1.2; package stable heldback 1.1
package stable wants 1.1 "Depends: missing"
package security libsafe 1.0+deb1; package security heldsafe 1.0+deb1
changelog libsafe 1.0+deb1 "libsafe (1.0+deb1) security; urgency=high

  * Mends CVE-2026-0001 and CVE-2026-0002.

 -- Lab <lab@example.org>  Mon, 01 Jan 2026 00:00:00 +0000

libsafe (1.0) stable; urgency=low

  * CVE-2020-9999
"
publish stable Lab; publish security Lab-Security
sources stable security
apt-mark hold heldback heldsafe > /dev/null
"""
# everything but the kernel's, run-time state, the journal, and what a log-in or the agent's heartbeat writes
CHECKSUM = """
see() {
    find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /var/log/journal -o -path /var/log/wtmp \\
        -o -path /var/log/lastlog -o -path /var/lib/saveos-agent -o -path /var/lib/systemd \\
        -o -path /root/.ansible \\) -prune -o "$@"
}
see -type f -print0 | xargs -0 sha256sum | sort -k2
see -type f -printf '%p %m %U %s %T@\\n' | sort
see ! -type f -printf '%p %m %U %l\\n' | sort
"""
HOSTS = ("bare", "cron", "web")


def prepared(host):
    """Bring a host to the start."""
    on(host, f"{REPOSITORY}\n{START}", stdin="")


@pytest.fixture(scope="module")
def shop(fleet):
    """The fleet, whose hosts take packages from repositories of their own while these tests run."""
    for name in HOSTS:
        on(getattr(fleet, name), "cp -a /etc/apt /root/apt.kept")
    yield fleet
    for name in HOSTS:
        on(
            getattr(fleet, name),
            "dpkg --purge --force-hold plain libsafe heldback heldsafe wants; "
            "rm -rf /etc/apt /srv/apt /srv/shop /etc/saveos/health.d; mv /root/apt.kept /etc/apt",
        )


def version(host, package):
    return on(host, "dpkg-query -W -f '${Version}' \"$1\"", package)


def found(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a record's findings by `id` or `id:subject`."""
    return {":".join(filter(None, (each["id"], each["subject"]))): each for each in told["findings"]}


def record(job: dict[str, Any], name: str) -> dict[str, Any]:
    told: dict[str, Any] = job["by_host"][name]["result"]["dependencies"]
    return told


def lasting(told: dict[str, Any]) -> dict[str, Any]:
    """Return what does not depend on the time of a run."""
    return {key: value for key, value in told.items() if key != "at"}


def test_every_door_gives_the_same_record_and_a_check_changes_nothing(shop):
    """Playbook, HTTP, command and schedule; a checksum of the file system is the same afterwards."""
    controller = shop.controller
    for name in ("web", "bare"):
        host = getattr(shop, name)
        prepared(host)
        on(host, "mkdir -p /srv/shop && echo 'jinja2==3.1.2' > /srv/shop/requirements.txt")
    before = {name: on(getattr(shop, name), CHECKSUM) for name in ("web", "bare")}
    asked = {"apply": "security", "online": False}

    http = controller.ended(controller.ask("dependencies", "web", "bare", mode="check", **asked))
    assert http["state"] == "succeeded", controller.story(http)
    body = {
        "name": "lab-dependencies",
        "operation": "dependencies",
        "targets": {"hosts": ["web", "bare"]},
        "mode": "check",
        "parameters": asked,
        "cron": "0 3 1 1 *",
    }
    schedule = controller.post("/schedules", body, 201)

    words = ("dependencies", "security", "web", "bare", "--check", "--wait")
    told = controller.command("maintenance", *words, code=3)
    command = controller.ended(told["id"])
    shop.lab.inventory(("vault",))
    jobs = {job["id"] for job in controller.items("/jobs?operation=dependencies")}
    by_hand = play(
        shop.lab,
        "dependencies",
        "--check",
        "--limit=web,bare",
        "-e",
        json.dumps({"maintenance_apply": "security", "maintenance_online": False}),
        SAVEOS_URL=controller.url,
        SAVEOS_TOKEN=controller.token,
        SAVEOS_CA=str(controller.home / "tls" / "ca.pem"),
    )
    assert by_hand.recap["web"]["failed"] == by_hand.recap["bare"]["failed"] == 0, by_hand.output

    scheduled = controller.ended(controller.post(f"/schedules/{schedule['id']}/run", None, 202)["id"])
    assert controller.http("DELETE", f"/schedules/{schedule['id']}").status_code == 204
    (hand,) = [
        job
        for job in controller.items("/jobs?operation=dependencies")
        if job["trigger"] == "hand" and job["id"] not in jobs
    ]
    hand = controller.ended(hand["id"])
    for name in ("web", "bare"):
        whole = lasting(record(http, name))
        assert lasting(record(scheduled, name)) == lasting(record(hand, name)) == whole
        # the command asks advisory sources, too; the lab reaches none
        assert {key for key in found(record(command, name)) if "libraries" not in key} == {
            key for key in found(whole) if "libraries" not in key
        }
        after = on(getattr(shop, name), CHECKSUM)
        assert set(after.splitlines()) ^ set(before[name].splitlines()) == set()

    told = record(http, "bare")
    assert told["state"] == "warning" and told["summary"]["planned"] == 1
    (plan,) = [each for each in told["packages"] if each["state"] == "planned"]
    assert (plan["name"], plan["before"], plan["after"]) == ("libsafe", "1.0", "1.0+deb1")
    assert plan["cves"] == ["CVE-2026-0001", "CVE-2026-0002"] and plan["severity"] == "high"
    shown = found(told)
    assert (
        shown["security-update:libsafe"]["fixed"]
        and "CVE-2026-0001" in shown["security-update:libsafe"]["evidence"]
    )
    assert shown["held-security-update:heldsafe"]["severity"] == "warning"
    assert "held-update:heldback" in shown
    assert "jinja2 3.1.2" in shown["libraries-not-judged"]["evidence"]
    stored = controller.items("/maintenance/results?operation=dependencies&host=web")
    assert len(stored) >= 3


def test_updates_are_applied_as_planned_and_a_second_run_changes_nothing(shop):
    prepared(shop.web)
    job = shop.controller.done("dependencies", "web", apply="security", online=False)
    told = record(job, "web")
    assert version(shop.web, "libsafe") == "1.0+deb1" and version(shop.web, "plain") == "1.0"
    assert found(told)["updates-installed"]["evidence"] == "libsafe 1.0 → 1.0+deb1"
    assert told["summary"]["updated"] == 1 and told["summary"]["healthy"]
    assert job["by_host"]["web"]["state"] == "changed"

    planned = shop.controller.ended(shop.controller.ask("dependencies", "web", mode="check", apply="all"))
    plan = {e["name"]: e["after"] for e in record(planned, "web")["packages"] if e["state"] == "planned"}
    assert plan == {"libsafe": "1.2", "plain": "1.1"}
    done = record(shop.controller.done("dependencies", "web", apply="all", online=False), "web")
    assert {e["name"]: e["after"] for e in done["packages"] if e["state"] == "installed"} == plan
    assert "wants 1.0 → 1.1" in found(done)["updates-kept-back"]["evidence"]
    assert version(shop.web, "heldback") == version(shop.web, "heldsafe") == "1.0"

    again = shop.controller.done("dependencies", "web", apply="all", online=False)
    assert again["by_host"]["web"]["counts"]["changed"] == 0
    assert record(again, "web")["summary"]["updated"] == 0


def test_the_batch_stops_at_a_host_whose_health_check_fails(shop):
    """bare comes first and is well; cron fails its own check after the update; web is never touched."""
    for name in HOSTS:
        prepared(getattr(shop, name))
    on(
        shop.cron,
        "cd /etc/saveos && mkdir -p health.d && cat > health.d/shop && chmod 755 health.d/shop",
        stdin="#!/bin/sh\ngrep -q 1.0 /usr/share/plain/version && exit 0\necho the shop is closed\nexit 1\n",
    )
    asked = shop.controller.ask("dependencies", *HOSTS, apply="all", batch=1, online=False)
    job = shop.controller.ended(asked)
    assert job["state"] == "partial", shop.controller.story(job)
    states = {name: row["state"] for name, row in job["by_host"].items()}
    assert states == {"bare": "changed", "cron": "failed", "web": "canceled"}
    assert "the shop is closed" in shop.error(job, "cron")
    assert "left alone" in shop.error(job, "web")
    assert [version(getattr(shop, name), "plain") for name in HOSTS] == ["1.1", "1.1", "1.0"]
    (ill,) = shop.controller.items("/maintenance/findings?operation=dependencies&host=cron&severity=critical")
    assert (ill["kind"], ill["subject"]) == ("health-check-failed", "/etc/saveos/health.d/shop")


def test_an_interrupted_update_is_told_and_not_built_upon(shop):
    """dpkg is killed in the midst of an update by hand."""
    host = shop.web
    prepared(host)
    on(
        host,
        f"{REPOSITORY}\nPOSTINST='[ -e /srv/apt/ok ] || kill -9 $PPID'\npackage stable plain 1.3\nPOSTINST=\n"
        "publish stable Lab; apt-get -qq update; ! apt-get -qq install -y plain 2>/dev/null; touch /srv/apt/ok",
    )
    audit = record(shop.controller.done("dependencies", "web", online=False), "web")
    broken = found(audit)["update-interrupted"]
    assert broken["severity"] == "critical" and "plain" in broken["evidence"]
    assert "dpkg --configure -a" in broken["fix"]
    status = on(host, "cat /var/lib/dpkg/status; ls /var/lib/dpkg/updates")
    job = shop.controller.ended(shop.controller.ask("dependencies", "web", apply="all", online=False))
    assert job["state"] == "failed" and "dpkg --configure -a" in shop.error(job, "web")
    assert on(host, "cat /var/lib/dpkg/status; ls /var/lib/dpkg/updates") == status
    shop.controller.done("dependencies", "web", apply="repair", online=False)
    assert on(host, "dpkg --audit") == "" and version(host, "plain") == "1.3"
    open_ = shop.controller.items("/maintenance/findings?operation=dependencies&host=web")
    assert "update-interrupted" not in {each["kind"] for each in open_}
