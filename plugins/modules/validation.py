#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils import (
    validation_agent,
    validation_compose,
    validation_host,
    validation_server,
)
from ansible_collections.saveos.fleet.plugins.module_utils.validation_core import (
    ALWAYS,
    BACKUPS,
    IDS,
    Mender,
    mend,
    result,
    run_checks,
)

DOCUMENTATION = r"""
module: validation
short_description: See whether a host is set up as it must be, and mend what is safe
version_added: 0.3.0
author: The SaveOS contributors (@saveos)
description:
  - Checks configuration, set-up and compose files of a host that backs itself up or serves repositories. The
    checks run side by side, each within its time; one that cannot be made is a finding of its own.
  - It only reads, unless O(fixes) names findings. What a fix changes is kept in
    C(/var/lib/saveos-maintenance/validation). No secret is returned, and no file travels.
options:
  kinds:
    description: What to check; V(compose) looks below O(roots) only.
    type: list
    elements: str
    choices: [config, setup, compose]
    default: [config, setup, compose]
  fixes:
    description: Findings to mend where they are fixable, as V(ID) or V(ID:SUBJECT), or V(all).
    type: list
    elements: str
    default: []
  agent:
    description: Does this host back itself up?
    type: bool
    default: true
  etc:
    description: The agent's configuration directory.
    type: str
    default: /etc/saveos
  state:
    description: The agent's state directory.
    type: str
    default: /var/lib/saveos-agent
  host:
    description: The host's name in the inventory, which its escrow names.
    type: str
    default: ""
  recovery_key:
    description: Public half of the recovery key; empty does not look at the escrow.
    type: str
    default: ""
  repositories:
    description: The host's repositories as declared; their V(quota) is what the retention must fit into.
    type: list
    elements: dict
    default: []
  server:
    description: Of a storage server V(user), V(root), V(borg), V(repositories) with V(id), V(quota),
      V(append_only) and where known V(public_key), and V(complete), whether these are all.
    type: dict
  roots:
    description: Directories below which compose and environment files are checked.
    type: list
    elements: path
    default: []
  names:
    description: More names that the host must be able to resolve.
    type: list
    elements: str
    default: []
  certificates:
    description: Files, and directories of files, whose certificates must not end soon.
    type: list
    elements: path
    default: [/etc/letsencrypt/live]
  now:
    description: The time of the machine that asks, in seconds since 1970; 0 compares no clocks.
    type: float
    default: 0
attributes:
  check_mode: {support: full, description: Says what a fix would change.}
  diff_mode: {support: full, description: Shows what a fix changes; never a secret.}
"""

EXAMPLES = r"""
- name: See whether the host is set up as it must be
  saveos.fleet.validation:
    kinds: [config, setup]

- name: Mend the rights of secrets
  saveos.fleet.validation:
    fixes: [secret-permissions]
"""

RETURN = r"""
saveos:
  description: C(validation) is the result of the operation, with C(state), C(summary) and C(findings).
  returned: success
  type: dict
  sample: {validation: {schema: 1, at: '2026-01-01T00:00:00+00:00', state: ok, summary: {checks: 14},
    findings: []}}
"""


def planned(options):
    """The checks that these options ask for."""
    kinds, checks, agent = options["kinds"], [], None
    if options["agent"]:
        agent = validation_agent.Agent(options["etc"], options["state"], options["repositories"])
        # a host that is not configured has no set-up to check, but that is told in any case
        if "config" in kinds or agent.fault:
            checks += validation_agent.config_checks(agent)
    if "setup" in kinds:
        names = [*options["names"], *(agent.names() if agent else ())]
        zone = agent.zone if agent else ""
        host = {"names": names, "zone": zone, "now": options["now"], "certificates": options["certificates"]}
        checks += validation_host.checks(host)
        if agent and not agent.fault:
            checks += validation_agent.setup_checks(agent, options["host"], options["recovery_key"])
        if options["server"]:
            checks += validation_server.checks(validation_server.Server(**options["server"]))
    if "compose" in kinds:
        roots = [root for root in options["roots"] if os.path.isabs(root)]
        checks += validation_compose.checks(roots)
    return checks


def judged(options):
    """Ids that this run looks for; None where these are all."""
    kinds = [kind for kind in options["kinds"] if kind != "compose" or options["roots"]]
    if len(set(kinds)) == len(IDS):
        return None
    return [*ALWAYS, "agent-not-configured", *(each for kind in kinds for each in IDS[kind])]


def main():
    module = AnsibleModule(
        argument_spec={
            "kinds": {
                "type": "list",
                "elements": "str",
                "choices": ["config", "setup", "compose"],
                "default": ["config", "setup", "compose"],
            },
            "fixes": {"type": "list", "elements": "str", "default": []},
            "agent": {"type": "bool", "default": True},
            "etc": {"default": "/etc/saveos"},
            "state": {"default": "/var/lib/saveos-agent"},
            "host": {"default": ""},
            "recovery_key": {"default": "", "no_log": False},
            "repositories": {"type": "list", "elements": "dict", "default": [], "no_log": False},
            "server": {"type": "dict"},
            "roots": {"type": "list", "elements": "path", "default": []},
            "names": {"type": "list", "elements": "str", "default": []},
            "certificates": {"type": "list", "elements": "path", "default": ["/etc/letsencrypt/live"]},
            "now": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    options = module.params
    checks = planned(options)
    found = run_checks(checks)
    mender = Mender(module.check_mode, BACKUPS)
    done = mend(found, options["fixes"], mender)
    if done and not module.check_mode:
        # only what is not found again is mended
        again = {each.check for each in done}
        left = {
            each.identity: each
            for each in run_checks([each for each in planned(options) if each.name in again])
        }
        for each in done:
            each.fixed = each.identity not in left
        known = {each.identity for each in found}
        found += [each for identity, each in left.items() if identity not in known]
    else:
        for each in done:
            each.fixed = True
    summary = {
        "checks": len(checks),
        "findings": len(found),
        "fixable": sum(each.mend is not None and not each.fixed for each in found),
        "fixed": sum(each.fixed for each in found),
    }
    if options["roots"]:
        summary["compose_reader"] = validation_compose.reader()
    told = result(found, judged(options), summary)
    diff = mender.diffs if module._diff else []
    module.exit_json(changed=mender.changed, diff=diff, saveos={"validation": told})


if __name__ == "__main__":
    main()
