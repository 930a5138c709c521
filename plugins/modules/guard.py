#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.converge import read, run

DOCUMENTATION = r"""
module: guard
short_description: Speak with the guard of a storage server
version_added: 0.3.0
author: The SaveOS contributors (@saveos)
description:
  - Hands in the controller's word, has the guard run, check or undo, and returns what it reports.
  - The guard decides by itself. Nothing that is handed in makes it hold for a shorter time.
options:
  verb:
    description: What it is to do. V(report) only shows what it said last.
    type: str
    choices: [run, report, check, undo]
    default: run
  config:
    description: The guard's settings; a second installation on the same machine has its own.
    type: str
    default: /etc/saveos/guard.json
  told:
    description: The controller's word as JSON text; empty when there is none.
    type: str
    default: ""
  repositories:
    description: Ids of repositories; empty means all. Exactly one for V(undo).
    type: list
    elements: str
    default: []
  compact:
    description: Whether what is in order may be compacted in this run.
    type: bool
    default: true
  to:
    description: For V(undo), a copy's time as the report tells it, or V(latest-good).
    type: str
    default: latest-good
attributes:
  check_mode: {support: full, description: Shows the last report, or what an undo would do.}
"""

EXAMPLES = r"""
- name: Hear how repositories are
  saveos.fleet.guard:
    verb: report
"""

RETURN = r"""
saveos:
  description: By verb, the guard's report, the result of the check, or what was undone. An undo returns nothing
    on a server that has never had the repository.
  returned: success
  type: dict
  sample: {guard: {schema: 1, at: "2026-01-01T00:00:00Z", hold_days: 14, repositories: []}}
"""

PROGRAM = "/usr/local/sbin/saveos-guard"


def ask(module, *words, stdin=""):
    """What the guard answers as JSON; the module fails with its sentence when it gives none."""
    ran = run([PROGRAM, "--config", module.params["config"], *words], stdin=stdin)
    try:
        return json.loads(ran.stdout)
    except ValueError:
        said = (ran.stderr or ran.stdout).strip()[-1000:]
        module.fail_json(msg=said or f"saveos-guard {words[0]} ended {ran.returncode} and said nothing")


def main():
    module = AnsibleModule(
        argument_spec={
            "verb": {"choices": ["run", "report", "check", "undo"], "default": "run"},
            "config": {"default": "/etc/saveos/guard.json"},
            "told": {"default": "", "no_log": False},
            "repositories": {"type": "list", "elements": "str", "default": []},
            "compact": {"type": "bool", "default": True},
            "to": {"default": "latest-good"},
        },
        supports_check_mode=True,
    )
    verb, repositories = module.params["verb"], module.params["repositories"]
    if not os.path.exists(PROGRAM):
        module.fail_json(msg="there is no guard on this storage server: provision it")
    chosen = [word for each in repositories for word in ("--repository", each)]
    if verb == "check":
        module.exit_json(changed=False, saveos={"check": ask(module, "check", "--json", *chosen)})
    if verb == "undo":
        undo(module)
    if module.params["told"] and not module.check_mode:
        ask(module, "tell", stdin=module.params["told"])
    if verb == "report" or module.check_mode:
        module.exit_json(changed=False, saveos={"guard": ask(module, "report", "--json")})
    held = [] if module.params["compact"] else ["--no-compact"]
    report = ask(module, "run", "--json", *held, *chosen)
    compacted = any(each["state"] == "compacted" for each in report["repositories"])
    module.exit_json(changed=compacted, saveos={"guard": report})


def state_of(config):
    """Where the guard of these settings keeps what it knows."""
    try:
        return json.loads(read(config) or "{}")["state"]
    except (ValueError, KeyError):
        return "/var/lib/saveos-guard"


def undo(module):
    """Put one repository back, where this server has it."""
    repositories = module.params["repositories"]
    if len(repositories) != 1 or not repositories[0]:
        module.fail_json(msg="an undo needs exactly one repository: set maintenance_repository_id")
    if not os.path.isdir(f"{state_of(module.params['config'])}/{repositories[0]}"):
        module.exit_json(changed=False)
    words = ["undo", "--json", "--repository", repositories[0], "--to", module.params["to"]]
    done = ask(module, *words, *(["--dry-run"] if module.check_mode else []))
    module.exit_json(changed=True, saveos={"undo": done})


if __name__ == "__main__":
    main()
