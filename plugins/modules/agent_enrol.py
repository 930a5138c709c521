#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import glob
import hashlib
import os
import secrets

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.converge import Converge, read, run

DOCUMENTATION = r"""
module: agent_enrol
short_description: Give a host its identity
version_added: 0.1.0
author: The SaveOS contributors (@saveos)
description:
  - Makes what is born on the host and never leaves it, each once - its SSH key, its agent token and a
    passphrase per repository.
  - Returns only what others may know.
options:
  etc:
    description: The agent's configuration directory.
    type: str
    required: true
  name:
    description: Name of the host, for the comment of its key.
    type: str
    required: true
  repositories:
    description: Ids of the host's repositories.
    type: list
    elements: str
    required: true
attributes:
  check_mode: {support: full, description: Says what would be made.}
"""

EXAMPLES = r"""
- name: Give the host its identity
  saveos.fleet.agent_enrol:
    etc: /etc/saveos
    name: web1
    repositories: [0198c5f0-0000-7000-8000-000000000001]
"""

RETURN = r"""
saveos:
  description: The public half of the identity; empty strings in check mode where it is not made yet.
  returned: success
  type: dict
  sample: {identity: {public_key: ssh-ed25519 AAAA, token_sha256: e3b0, host_keys: [ssh-ed25519 AAAA]}}
"""


def host_keys():
    """The host's SSH public keys, type and base64 only."""
    keys = [
        " ".join((read(file) or "").split()[:2]) for file in sorted(glob.glob("/etc/ssh/ssh_host_*_key.pub"))
    ]
    return [key for key in keys if key]


def secret(host, path):
    """A random secret in a root-only file, made once; returns it, or an empty string in check mode."""
    known = read(path)
    if known is not None:
        if not known.strip():
            host.fail(
                f"{path} is empty: put back the secret that was in it, or remove the file if nothing was ever "
                "made with it"
            )
        host.file(path, known, 0o600, show=False)
        return known.strip()
    fresh = secrets.token_urlsafe(32)
    host.file(path, fresh + "\n", 0o600, show=False)
    return "" if host.module.check_mode else fresh


def main():
    module = AnsibleModule(
        argument_spec={
            "etc": {"required": True},
            "name": {"required": True},
            "repositories": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    host = Converge(module)
    etc, name = module.params["etc"], module.params["name"]
    for directory in (etc, f"{etc}/ssh", f"{etc}/repositories"):
        host.directory(directory, 0o700)
    key = f"{etc}/ssh/id_ed25519"
    if not os.path.exists(key):
        host.do(
            f"make the SSH key {key}",
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            f"saveos:{name}",
            "-f",
            key,
        )
    elif not os.path.exists(f"{key}.pub") or os.path.exists(f"{key}.old"):  # .old: a rotation was interrupted
        public = run(["ssh-keygen", "-y", "-f", key])
        if public.returncode:
            host.fail(
                f"{key} is not a readable SSH key: put back the right one, or remove it and run this again"
            )
        host.file(f"{key}.pub", public.stdout, 0o644)
    token = secret(host, f"{etc}/token")
    for repository in module.params["repositories"]:
        directory = f"{etc}/repositories/{repository}"
        host.directory(directory, 0o700)
        if os.path.exists(f"{directory}/initialised") and not os.path.exists(f"{directory}/passphrase"):
            host.fail(
                f"the passphrase of repository {repository} is gone from {directory}: put it back from the "
                "recovery kit, "
                "since without it no archive there can be read"
            )
        secret(host, f"{directory}/passphrase")
    host.exit(
        saveos={
            "identity": {
                "public_key": " ".join((read(f"{key}.pub") or "").split()[:2]),
                "token_sha256": hashlib.sha256(token.encode()).hexdigest() if token else "",
                "host_keys": host_keys(),
            }
        }
    )


if __name__ == "__main__":
    main()
