# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A policy as borgmatic's configuration, with the files that keep its secrets. No I/O.

The roles' filters and the controller's "what would this host get" both use this file; it imports nothing of
Ansible, so that the controller can load it by its path.
"""

from __future__ import annotations

import json
import re
import shlex

HEADER = "# Made by SaveOS from the policy in the inventory; changes made here are lost.\n"
RETENTION = ("keep_within", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
MOMENTS = {
    "before": {"before": "action", "when": ["create"]},
    "after": {"after": "action", "when": ["create"], "states": ["finish"]},
    "on_error": {"after": "error"},
}
DATABASES = ("postgresql", "mariadb", "mysql", "sqlite", "mongodb")
# what an entry may say besides kind and password, with borgmatic's name for it
DATABASE_OPTIONS = {
    "name": "name",
    "path": "path",
    "hostname": "hostname",
    "port": "port",
    "username": "username",
    "options": "options",
    "authentication_database": "authentication_database",
}
POSTGRES = "runuser -u postgres --"  # the local server lets only its own user in without a password


class PolicyError(ValueError):
    """A policy that cannot be put in place; the sentence holds no value that may be secret."""


def ssh_command(etc):
    """How borg reaches the storage server: own key, pinned host key, never a question, and no hang."""
    return shlex.join(
        [
            "ssh", "-F", "none", "-i", f"{etc}/ssh/id_ed25519",
            "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={etc}/ssh/known_hosts", "-o", "GlobalKnownHostsFile=none",
            "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=15",
            "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
        ]
    )  # fmt: skip


def borgmatic_configs(repositories, policy):
    """By repository id, the text of its borgmatic configuration."""
    import yaml  # only here: modules load this file on hosts, which need not have it

    texts = {}
    for repository in repositories:
        plain = json.loads(json.dumps(borgmatic_config(policy, repository)))  # without Ansible's tags
        texts[repository["id"]] = HEADER + yaml.safe_dump(
            plain, sort_keys=False, allow_unicode=True, width=1000
        )
    return texts


def borgmatic_config(policy, repository):
    """One repository's borgmatic configuration, as a mapping.

    policy: host, etc, state, sources, excludes, exclude_caches, retention, compression, upload_rate_limit,
    hooks, databases, overrides.
    """
    host, etc, state = policy["host"], policy["etc"], policy["state"]
    if not policy["sources"]:
        raise PolicyError(f"the policy of {host} has no sources: set agent_sources to the paths to back up")
    for source in policy["sources"]:
        if not str(source).startswith("/"):
            raise PolicyError(f"agent_sources of {host}: {source!r} is not an absolute path")
    secrets = [f"{etc}/repositories", f"{etc}/databases", f"{etc}/token", f"{etc}/ssh/id_ed25519", state]
    own = secrets + ([repository["path"]] if repository["kind"] == "local" else [])
    config = {
        "source_directories": list(policy["sources"]),
        "repositories": [{"path": repository["url"], "label": repository["label"]}],
        # a file that each archive holds, for drills; its place is excluded but for this
        "patterns": [f"R {state}/canary", f"+ pp:{state}/canary"],
        "exclude_patterns": [*policy["excludes"], *(f"pp:{path}" for path in own)],
        "exclude_caches": bool(policy["exclude_caches"]),
        "compression": policy["compression"],
        "archive_name_format": re.sub(r"[^\w.-]", "-", host) + "-{now:%Y-%m-%dT%H:%M:%S}",
        "match_archives": "[!+]*",  # archives whose name begins with + are protected: nothing prunes them
        "local_path": "/opt/saveos/bin/borg",
        "encryption_passphrase": f"{{credential file {etc}/repositories/{repository['id']}/passphrase}}",
        "borg_base_directory": f"{state}/borg",
        "user_state_directory": f"{state}/borg",
        "bootstrap": {"store_config_files": False},
        "lock_wait": 60,
        "checks": [{"name": "disabled"}],
        **{key: policy["retention"][key] for key in RETENTION if policy["retention"].get(key)},
    }
    if repository["kind"] == "ssh":
        config["ssh_command"] = ssh_command(etc)
    databases = _databases(policy.get("databases") or [], etc)
    if not databases and not any(str(key).endswith("_databases") for key in policy["overrides"]):
        config["unsafe_skip_path_validation_before_create"] = (
            True  # saves a dry run; only database dumps need it
        )
    if policy["upload_rate_limit"]:
        config["upload_rate_limit"] = int(policy["upload_rate_limit"])
    if commands := _commands(policy["hooks"], etc):
        config["commands"] = commands
    return merged(config | databases, policy["overrides"])


def merged(before, after):
    """Two mappings as one; mappings inside are merged, anything else of `after` wins."""
    found = dict(before)
    for key, value in after.items():
        both = isinstance(found.get(key), dict) and isinstance(value, dict)
        found[key] = merged(found[key], value) if both else value
    return found


def hook_files(policy):
    """The files that hold the commands of a policy's hooks, {path: command}.

    Hooks may hold secrets, and a command line is seen by everybody on the host while it runs.
    """
    _check_hooks(policy["hooks"])
    return {
        _hook_file(policy["etc"], name, number): command
        for name in MOMENTS
        for number, command in enumerate(policy["hooks"].get(name) or [], 1)
    }


def password_files(policy):
    """The files that hold the passwords of a policy's databases, {path: password}; None keeps what is there."""
    files = {}
    for number, entry in enumerate(policy.get("databases") or [], 1):
        _check_database(entry, number)
        if entry.get("password"):
            files[_password_file(policy["etc"], number)] = str(entry["password"])
        elif entry.get("keep_password"):
            files[_password_file(policy["etc"], number)] = None
    return files


def _hook_file(etc, name, number):
    return f"{etc}/hooks/{name}-{number}"


def _password_file(etc, number):
    return f"{etc}/databases/{number}"


def _commands(hooks, etc):
    _check_hooks(hooks)
    return [
        {
            **moment,
            "run": [
                f"sh {shlex.quote(_hook_file(etc, name, number))}" for number, _ in enumerate(hooks[name], 1)
            ],
        }
        for name, moment in MOMENTS.items()
        if hooks.get(name)
    ]


def _databases(entries, etc):
    """borgmatic's options for the databases, by kind."""
    options = {}
    for number, entry in enumerate(entries, 1):
        _check_database(entry, number)
        kind = entry["kind"]
        found = {
            told: entry[name] for name, told in DATABASE_OPTIONS.items() if entry.get(name) not in ("", None)
        }
        found.setdefault("name", entry["path"].rsplit("/", 1)[-1] if kind == "sqlite" else "all")
        if entry.get("password") or entry.get("keep_password"):
            found["password"] = f"{{credential file {_password_file(etc, number)}}}"
        elif kind == "postgresql" and not entry.get("hostname"):
            found |= {
                "pg_dump_command": f"{POSTGRES} {'pg_dumpall' if found['name'] == 'all' else 'pg_dump'}",
                "psql_command": f"{POSTGRES} psql",
                "pg_restore_command": f"{POSTGRES} pg_restore",
            }
        options.setdefault(f"{kind}_databases", []).append(found)
    return options


def _check_database(entry, number):
    where = f"agent_databases, entry {number}"
    if not isinstance(entry, dict) or entry.get("kind") not in DATABASES:
        raise PolicyError(f"{where}: kind must be one of {', '.join(DATABASES)}")
    known = {"kind", "password", "keep_password", *DATABASE_OPTIONS}
    if unknown := sorted(set(map(str, entry)) - known):
        raise PolicyError(f"{where} has no option {unknown[0]}, only {', '.join(sorted(known))}")
    if entry["kind"] == "sqlite" and not str(entry.get("path") or "").startswith("/"):
        raise PolicyError(f"{where}: an SQLite database needs the absolute path of its file")


def _check_hooks(hooks):
    for name, commands in hooks.items():  # no sentence may quote a value: hooks can hold secrets
        if name not in MOMENTS:
            raise PolicyError(f"agent_hooks has no moment {name!r}, only {', '.join(MOMENTS)}")
        if not isinstance(commands, list) or not all(isinstance(command, str) for command in commands):
            raise PolicyError(f"agent_hooks: {name} must be a list of commands")
