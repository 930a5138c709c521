#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import difflib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.findings import Findings

DOCUMENTATION = r"""
module: drift
short_description: Tell how a host differs from what its roles would make of it
version_added: 0.2.0
author: The SaveOS contributors (@saveos)
description:
  - Turns the diffs of tasks that ran in check mode into findings and one bounded text. Changes nothing itself.
options:
  changes:
    description: What each task would change, as the C(diff) of its registered result.
    type: list
    elements: list
    required: true
  most:
    description: Characters of the whole diff that are kept.
    type: int
    default: 65536
attributes:
  check_mode: {support: full, description: It never changes anything.}
"""

EXAMPLES = r"""
- name: Tell what differs
  saveos.fleet.drift:
    changes: "{{ [__agent_configure.diff | default([])] }}"
"""

RETURN = r"""
saveos:
  description: The record of findings as C(drift), with the whole C(diff) as unified text.
  returned: success
  type: dict
  sample: {drift: {schema: 1, state: warning, summary: {changes: 1}, findings: [], diff: "---"}}
"""


def unified(change):
    """One change as unified diff text."""
    before = str(change.get("before") or "").splitlines(keepends=True)
    after = str(change.get("after") or "").splitlines(keepends=True)
    name = str(change.get("after_header") or change.get("before_header") or "?").replace("\n", "?")
    lines = difflib.unified_diff(before, after, f"{name} (is)", f"{name} (should be)", n=3)
    return name, "".join(line if line.endswith("\n") else line + "\n" for line in lines)


def main():
    module = AnsibleModule(
        argument_spec={
            "changes": {"type": "list", "elements": "list", "required": True},
            "most": {"type": "int", "default": 65536},
        },
        supports_check_mode=True,
    )
    found, texts, size, left = Findings(), {}, 0, 0
    for change in (each for task in module.params["changes"] for each in task if isinstance(each, dict)):
        name, text = unified(change)
        texts[name] = texts.get(name, "") + text
    kept = []
    for name, text in texts.items():
        found.add(
            "differs",
            "warning",
            f"{name} is not what provisioning would make of it.",
            name,
            text,
            "Converge this host: saveos maintenance provision HOST --wait",
        )
        if size + len(text) <= module.params["most"]:
            kept.append(text)
            size += len(text)
        else:
            left += 1
    if left:
        kept.append(f"({left} more changes are left out)\n")
    record = found.result({"changes": len(texts)})
    module.exit_json(changed=False, saveos={"drift": {**record, "diff": "".join(kept)}})


if __name__ == "__main__":
    main()
