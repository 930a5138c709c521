"""Every operation on Debian 12 and 13 by every door: one record, checks that change nothing, runs that end.

All doors of all operations are used at once, so that the minute of the schedules is waited for once.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import packages
import pytest
from fleet import at_rest
from serving import until
from support import on
from untouched import changed, fingerprint, untouched

pytestmark = pytest.mark.lab

HOSTS = ("web", "bare")  # Debian 12, Debian 13
ARCHIVES, TOKEN = "/var/cache/apt/archives", "/etc/saveos/token"


@dataclass(frozen=True)
class Case:
    """An operation: its parameters, and the command that asks for the same."""

    command: str
    parameters: dict[str, Any]


CASES = {
    "cleanup": Case(
        "cleanup run --rule apt-archives --older-than 0 --check --wait",
        {"rules": ["apt-archives"], "older_than": 0},
    ),
    "dependencies": Case("dependencies security --check --wait", {"apply": "security"}),
    "validation": Case(
        "validation all --fix secret-permissions --root /srv/stacks --name localhost --check --wait",
        {"fixes": ["secret-permissions"], "roots": ["/srv/stacks"], "names": ["localhost"]},
    ),
    "secrets": Case(
        "secrets rotate --kind agent-token --older-than 30 --check --wait",
        {"rotate": "agent-token", "older_than_days": 30},
    ),
    "health": Case("health check", {}),
    "drift": Case("drift --wait --markdown", {}),
}
ACTING = ("cleanup", "validation", "dependencies", "secrets")
# What each has to do: package files in apt's cache; an old token that others can read; a setting by hand
PLANTED = f"""
rm -f {ARCHIVES}/*.deb; mkdir -p {ARCHIVES}; touch {ARCHIVES}/lock
head -c 300000 /dev/urandom > {ARCHIVES}/a_1_all.deb; head -c 5000 /dev/urandom > {ARCHIVES}/b_1_all.deb
chmod 644 {TOKEN}; touch -d '40 days ago' {TOKEN}
sed -i 's/"jitter_seconds": [0-9]*/"jitter_seconds": 7/' /etc/saveos/agent.json
"""
# Figures of health that differ from one second to the next
MOVES = re.compile("load_per_cpu|memory_available_bytes|disk_free_percent|last_archive_age|uptime|waiting")
BUSY = re.compile("load|memory|spool")  # what it finds only while the machine is busy


@pytest.fixture(scope="module")
def planted(fleet):
    """The fleet, whose hosts give every operation something to do; they are whole again afterwards."""
    fleet.controller.done("provision", *HOSTS)
    for name in HOSTS:
        host = fleet.lab.hosts[name]
        packages.prepare(host)
        on(host, PLANTED)
        at_rest(host)
    yield fleet
    for name in HOSTS:
        on(fleet.lab.hosts[name], f"rm -f {ARCHIVES}/*.deb; chmod 600 {TOKEN}")
        packages.put_back(fleet.lab.hosts[name])


def by_playbook(fleet, operation: str) -> str:
    """By hand, with the controller as inventory; the callback plugin makes it a job."""
    extra = {f"maintenance_{name}": value for name, value in CASES[operation].parameters.items()}
    fleet.by_hand(operation, "--check", "--limit", ",".join((*HOSTS, "vault")), **extra)
    return str(fleet.controller.items(f"/jobs?operation={operation}&trigger=hand")[0]["id"])


def by_http(fleet, operation: str) -> str:
    job = fleet.controller.ask(operation, *HOSTS, mode="check", **CASES[operation].parameters)
    return str(fleet.controller.ended(job)["id"])


def by_command(fleet, operation: str) -> str:
    words = CASES[operation].command.split()
    report = [str(fleet.lab.dir / "drift.md")] if operation == "drift" else []
    code = {"cleanup": 0, "health": None}.get(operation, 3)  # a host without a backup yet is not well
    return str(fleet.controller.command("maintenance", *words, *report, *HOSTS, code=code)["id"])


def by_schedule(fleet, operation: str) -> str:
    """A schedule that is due at the next minute."""
    soon = datetime.now(UTC) + timedelta(seconds=75)
    body = {
        "name": f"doors-{operation}",
        "operation": operation,
        "targets": {"hosts": list(HOSTS)},
        "parameters": CASES[operation].parameters,
        "mode": "check",
        "cron": f"{soon.minute} {soon.hour} * * *",
    }
    made = fleet.controller.post("/schedules", body, 201)
    path = f"/schedules/{made['id']}"
    job = until(lambda: fleet.controller.get(path)["last_job_id"], 130, f"a job of the schedule of {operation}")
    assert fleet.controller.http("DELETE", path).status_code == 204
    assert fleet.controller.ended(job)["trigger"] == "schedule"
    return str(job)


DOORS = (by_schedule, by_http, by_command, by_playbook)


def record(fleet, job: str, operation: str, host: str) -> dict[str, Any]:
    """The stored result of a job on a host, without what moves by itself."""
    (found,) = fleet.controller.items(f"/maintenance/results?job={job}&host={host}")
    whole = fleet.controller.get(f"/maintenance/results/{found['id']}")
    told = {name: whole[name] for name in ("operation", "state", "summary", "findings", "info", "fixed")}
    if operation == "health":
        told["summary"] = {name: value for name, value in told["summary"].items() if not MOVES.match(name)}
        told["findings"] = [each for each in told["findings"] if not BUSY.match(each["id"])]
    return told


def found(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a record's findings by `id:subject`."""
    return {f"{each['id']}:{each['subject']}": each for each in told["findings"]}


def test_every_door_of_every_operation_gives_the_same_record_and_a_check_changes_nothing(planted):
    """Four doors of six operations on both hosts, with a checksum of their file systems before and after."""
    fleet, hosts = planted, [planted.lab.hosts[name] for name in HOSTS]
    secrets = " ".join(on(host, f"cat {TOKEN} /etc/saveos/repositories/*/passphrase") for host in hosts).split()
    with untouched(*hosts), ThreadPoolExecutor(18) as at_once, ThreadPoolExecutor(2) as plays:
        pools = dict.fromkeys(DOORS, at_once) | {by_playbook: plays}
        asked = {
            (door.__name__, operation): pools[door].submit(door, fleet, operation)
            for door in DOORS
            for operation in CASES
        }
        jobs = {key: future.result() for key, future in asked.items()}
    told: dict[tuple[str, str], dict[str, Any]] = {}
    for operation in CASES:
        for name in HOSTS:
            seen = {
                door.__name__: record(fleet, jobs[door.__name__, operation], operation, name) for door in DOORS
            }
            first = told[operation, name] = seen["by_http"]
            for door, each in seen.items():
                differs = {key: (first[key], value) for key, value in each.items() if value != first[key]}
                assert not differs, f"{operation} of {name} by HTTP and {door}: {differs}"
    for host in hosts:
        sizes = [512 * int(size) for size in on(host, f"stat -c %b {ARCHIVES}/*.deb").split()]
        freed = told["cleanup", host.name]["summary"]
        assert (freed["planned_bytes"], freed["freed_bytes"], freed["files"]) == (sum(sizes), 0, 2)
        assert told["dependencies", host.name]["summary"]["planned"] == 1
        shown = found(told["dependencies", host.name])
        assert shown["security-update:libsafe"]["fixed"]
        assert (
            shown["held-security-update:heldsafe"]["severity"] == "warning" and "held-update:heldback" in shown
        )
        assert found(told["validation", host.name])[f"secret-permissions:{TOKEN}"]["fixed"]
        assert told["secrets", host.name]["summary"]["rotated"] == 1
        assert "secret-readable:agent-token" in found(told["secrets", host.name])
        assert told["health", host.name]["summary"]["borgmatic_version"][0].isdigit()
        subjects = {each["subject"] for each in told["drift", host.name]["findings"]}
        assert subjects == {"/etc/saveos/agent.json", TOKEN}
    for row in fleet.controller.items(f"/jobs/{jobs['by_http', 'dependencies']}/hosts"):
        packs = row["result"]["dependencies"]["packages"]
        (plan,) = [each for each in packs if each["state"] == "planned"]
        assert (plan["name"], plan["before"], plan["after"]) == ("libsafe", "1.0", "1.0+deb1")
        assert plan["cves"] == ["CVE-2026-0001", "CVE-2026-0002"] and plan["severity"] == "high"
    assert {each["host"] for each in fleet.controller.items("/drift")} >= set(HOSTS)
    seen = fleet.controller.get("/hosts/bare/drift")
    assert (seen["state"], seen["changes"]) == ("drifted", 2) and seen["since"]
    assert fleet.controller.get("/hosts/bare")["drift"] is True
    text = (fleet.lab.dir / "drift.md").read_text()
    assert all(word in text for word in ("## bare", "## web", "jitter_seconds", TOKEN))
    said = text + str(told)
    assert not any(secret in said for secret in secrets)


def test_a_run_does_what_the_check_said_and_a_second_one_finds_nothing_to_do(planted):
    """Cleanup, updates, mending and rotation on both hosts at once; drift ends with provisioning."""
    fleet, controller = planted, planted.controller
    hosts = [fleet.lab.hosts[name] for name in HOSTS]
    tokens = [on(host, f"cat {TOKEN}") for host in hosts]

    def ended(*operations: str) -> dict[str, dict[str, Any]]:
        asked = {each: controller.ask(each, *HOSTS, **CASES[each].parameters) for each in operations}
        return {each: controller.ended(job) for each, job in asked.items()}

    moving = (ARCHIVES, "/var/lib/saveos-maintenance")  # what is removed, and what a fix keeps of before
    before = [fingerprint(host, *moving) for host in hosts]
    jobs = ended("cleanup", "validation")
    for host, was in zip(hosts, before, strict=True):
        assert set(changed(was, fingerprint(host, *moving))) == {TOKEN}
        assert on(host, f"ls -A {ARCHIVES}") in ("lock", "lock\npartial")
        assert on(host, f"stat -c %a {TOKEN}") == "600"
    jobs |= ended("dependencies", "secrets")
    for name, host, token in zip(HOSTS, hosts, tokens, strict=True):
        told = {each: record(fleet, job["id"], each, name) for each, job in jobs.items()}
        freed = told["cleanup"]["summary"]
        assert freed["freed_bytes"] == freed["planned_bytes"] > 0 and told["cleanup"]["fixed"] == 1
        assert told["validation"]["fixed"] == 1
        assert told["dependencies"]["summary"]["updated"] == told["secrets"]["summary"]["rotated"] == 1
        assert on(host, "dpkg-query -W -f '${Version} ' libsafe plain").split() == ["1.0+deb1", "1.0"]
        (installed,) = [each for each in told["dependencies"]["findings"] if each["id"] == "updates-installed"]
        assert installed["evidence"] == "libsafe 1.0 → 1.0+deb1"
        assert on(host, f"cat {TOKEN}") != token
        assert {job["by_host"][name]["state"] for job in jobs.values()} == {"changed"}
    for operation, job in ended(*ACTING).items():
        for name in HOSTS:
            row = job["by_host"][name]
            assert (row["state"], row["counts"].get("changed", 0)) == ("ok", 0), (operation, row)
    for name in HOSTS:
        assert controller.items(f"/maintenance/findings?operation=cleanup&host={name}") == []
    controller.done("provision", *HOSTS)
    assert {controller.get(f"/hosts/{name}/drift")["state"] for name in HOSTS} == {"clean"}
    controller.command("maintenance", "drift", *HOSTS, "--wait")
