"""Canary secrets in a hook, a passphrase and tokens: found nowhere after a failing, verbose job."""

import base64
import json
import os
import sqlite3
import threading
import urllib.parse
import zlib
from pathlib import Path

import pytest
from fleet import processes_of
from saveos.runner.directory import private_root
from support import on

pytestmark = pytest.mark.lab

HOOK = "CANARYhook5b1d77e0"
AFTER = "CANARYerror93aa41c2"


class Watch(threading.Thread):
    """Samples process lists, environments and the plays' private directories while jobs run."""

    def __init__(self, story):
        super().__init__(daemon=True)
        self.story = story
        self.seen = []
        self.over = threading.Event()
        self.broken = ""

    def run(self):
        """Sample until told to stop; what goes wrong is kept for the test."""
        try:
            while not self.over.wait(0.15):
                self.sample()
        except Exception as error:  # noqa: BLE001 - a thread's own error would be lost
            self.broken = repr(error)

    def sample(self):
        """Look once at everything that others could see."""
        self.seen.append(f"controller: {list(processes_of(self.story.controller).values())}")
        for pid in processes_of(self.story.controller):
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            self.seen.append(f"environment: {environment}")
        self.seen.append(f"web: {on(self.story.web, 'ps -eo args --no-headers', code=None)}")
        for path in walked(private_root(self.story.controller.home)):
            if path.name != "ssh_key":
                try:
                    self.seen.append(f"{path}: {path.read_bytes().decode(errors='replace')}")
                except OSError:
                    continue


def walked(root):
    """Return the files below a directory that changes meanwhile."""
    return [Path(folder) / name for folder, _, names in os.walk(root) for name in names]


@pytest.fixture(scope="module")
def failed(fleet):
    """Hooks with canaries are given to web by a verbose check and run; then a verbose backup fails."""
    controller = fleet.controller
    watch = Watch(fleet)
    kept = controller.get("/hosts/web")["policy_name"]
    before = [f"test -n {HOOK} && sleep 4", f"echo {HOOK} >&2; exit 3"]
    hooks = {"before": before, "on_error": [f"echo {AFTER}"]}
    policy = {"name": "canary", "sources": ["/srv/data"], "hooks": hooks}
    controller.post("/policies", policy, 201)
    answer = controller.http("PATCH", "/hosts/web", {"policy": "canary"})
    assert answer.is_success, answer.text
    controller.stop()
    controller.environment["SAVEOS_VERBOSITY"] = "3"
    controller.start()
    watch.start()
    jobs = [
        controller.ended(controller.ask("provision", "web", mode="check")),
        controller.ended(controller.ask("provision", "web")),
        controller.ended(controller.ask("backup", "web")),
    ]
    watch.over.set()
    watch.join()
    assert not watch.broken, watch.broken
    yield {"fleet": fleet, "jobs": jobs, "seen": "\n".join(watch.seen)}
    del controller.environment["SAVEOS_VERBOSITY"]
    controller.http("PATCH", "/hosts/web", {"policy": kept}).raise_for_status()
    controller.stop()
    controller.start()
    controller.done("provision", "web")
    assert controller.http("DELETE", "/policies/canary").is_success


@pytest.fixture(scope="module")
def canaries(failed):
    """Every secret there is, in the forms it could leak in."""
    fleet = failed["fleet"]
    found = {
        "hook": HOOK,
        "error hook": AFTER,
        "agent token": on(fleet.web, "cat /etc/saveos/token"),
        "passphrase": on(fleet.web, "cat /etc/saveos/repositories/*/passphrase"),
        "agent's SSH key": on(fleet.web, "sed -n 3p /etc/saveos/ssh/id_ed25519"),
        "admin token": fleet.controller.token,
        "admin password": fleet.controller.password,
    }
    assert all(len(value) > 10 for value in found.values()), found.keys()
    return {
        f"{name} ({form})": value
        for name, plain in found.items()
        for form, value in (
            ("plain", plain),
            ("base64", base64.b64encode(plain.encode()).decode()),
            ("quoted", urllib.parse.quote(plain)),
        )
    }


def clean(canaries, text, where, allowed=()):
    """Require that no canary is in a text."""
    hits = {
        name for name, value in canaries.items() if value in text and not name.startswith(tuple(allowed) or "?")
    }
    assert not hits, f"{where} shows {sorted(hits)}"


def test_the_job_failed_because_of_the_hook(failed):
    """The jobs did what the canaries need: the hook is on the host, and the backup failed in it."""
    check, provision, backup = failed["jobs"]
    controller = failed["fleet"].controller
    assert (check["state"], provision["state"], backup["state"]) == ("succeeded", "succeeded", "failed"), (
        controller.story(backup)
    )
    run = backup["by_host"]["web"]["result"]["run"]
    assert run["results"][0]["error"]["code"] == "hook_failed"
    assert HOOK in on(failed["fleet"].web, "cat /etc/saveos/hooks/*")


def test_the_database_holds_none(failed, canaries):
    """Neither in plain columns nor in compressed ones."""
    path = failed["fleet"].controller.home / "saveos.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            for row in database.execute(f'select * from "{table}"'):
                for value in row:
                    clean(canaries, readable(value), f"table {table}")


def readable(value):
    """Return a column's value as text, unpacked where it is compressed."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        value = zlib.decompress(value)
    except zlib.error:
        pass
    return value.decode(errors="replace")


def test_files_of_the_controller_hold_none(failed, canaries):
    """Logs, spools, artifacts, write-ahead log: only the files that are made to hold a secret do."""
    controller = failed["fleet"].controller
    secret_files = {"cli.json": "admin token"}
    files = [controller.log, *(path for path in controller.home.rglob("*") if path.is_file())]
    assert len(files) > 3
    for path in files:
        text = path.read_bytes().decode(errors="replace")
        clean(canaries, text, str(path), (secret_files[path.name],) if path.name in secret_files else ())


def test_process_lists_and_job_directories_showed_none(failed, canaries):
    """Sampled all the time on controller and host; plays' directories on tmpfs too."""
    assert "ansible-playbook" in failed["seen"] and "borgmatic" in failed["seen"], "the samples missed the jobs"
    clean(canaries, failed["seen"], "a process list, environment or job directory")


def test_answers_show_none(failed, canaries):
    """API answers, event streams, logs as text and diffs."""
    controller = failed["fleet"].controller
    paths = [
        "/hosts",
        "/hosts/web",
        "/policies",
        "/repositories",
        "/archives",
        "/jobs",
        "/runs?host=web",
        "/tokens",
    ]
    paths += ["/users", "/audit", "/inventory", "/system/health"]
    for job in failed["jobs"]:
        paths += [f"/jobs/{job['id']}{end}" for end in ("", "/hosts", "/log?count=1000", "/log?format=text")]
    paths += [f"/runs/{run['id']}" for run in controller.items("/runs?host=web")]
    for path in paths:
        answer = controller.http("GET", path)
        assert answer.is_success, (path, answer.text)
        clean(canaries, answer.text, path)
    for job in failed["jobs"]:
        clean(canaries, json.dumps([data for _, _, data in controller.events(job["id"])]), "an event stream")
    check = controller.http("GET", f"/jobs/{failed['jobs'][0]['id']}/log?format=text").text
    assert "/etc/saveos" in check, "the check mode's log shows no diff at all"


def test_journals_on_the_host_hold_none(failed, canaries):
    """What systemd logged on the host and what the agent keeps for its history."""
    fleet = failed["fleet"]
    clean(canaries, on(fleet.web, "journalctl --no-pager -o cat | tail -n 3000"), "the host's journal")
    history = on(fleet.web, "cat /var/lib/saveos-agent/runs/*.json")
    clean(canaries, history, "the agent's history")


def test_the_server_holds_none(failed, canaries):
    """Nothing of the agent's secrets is on the storage server."""
    script = 'grep -rlF -e "$1" /srv/saveos /etc /var/log 2>/dev/null || true'
    for name, value in canaries.items():
        if "(plain)" in name:
            assert not on(failed["fleet"].vault, script, value), name
