# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What restoring a host needs, as it is sealed to the recovery key, and what was sealed before."""

from __future__ import annotations

import json

from ansible_collections.saveos.fleet.plugins.module_utils.converge import read


def pins(etc, repository):
    """The host keys that the host itself has pinned for the repository's server."""
    if repository["kind"] != "ssh":
        return []
    address, port = repository["address"], int(repository["port"])
    name = address if port == 22 else f"[{address}]:{port}"
    lines = (read(f"{etc}/ssh/known_hosts") or "").splitlines()
    return [line.partition(" ")[2] for line in lines if line.partition(" ")[0] == name]


def material(etc, host, repository):
    """What restoring needs, as text; None where the repository is not made yet.

    One line a field, so that a shell without any JSON tool can read it.
    """
    secrets = f"{etc}/repositories/{repository['id']}"
    passphrase, key_export = read(f"{secrets}/passphrase"), read(f"{secrets}/key-export")
    if not passphrase or not key_export:
        return None
    content = {
        "schema": 1,
        "host": host,
        "repository_id": repository["id"],
        "url": repository["url"],
        "passphrase": passphrase.rstrip("\n"),
        "key_export": key_export,
        "host_keys": pins(etc, repository),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def known_escrow(file):
    """What was sealed before; empty where there is nothing or it is damaged."""
    try:
        known = json.loads(read(file) or "{}")
    except ValueError:
        return {}
    return known if isinstance(known, dict) and known.keys() >= {"digest", "recovery_key", "sealed"} else {}
