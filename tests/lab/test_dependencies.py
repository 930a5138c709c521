"""Updates on real hosts (Debian 12 and 13) from a local apt repository with a security source.

Each test makes the same start: packages at 1.0 with an ordinary, a security, two held and one impossible
update.
"""

from typing import Any

import packages
import pytest
from support import on

pytestmark = pytest.mark.lab

HOSTS = ("bare", "cron", "web")


@pytest.fixture(scope="module")
def shop(fleet):
    """The fleet, whose hosts take packages from repositories of their own while these tests run."""
    yield fleet
    for name in HOSTS:
        packages.put_back(getattr(fleet, name))


def version(host, package):
    return on(host, "dpkg-query -W -f '${Version}' \"$1\"", package)


def found(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a record's findings by `id` or `id:subject`."""
    return {":".join(filter(None, (each["id"], each["subject"]))): each for each in told["findings"]}


def record(job: dict[str, Any], name: str) -> dict[str, Any]:
    told: dict[str, Any] = job["by_host"][name]["result"]["dependencies"]
    return told


def test_updates_are_applied_as_planned_and_a_second_run_changes_nothing(shop):
    """All updates; test_operation_doors.py applies those of security, on Debian 12 and 13."""
    packages.prepare(shop.web)
    on(shop.web, "mkdir -p /srv/shop && echo 'jinja2==3.1.2' > /srv/shop/requirements.txt")
    asked = {"apply": "all", "online": False}
    planned = record(
        shop.controller.ended(shop.controller.ask("dependencies", "web", mode="check", **asked)), "web"
    )
    plan = {each["name"]: each["after"] for each in planned["packages"] if each["state"] == "planned"}
    assert plan == {"libsafe": "1.2", "plain": "1.1"}
    assert "jinja2 3.1.2" in found(planned)["libraries-not-judged"]["evidence"]
    done = record(shop.controller.done("dependencies", "web", **asked), "web")
    assert {each["name"]: each["after"] for each in done["packages"] if each["state"] == "installed"} == plan
    assert done["summary"]["healthy"]
    assert "wants 1.0 → 1.1" in found(done)["updates-kept-back"]["evidence"]
    assert version(shop.web, "heldback") == version(shop.web, "heldsafe") == "1.0"

    again = shop.controller.done("dependencies", "web", **asked)
    assert again["by_host"]["web"]["counts"]["changed"] == 0
    assert record(again, "web")["summary"]["updated"] == 0


def test_the_batch_stops_at_a_host_whose_health_check_fails(shop):
    """bare comes first and is well; cron fails its own check after the update; web is never touched."""
    for name in HOSTS:
        packages.prepare(getattr(shop, name))
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
    packages.prepare(host)
    on(
        host,
        f"{packages.REPOSITORY}\nPOSTINST='[ -e /srv/apt/ok ] || kill -9 $PPID'\n"
        "package stable plain 1.3\nPOSTINST=\n"
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
