#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import datetime
import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.converge import run
from ansible_collections.saveos.fleet.plugins.module_utils.findings import Findings

DOCUMENTATION = r"""
module: rotate
short_description: Examine and rotate the secrets that a host holds
version_added: 0.2.0
author: The SaveOS contributors (@saveos)
description:
  - Says which secrets the host holds, how old each is and who can read it, and rotates what is asked for.
    Values never leave the host.
  - An SSH key takes three phases, between which the storage servers let the new key in and the old one out.
options:
  kind:
    description: What to rotate; V(none) only examines.
    type: str
    choices: [none, passphrase, ssh-key, agent-token]
    default: none
  settle:
    description: Finish interrupted rotations.
    type: bool
    default: false
  phase:
    description: Of the rotation of an SSH key.
    type: str
    choices: [offer, prove, drop]
    default: offer
  repository:
    description: Id of the repository whose passphrase is rotated; empty is all.
    type: str
    default: ""
  older_than_days:
    description: Rotate only what was made so long ago.
    type: int
    default: 0
  max_age_days:
    description: What is older is a finding; 0 is never.
    type: int
    default: 365
  fixes:
    description: Findings to mend, C(id) or C(id:subject), beside the others.
    type: list
    elements: str
    default: []
  config_dir:
    description: Directory of the agent's configuration.
    type: path
    default: /etc/saveos
  recovery_public_key:
    description: Public half of the recovery key that new passphrases are sealed to.
    type: str
    default: ""
  seal:
    description: The sealing tool.
    type: str
    default: /opt/saveos/bin/saveos-seal
  program:
    description: The agent; empty finds it where the role puts it.
    type: path
attributes:
  check_mode: {support: full, description: Says what would be rotated.}
"""

EXAMPLES = r"""
- name: Rotate the passphrases that are older than a year
  saveos.fleet.rotate:
    kind: passphrase
    older_than_days: 365
"""

RETURN = r"""
saveos:
  description: The record of findings as C(secrets), with C(held), what the host holds; C(identity), the public
    halves of an SSH key that is being rotated.
  returned: success
  type: dict
  sample: {secrets: {schema: 1, state: ok, summary: {held: 4, rotated: 1}, findings: [], held: []}}
"""

PROGRAMS = ("/usr/local/bin/saveos-agent", "/opt/saveos/bin/saveos-agent")
WORDS = {
    "passphrase": "The passphrase of a repository",
    "ssh-key": "The SSH key of this host",
    "agent-token": "The token of this host",
    "escrow": "The sealed copy of a passphrase",
}
ROTATED = ("passphrase", "ssh-key", "agent-token")
SECONDS = 6 * 3600


def find_program(module):
    """Path of the agent; fails the module with the fix where there is none."""
    for path in [module.params["program"]] if module.params["program"] else PROGRAMS:
        if os.access(path, os.X_OK):
            return path
    module.fail_json(msg="saveos-agent is not installed on this host: provision it first (playbooks/site.yml)")


class Agent:
    """The agent's verb `rotate`."""

    def __init__(self, module):
        self.module = module
        self.start = [find_program(module), "--config", module.params["config_dir"], "--json", "rotate"]

    def __call__(self, kind, *options):
        """What it says; fails the module with its sentence."""
        done = run([*self.start, kind, *options], timeout=SECONDS)
        try:
            data = json.loads(done.stdout)
        except ValueError:
            said = done.stderr.strip()[-500:] or f"exit status {done.returncode}"
            self.module.fail_json(msg=f"saveos-agent gave no answer: {said}")
        if "error" in data:
            self.module.fail_json(msg=f"{data['error']['message']} {data['error']['fix']}".strip())
        return data


def age_in_days(told, now):
    """Days since a secret was made, or None where it is not there."""
    if not told["made_at"]:
        return None
    made = datetime.datetime.fromisoformat(told["made_at"].replace("Z", "+00:00"))
    return max(0, (now - made).days)


def subject_of(told):
    """How a finding names a secret: its kind, and its repository where it has one."""
    return f"{told['kind']} {told['subject']}".strip()


def due(held, params, now):
    """The secrets that the action or the fixes ask to rotate."""
    chosen = [each for each in held if each["kind"] in ROTATED and each["made_at"]]
    if params["fixes"]:
        wanted = {text.partition(":")[2] for text in params["fixes"] if text.startswith("secret-old:")}
        return [each for each in chosen if subject_of(each) in wanted and each["kind"] != "ssh-key"]
    return [
        each
        for each in chosen
        if each["kind"] == params["kind"]
        and age_in_days(each, now) >= params["older_than_days"]
        and params["repository"] in ("", each["subject"])
    ]


def examine(held, params, now, settled):
    """The findings about what the host holds."""
    found = Findings()
    for each in held:
        subject, age = subject_of(each), age_in_days(each, now)
        what = WORDS[each["kind"]]
        if age is None:
            if each["kind"] == "escrow" and not params["recovery_public_key"]:
                continue  # nobody asked for one
            found.add(
                "secret-missing",
                "warning" if each["kind"] == "escrow" else "critical",
                f"{what} is not there.",
                subject,
                fix="Provision this host: saveos maintenance provision HOST.",
            )
            continue
        if not each["private"]:
            found.add(
                "secret-readable",
                "critical",
                f"{what} can be read by others than root.",
                subject,
                fix="Provision this host, then rotate it: saveos maintenance secrets rotate.",
            )
        if each["open"] and not settled:
            found.add(
                "rotation-open",
                "warning",
                f"{what} is being rotated, and that was interrupted; old and new are both kept.",
                subject,
                fix="saveos maintenance secrets cleanup HOST; the next backup does it, too.",
                fixable=True,
            )
        if params["max_age_days"] and age > params["max_age_days"] and each["kind"] != "escrow":
            found.add(
                "secret-old",
                "info",
                f"{what} is older than {params['max_age_days']} days.",
                subject,
                f"made at {each['made_at']}, {age} days ago",
                "saveos maintenance secrets rotate HOST",
                fixable=each["kind"] != "ssh-key",
            )
    return found


def main():
    module = AnsibleModule(
        argument_spec={
            "kind": {"choices": ["none", "passphrase", "ssh-key", "agent-token"], "default": "none"},
            "settle": {"type": "bool", "default": False},
            "phase": {"choices": ["offer", "prove", "drop"], "default": "offer"},
            "repository": {"default": ""},
            "older_than_days": {"type": "int", "default": 0},
            "max_age_days": {"type": "int", "default": 365},
            "fixes": {"type": "list", "elements": "str", "default": []},
            "config_dir": {"type": "path", "default": "/etc/saveos"},
            "recovery_public_key": {"default": "", "no_log": False},
            "seal": {"default": "/opt/saveos/bin/saveos-seal"},
            "program": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params, agent = module.params, Agent(module)
    now = datetime.datetime.now(datetime.timezone.utc)
    held = agent("list")["secrets"]
    chosen = due(held, params, now)
    settle = any(each["open"] for each in held) and (
        params["settle"] or any(text.startswith("rotation-open") for text in params["fixes"])
    )
    rotated, saveos = [subject_of(each) for each in chosen], {}
    waiting = []
    if params["phase"] != "offer":
        if os.path.exists(
            f"{params['config_dir']}/ssh/id_ed25519.{'next' if params['phase'] == 'prove' else 'old'}"
        ):
            saveos["identity"] = agent("ssh-key", f"--phase={params['phase']}")["identity"]
        if params["phase"] == "prove":
            module.exit_json(changed=bool(saveos), saveos=saveos)  # the record comes with `drop`
        rotated = ["ssh-key"] if params["phase"] == "drop" and saveos else []
    elif not module.check_mode:
        if settle:
            waiting = agent("settle").get("waiting") or []
        for each in chosen:
            if each["kind"] == "passphrase":
                key, seal = params["recovery_public_key"], params["seal"]
                agent(
                    "passphrase", f"--repository={each['subject']}", f"--recovery-key={key}", f"--seal={seal}"
                )
            elif each["kind"] == "agent-token":
                agent("agent-token")
            else:
                identity = agent("ssh-key", "--phase=offer")["identity"]
                module.exit_json(changed=True, saveos={"identity": identity})
    held = agent("list")["secrets"]
    found = examine(held, params, now, settle and module.check_mode)
    summary = {"held": len(held), "rotated": len(rotated), "what": ", ".join(rotated)[:500]}
    if waiting:
        summary["waiting"] = "; ".join(waiting)[:500]
    saveos["secrets"] = {**found.result(summary), "held": held}
    module.exit_json(changed=bool(rotated or settle), saveos=saveos)


if __name__ == "__main__":
    main()
