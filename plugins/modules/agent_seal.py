#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import base64
import hashlib
import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.converge import Converge, run
from ansible_collections.saveos.fleet.plugins.module_utils.escrow import known_escrow, material, pins

DOCUMENTATION = r"""
module: agent_seal
short_description: Seal what restoring needs to the recovery key
version_added: 0.2.0
author: The SaveOS contributors (@saveos)
description:
  - Seals passphrase and key export of each repository to the public half of the recovery key, so that only the
    holder of its private half can read them. The secrets reach the sealing tool by its standard input.
  - What is sealed stays on the host beside the passphrase and is returned; it is sealed anew only when the key
    or what it holds changed.
options:
  etc:
    description: The agent's configuration directory.
    type: str
    required: true
  host:
    description: Name of the host, to be found in what is sealed.
    type: str
    required: true
  public_key:
    description: Public half of the recovery key, base64 of 32 bytes.
    type: str
    required: true
  seal:
    description: The sealing tool.
    type: str
    default: /opt/saveos/bin/saveos-seal
  repositories:
    description: The host's repositories, as the filter P(saveos.fleet.agent_repositories#filter) completes
      them.
    type: list
    elements: dict
    required: true
attributes:
  check_mode: {support: full, description: Says what would be sealed.}
"""

EXAMPLES = r"""
- name: Seal what restoring needs
  saveos.fleet.agent_seal:
    etc: /etc/saveos
    host: web1
    public_key: "{{ agent_recovery_public_key }}"
    repositories: "{{ repositories }}"
"""

RETURN = r"""
saveos:
  description: What was sealed, which the recovery key alone opens.
  returned: success
  type: dict
  sample: {escrow: [{repository_id: 0198c5f0, url: ssh://saveos-borg@vault1:22/srv/saveos, host_keys: [],
    recovery_key: e3b0, sealed: AAAA}]}
"""


def fingerprint(public_key):
    """SHA-256 of the key's 32 bytes. ValueError when it is no key."""
    raw = base64.b64decode(public_key, validate=True)
    if len(raw) != 32:
        raise ValueError("not 32 bytes")
    return hashlib.sha256(raw).hexdigest()


def seal(host, tool, public_key, text):
    """Run the sealing tool; the text goes in by standard input."""
    done = run([tool, "seal", "--to", public_key], stdin=text, timeout=60)
    if done.returncode == 127:
        host.fail(
            f"{tool} is not there, so nothing can be sealed to the recovery key: use the install method "
            "`bundle`, or name a saveos-seal of your own in agent_seal_path"
        )
    sealed = done.stdout.strip()
    if done.returncode or not sealed:
        host.fail(f"sealing to the recovery key failed: {(done.stderr or 'no output').strip()[-300:]}")
    return sealed


def main():
    module = AnsibleModule(
        argument_spec={
            "etc": {"required": True},
            "host": {"required": True},
            "public_key": {"required": True, "no_log": False},
            "seal": {"default": "/opt/saveos/bin/saveos-seal"},
            "repositories": {"type": "list", "elements": "dict", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    host = Converge(module)
    etc, public_key = module.params["etc"], module.params["public_key"].strip()
    try:
        key = fingerprint(public_key)
    except ValueError:
        host.fail("agent_recovery_public_key is no key: take the one that `saveos recovery init` printed")
    escrow = []
    for repository in module.params["repositories"]:
        file = f"{etc}/repositories/{repository['id']}/sealed"
        text = material(etc, module.params["host"], repository)
        if text is None:
            if not module.check_mode:
                host.fail(f"repository {repository['id']} has no key export yet: run playbooks/site.yml")
            host.note(file, "", "(sealed)\n")
            continue
        try:
            digest = hashlib.sha256(f"{public_key}\n{text}".encode()).hexdigest()
        except UnicodeEncodeError:
            host.fail(
                f"the passphrase of repository {repository['id']} is no UTF-8 text, which cannot be sealed"
            )
        known = known_escrow(file)
        if known.get("digest") != digest:
            if module.check_mode:
                host.note(file, "", "(sealed)\n")
                continue
            sealed = seal(host, module.params["seal"], public_key, text)
            known = {"digest": digest, "recovery_key": key, "sealed": sealed}
        host.file(file, json.dumps(known, indent=1) + "\n", 0o600, show=False)
        escrow.append(
            {
                "repository_id": repository["id"],
                "url": repository["url"],
                "host_keys": pins(etc, repository),
                "recovery_key": known["recovery_key"],
                "sealed": known["sealed"],
            }
        )
    host.exit(saveos={"escrow": escrow})


if __name__ == "__main__":
    main()
