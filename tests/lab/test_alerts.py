"""Nothing is silently missing: alerts of real hosts reach real receivers once, and end by themselves.

Only one thing is put in the controller's database by hand: that a host was added two hours ago, since
a host may wait an hour for its provisioning.
"""

import sqlite3
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fleet import at_rest
from serving import until
from support import on

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.receivers import http, smtp

pytestmark = pytest.mark.lab

MINUTE = timedelta(minutes=1)
SWEPT = 90  # seconds: a sweep comes every 3, on a machine that other tests keep busy
REPOSITORIES = "/srv/saveos/repositories"


@pytest.fixture(scope="module")
def receivers(fleet):
    """A webhook, a mailbox and an ntfy server of this machine, each a channel of the controller."""
    with http() as hook, smtp() as mail, http() as ntfy:
        urls = {
            "hook": f"http://127.0.0.1:{hook.port}/saveos",
            "mail": f"mailto://127.0.0.1:{mail.port}?from=saveos@example.org&to=ops@example.org",
            "phone": f"ntfy://127.0.0.1:{ntfy.port}/saveos",
        }
        for name, url in urls.items():
            fleet.controller.command("channels", "add", name, "-", stdin=f"{url}\n")
        yield hook, mail, ntfy
        for name in urls:
            fleet.controller.http("DELETE", f"/channels/{name}")


@pytest.fixture(scope="module", autouse=True)
def frozen(fleet, receivers):
    """web, backed up by its own timer each minute with a minute of grace, hangs since its last backup.

    The other tests run while its backup falls due. Afterwards it is as before.
    """
    policy = {"name": "minutely", "sources": ["/etc/hostname"], "schedule": "* * * * *"}
    fleet.controller.post("/policies", policy | {"jitter_minutes": 0, "grace_minutes": 1}, 201)
    assign(fleet, "minutely")
    fleet.controller.done("backup", "web")
    thaw = fleet.web.freeze()
    undo = [thaw]
    yield lambda: undo.pop()()  # noqa: PLW0108 - popped when it is called
    for each in undo:
        each()
    assign(fleet, "lab")
    at_rest(fleet.web)


def assign(fleet, policy):
    answer = fleet.controller.http("PATCH", "/hosts/web", {"policy": policy})
    assert answer.is_success, answer.text
    fleet.controller.done("provision", "web")


def unresolved(fleet, host):
    return {alert["rule"]: alert for alert in fleet.controller.items(f"/alerts?host={host}")}


def messages(receivers, host):
    """What the webhook was told of a host."""
    return [each for each in receivers[0].json() if each["host"] == host]


def told(receivers, host):
    """(event, rule) that the webhook was told of a host; the other two must have heard the same."""
    _, mail, ntfy = receivers
    mine = messages(receivers, host)
    titles = [each["title"] for each in mine]

    def others():
        mails = [str(each["Subject"]) for *_, each in mail.mails]
        heard = [each["title"] for each in ntfy.json()]
        return [[title for title in each if f" {host}: " in title] for each in (mails, heard)]

    until(lambda: others() == [titles, titles], SWEPT, f"{titles} everywhere, not only: {others()}")
    return [(each["event"], each["rule"]) for each in mine]


def test_a_host_that_is_only_in_the_inventory_is_named(fleet, receivers):
    fleet.controller.post("/hosts", {"name": "forgotten", "address": "192.0.2.7"}, 201)
    with sqlite3.connect(fleet.controller.home / "saveos.db", timeout=20) as database:
        two_hours = "update hosts set created_at = datetime(created_at, '-2 hours') || '.000000' where name = ?"
        assert database.execute(two_hours, ["forgotten"]).rowcount == 1
    until(lambda: "never_enrolled" in unresolved(fleet, "forgotten"), SWEPT, "an alert of forgotten")
    summary = unresolved(fleet, "forgotten")["never_enrolled"]["summary"]
    assert "forgotten is in the inventory since" in summary
    assert "never provisioned" in summary
    until(lambda: told(receivers, "forgotten"), SWEPT, "the message")
    assert told(receivers, "forgotten") == [("opened", "never_enrolled")]
    fleet.controller.http("DELETE", "/hosts/forgotten")
    until(lambda: not unresolved(fleet, "forgotten"), SWEPT, "the alert's end")


def test_a_server_that_never_saw_what_a_host_claims_is_told(fleet, receivers):
    """The server's disk goes back to an older state behind Borg's back: only the cross-check sees it."""
    (repository,) = fleet.controller.items("/repositories?host=bare")
    place = f"{REPOSITORIES}/{repository['id']}"
    fleet.controller.done("backup", "bare")
    on(fleet.vault, f"cp -a {place} /srv/older && find /srv/older -type f -exec touch -d '3 hours ago' {{}} +")
    fleet.controller.done("backup", "bare")
    at_rest(fleet.bare)  # pruning still writes
    fleet.controller.done("health", "vault")
    seen = fleet.controller.get(f"/repositories/{repository['id']}")
    backup = datetime.fromisoformat(fleet.controller.get("/hosts/bare")["last_backup_at"])
    assert abs((datetime.fromisoformat(seen["last_commit_at"]) - backup).total_seconds()) < 60
    assert seen["size"] == int(
        on(fleet.vault, f"find {place} -type f -printf '%s\n' | awk '{{s+=$1}} END {{print s}}'")
    )
    assert (seen["fault"], seen["missing_since"]) == ("", None)
    try:
        on(fleet.vault, f"mv {place} /srv/newer && mv /srv/older {place}")
        fleet.controller.done("health", "vault")
        until(lambda: "mismatch" in unresolved(fleet, "bare"), SWEPT, "an alert of bare")
        assert "its storage server vault never saw it" in unresolved(fleet, "bare")["mismatch"]["summary"]
        on(fleet.vault, f"mv {place} /srv/older")
        fleet.controller.done("health", "vault")
        until(lambda: "repository_damaged" in unresolved(fleet, "bare"), SWEPT, "another alert of bare")
    finally:
        on(fleet.vault, f"rm -rf {place}; mv /srv/newer {place}; rm -rf /srv/older")
    on(fleet.vault, f"touch {place}/foreign")
    fleet.controller.done("health", "vault")
    until(lambda: "1 file in it does not belong to" in str(seen_again(fleet, repository)), 30, "the file")
    on(fleet.vault, f"rm {place}/foreign")
    fleet.controller.done("health", "vault")
    until(lambda: "repository_damaged" not in unresolved(fleet, "bare"), SWEPT, "the alert's end")
    until(lambda: ("resolved", "repository_damaged") in told(receivers, "bare"), SWEPT, "the last message")
    ours = ("mismatch", "repository_damaged")  # other tests' alerts of this host may end meanwhile
    assert [each for each in told(receivers, "bare") if each[1] in ours] == [
        ("opened", "mismatch"),
        ("opened", "repository_damaged"),
        ("resolved", "repository_damaged"),
    ]


def seen_again(fleet, repository):
    return fleet.controller.get(f"/repositories/{repository['id']}")


def test_a_host_that_stops_is_told_once_and_its_return_too(fleet, receivers, frozen):
    until(lambda: "overdue" in unresolved(fleet, "web"), 120 + SWEPT, "an alert")
    alert, host = unresolved(fleet, "web")["overdue"], fleet.controller.get("/hosts/web")
    assert alert["severity"] == "warning"
    assert alert["since"] == host["due_at"]
    assert datetime.fromisoformat(host["due_at"]) <= datetime.fromisoformat(alert["first_seen"])
    assert datetime.fromisoformat(host["due_at"]) > datetime.fromisoformat(host["last_backup_at"]) + MINUTE
    until(lambda: overdue(receivers), SWEPT, "a message")
    message = overdue(receivers)[0]
    assert message["link"] == f"{fleet.controller.url}/hosts/web"
    assert "web has no backup since" in message["message"]
    frozen()
    until(lambda: "overdue" not in unresolved(fleet, "web"), 60 + SWEPT, f"its end: {state_of(fleet.web)}")
    until(lambda: len(overdue(receivers)) == 2, SWEPT, "the second message")
    heard = [event for event, rule in told(receivers, "web") if rule == "overdue"]
    assert heard == ["opened", "resolved"]
    ended = overdue(receivers)[1]
    assert (ended["type"], ended["alert"]) == ("success", alert["id"])
    assert "web is well again. Last backup: " in ended["message"]
    until(
        lambda: deliveries(fleet, "mail", alert) == ["opened delivered", "resolved delivered"], SWEPT, "the log"
    )


def overdue(receivers):
    """Messages about web's backup; a host that froze may be told to have a wrong clock, too."""
    return [each for each in messages(receivers, "web") if each["rule"] == "overdue"]


def state_of(host):
    return on(
        host, "systemctl list-timers --all; journalctl -n 30 --no-pager; ls -la /var/lib/saveos-agent/spool"
    )


def deliveries(fleet, channel, alert):
    log = fleet.controller.items(f"/channels/{channel}/deliveries")[::-1]
    return [f"{each['kind']} {each['state']}" for each in log if each["alert_id"] == alert["id"]]
