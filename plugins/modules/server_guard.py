#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import base64
import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.converge import Converge, read

DOCUMENTATION = r"""
module: server_guard
short_description: Put the guard of repositories in place
version_added: 0.3.0
author: The SaveOS contributors (@saveos)
description:
  - Installs C(/usr/local/sbin/saveos-guard) and its settings. Repositories that are known to the
    guard and not named here stay known.
options:
  program:
    description: The guard's package on the control node, which the action plugin packs into one file.
    type: str
    required: true
  config:
    description: Where its settings lie; another file for a second installation on the same machine.
    type: str
    default: /etc/saveos/guard.json
  settings:
    description: Its settings. V(state) is where it keeps its ledger.
    type: dict
    required: true
  repositories:
    description: Repositories with V(id), V(quota) and V(append_only).
    type: list
    elements: dict
    default: []
  borg:
    description: The borg that serves and compacts.
    type: str
    default: /opt/saveos/server/borg
attributes:
  check_mode: {support: full, description: Says what would be made.}
"""

EXAMPLES = r"""
- name: Put the guard in place
  saveos.fleet.server_guard:
    program: "{{ role_path }}/files/saveos_guard"
    settings: {root: /srv/saveos, state: /var/lib/saveos-guard, hold_days: 14}
"""

RETURN = r"""# """

PROGRAM = "/usr/local/sbin/saveos-guard"


def main():
    module = AnsibleModule(
        argument_spec={
            "program": {"required": True},
            "config": {"default": "/etc/saveos/guard.json"},
            "settings": {"type": "dict", "required": True},
            "repositories": {"type": "list", "elements": "dict", "default": [], "no_log": False},
            "borg": {"default": "/opt/saveos/server/borg"},
        },
        supports_check_mode=True,
    )
    host, config = Converge(module), module.params["config"]
    try:
        known = json.loads(read(config) or "{}").get("repositories", {})
    except (ValueError, AttributeError):
        known = {}
    for item in module.params["repositories"]:
        known[item["id"]] = {
            "quota": str(item.get("quota") or ""),
            "append_only": bool(item.get("append_only", True)),
        }
    settings = {"schema": 1, **module.params["settings"], "borg": module.params["borg"], "repositories": known}
    if config.startswith("/etc/saveos/"):
        host.directory("/etc/saveos", 0o700)
    host.directory(settings["state"], 0o711)
    host.file(config, json.dumps(settings, indent=1, sort_keys=True) + "\n", 0o600)
    host.file(PROGRAM, base64.b64decode(module.params["program"]), 0o755)
    host.exit()


if __name__ == "__main__":
    main()
