"""What the module `rotate` chooses to rotate and what it finds, and how `drift` tells differences."""

import datetime

import pytest
from ansible_collections.saveos.fleet.plugins.modules import drift, rotate

NOW = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
STORE = "0193aaaa-0000-7000-8000-000000000001"
ASKED = {
    "kind": "none",
    "repository": "",
    "older_than_days": 0,
    "max_age_days": 365,
    "fixes": [],
    "recovery_public_key": "",
}


def held(kind, days, subject="", **more):
    made = None if days is None else (NOW - datetime.timedelta(days=days)).isoformat()
    return {"kind": kind, "subject": subject, "made_at": made, "private": True, "open": False} | more


HELD = [
    held("passphrase", 400, STORE),
    held("passphrase", 3, "other"),
    held("escrow", None, STORE),
    held("ssh-key", 500),
    held("agent-token", 1),
]


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ({}, []),
        ({"kind": "passphrase"}, [f"passphrase {STORE}", "passphrase other"]),
        ({"kind": "passphrase", "older_than_days": 365}, [f"passphrase {STORE}"]),
        ({"kind": "passphrase", "repository": "other"}, ["passphrase other"]),
        ({"kind": "ssh-key"}, ["ssh-key"]),
        ({"fixes": [f"secret-old:passphrase {STORE}"]}, [f"passphrase {STORE}"]),
        ({"fixes": ["secret-old:ssh-key"]}, []),
    ],
)
def test_only_what_is_asked_for_and_due_is_rotated(asked, chosen):
    assert [rotate.subject_of(each) for each in rotate.due(HELD, ASKED | asked, NOW)] == chosen


def findings(items, **asked):
    found = rotate.examine(items, ASKED | asked, NOW, False).result()["findings"]
    return {(each["id"], each["subject"], each["severity"]) for each in found}


def test_old_missing_readable_and_interrupted_secrets_are_findings():
    old = {("secret-old", f"passphrase {STORE}", "info"), ("secret-old", "ssh-key", "info")}
    assert findings(HELD) == old
    assert findings(HELD, max_age_days=0) == set()
    missing = ("secret-missing", f"escrow {STORE}", "warning")
    assert findings(HELD, recovery_public_key="x") == {*old, missing}
    broken = [
        held("ssh-key", 1, private=False),
        held("passphrase", 1, "a", open=True),
        held("agent-token", None),
    ]
    assert findings(broken) == {
        ("secret-readable", "ssh-key", "critical"),
        ("rotation-open", "passphrase a", "warning"),
        ("secret-missing", "agent-token", "critical"),
    }


def test_a_difference_is_told_as_unified_text():
    name, text = drift.unified(
        {"before_header": "/etc/a", "after_header": "/etc/a", "before": "x\ny\n", "after": "x\nz"}
    )
    assert name == "/etc/a"
    assert text.startswith("--- /etc/a (is)\n+++ /etc/a (should be)\n")
    assert text.endswith(" x\n-y\n+z\n")
