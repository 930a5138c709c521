"""The live view: what a picture shows, worst first, and that nothing from a host reaches the terminal raw."""

import re

from saveos.cli import monitor

SYSTEM = {
    "status": "warning",
    "version": "0.3.0",
    "at": "2026-01-01T00:00:00Z",
    "database": {"kind": "sqlite", "milliseconds": 0.4, "bytes": 4096},
    "queue": {"queued": 2, "running": 1, "oldest_seconds": 75},
    "workers": [
        {"name": "box:1:ab", "version": "0.3.0", "slots": 4, "running": 1, "swept_seconds": 9}
        | {"seen_seconds": 2, "up_seconds": 900}
    ],
    "certificates": [{"name": "server", "ends_at": "2026-05-01T00:00:00Z"}],
    "disk": {"free": 5 * 10**9, "total": 10**10},
    "own_backup": {"at": None, "every_hours": 24},
    "findings": [
        {"id": "queue-waits", "severity": "warning", "title": "A job waits.", "fix": "Look.", "evidence": ""}
    ],
}


def host(name, protection, **more):
    """Return a host as GET /hosts tells it."""
    facts = {"health": {"state": "ok", "summary": {"load_per_cpu": 0.25}, "memory_available_bytes": 2**30}}
    known = {
        "name": name,
        "protection": protection,
        "facts": facts,
        "versions": {"agent": "0.3.0", "borg": "1.4.5"},
    }
    known |= {"last_backup_at": None, "seen_at": None, "disk_free_share": 0.5}
    return known | more


class Client:
    """Answers what the view asks."""

    def __init__(self, hosts, alerts=()):
        self.pages = {"/hosts": hosts, "/jobs": [], "/alerts": list(alerts)}

    def get(self, path):
        assert path == "/system/health"
        return SYSTEM

    def page(self, path, limit, **filters):
        return {"items": self.pages[path]}


def test_a_picture_shows_controller_alerts_and_hosts_worst_first():
    alert = {"severity": "critical", "title": "backup failed", "summary": "web2 failed"}
    hosts = [
        host("web1", "protected"),
        host("web2", "failing"),
        host("web3", "late", facts={}, disk_free_share=None),
    ]
    seen = monitor.look(Client(hosts, [alert]))
    assert seen["state"] == "critical"
    lines = monitor.frame(seen, 120, 60, plain=True)
    text = "\n".join(lines)
    assert re.findall(r"web\d  ", text) == ["web2  ", "web3  ", "web1  "]
    assert "3 hosts: 1 failing, 1 late, 1 protected" in lines[0]
    for told in (
        "sqlite, 0.4 ms",
        "1 running, 2 waiting",
        "box:1:ab",
        "2026-05-01",
        "A job waits.",
        "web2 failed",
    ):
        assert told in text, told
    assert "\x1b" not in text


def test_a_picture_fits_the_terminal():
    seen = monitor.look(Client([host(f"host-{number:03}", "protected") for number in range(500)]))
    lines = monitor.frame(seen, 50, 24)
    assert len(lines) <= 24
    assert all(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= 50 for line in lines)
    assert "more hosts" in lines[-1]


def test_names_cannot_move_the_cursor():
    seen = monitor.look(
        Client([host("web\x1b[2J", "protected", versions={"agent": "\x1b]0;x\x07", "borg": ""})])
    )
    text = "\n".join(monitor.frame(seen, 200, 60, plain=True))
    assert "\x1b" not in text
    assert "\\x1b[2J" in text
