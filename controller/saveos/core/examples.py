"""Examples of request bodies, for the API's reference; a test holds each against its route's model."""

from typing import Any

ID = "0199a7c4-0000-7000-8000-000000000001"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGria35CWugwYs6CLr3PVZ3ZtZA6opmoWn2XUY0igSrQ"
NIGHTLY = {"name": "tidy", "operation": "cleanup", "targets": {"all": True}, "cron": "30 4 * * 0"}

# method and path below /api/v1 → body
EXAMPLES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/auth/login"): {"name": "admin", "password": "correct horse battery"},
    ("POST", "/auth/password"): {"current": "one-time password", "new": "correct horse battery"},
    ("PATCH", "/settings"): {"content_through_controller": False},
    ("POST", "/users"): {"name": "ana", "role": "operator"},
    ("PATCH", "/users/{user_id}"): {"reset_password": True},
    ("POST", "/tokens"): {"name": "gitops", "scopes": ["jobs:read", "jobs:write"], "expires_in_days": 90},
    ("POST", "/tokens/{token_id}/rotate"): {"overlap_hours": 24},
    ("POST", "/recovery"): {"public_key": "TheA5UhKXqrfDfqRthA7BIKZwkvOc8DtPZ9qmO45z0E=", "mode": "offline"},
    ("POST", "/hosts"): {
        "name": "web1",
        "address": "10.0.0.5",
        "ssh_host_keys": [KEY],
        "groups": ["web"],
        "policy": "web",
        "repository": {"kind": "ssh", "server": "vault", "quota": "200G"},
    },
    ("POST", "/hosts/scan"): {"address": "10.0.0.5"},
    ("PATCH", "/hosts/{host}"): {"policy": "web", "tags": ["paris"]},
    ("POST", "/hosts/bulk"): {
        "action": "add_tags",
        "tags": ["paris"],
        "filter": {"group": "web"},
        "dry_run": True,
    },
    ("POST", "/groups"): {"name": "web", "hosts": ["web1", "web2"]},
    ("PATCH", "/groups/{group}"): {"add_hosts": ["web3"]},
    ("PUT", "/groups/{group}/policy"): {"policy": "web", "priority": 10},
    ("POST", "/alerts/{alert_id}/mute"): {"until": "2030-01-01T08:00:00Z"},
    ("POST", "/channels"): {
        "name": "ops",
        "url": "https://hooks.example.net/saveos",
        "severities": ["critical"],
    },
    ("PATCH", "/channels/{channel}"): {"enabled": False},
    ("POST", "/repositories"): {"host": "web1", "server": "vault2", "quota": "200G"},
    ("PATCH", "/repositories/{repository_id}"): {"quota": "300G"},
    ("POST", "/repositories/{repository_id}/approvals"): {
        "reason": "vanished",
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "days": 1,
        "note": "moved the films away",
    },
    ("POST", "/policies"): {
        "name": "web",
        "sources": ["/etc", "/srv"],
        "excludes": ["*/.cache"],
        "schedule": "30 1 * * *",
        "zone": "Europe/Paris",
        "retention": {"keep_within": "7d", "keep_daily": 14, "keep_monthly": 12},
    },
    ("PATCH", "/policies/{policy}"): {"retention": {"keep_within": "7d", "keep_daily": 30}},
    ("POST", "/policies/apply"): {"policy": {"name": "web", "sources": ["/etc", "/srv"]}, "dry_run": True},
    ("POST", "/policies/preview"): {"schedule": "Mon..Fri 02:00", "zone": "Europe/Paris", "count": 3},
    ("POST", "/policies/{policy}/rollback"): {"version": 3, "note": "the new excludes were wrong"},
    ("POST", "/policies/{policy}/simulate"): {"retention": {"keep_daily": 3}, "days": 90},
    ("PATCH", "/archives/{archive_id}"): {"note": "before the upgrade", "tags": ["release"]},
    ("POST", "/archives/{archive_id}/care"): {"action": "rename", "new_name": "release-1.0"},
    ("POST", "/archives/{archive_id}/diff"): {"path": "/etc/hosts"},
    ("POST", "/archives/{archive_id}/text"): {"path": "/etc/hosts"},
    ("POST", "/restores"): {
        "host": "web1",
        "archive": "latest",
        "paths": ["/etc/nginx"],
        "excludes": ["/etc/nginx/old"],
        "destination": "/srv/back",
        "preview": True,
    },
    ("POST", "/backup"): {"hosts": ["web1"]},
    ("POST", "/maintenance/{operation}"): {"targets": {"groups": ["web"]}, "mode": "check", "parameters": {}},
    ("POST", "/maintenance/findings/fix"): {"findings": [ID], "mode": "check"},
    ("POST", "/drills/rebuilds"): {"host": "web1", "sandbox": "spare", "destination": "/srv/rebuilt"},
    ("POST", "/schedules"): NIGHTLY,
    ("POST", "/schedules/apply"): {"schedules": [NIGHTLY], "prune": False, "dry_run": True},
    ("PATCH", "/schedules/{schedule}"): {"enabled": False},
    ("POST", "/enrolment/tokens"): {"name": "autumn", "minutes": 4320, "max_uses": 200, "groups": ["web"]},
    ("POST", "/enrolment/registrations/{registration}/refuse"): {"reason": "not one of ours"},
}

# what a parameter means that its route says nothing of
PARAMETERS = {
    "after": "Only later than this (ISO 8601); of events: than this number",
    "before": "Only earlier than this (ISO 8601)",
    "count": "How many at most",
    "cron": "Five fields, or a systemd calendar expression",
    "days": "How far to look back, or ahead",
    "format": "How the answer is written",
    "group": "Only hosts of this group",
    "host": "Only of this host, by name or id",
    "idempotency-key": "The same key answers with what was made the first time",
    "job": "Only of this job",
    "kind": "Only of this kind",
    "last-event-id": "Go on after this event",
    "max_size": "At most so many bytes",
    "min_size": "At least so many bytes",
    "mode": "run or check",
    "older_than_days": "Only what is older than so many days",
    "open": "Only what is open; false: what is resolved, too",
    "operation": "Only of this operation",
    "outcome": "Only with this outcome",
    "protection": "Only hosts that are protected so",
    "repository": "Only of this repository, by id",
    "requested_by": "Only what this user asked for",
    "rule": "Only alerts of this rule",
    "server": "Only of this storage server, by name or id",
    "severity": "Only as grave as this",
    "start": "Number of the first event",
    "state": "Only in this state",
    "tag": "Only with this tag",
    "trigger": "Only what was started by this: api, cli, dashboard, schedule, hand, …",
    "zone": "Time zone, like Europe/Paris",
}


def show(document: dict[str, Any], prefix: str) -> None:
    """Put examples and missing words into an OpenAPI document whose routes are below `prefix`."""
    for path, item in document["paths"].items():
        for operation in item.values() if not path.startswith(f"{prefix}/agents/") else ():
            for each in operation.get("parameters", ()):
                if each["in"] != "path" and each["name"] in PARAMETERS:
                    each.setdefault("description", PARAMETERS[each["name"]])
    for (method, path), example in EXAMPLES.items():
        operation = document["paths"].get(prefix + path, {}).get(method.lower(), {})
        for content in operation.get("requestBody", {}).get("content", {}).values():
            content["example"] = example
