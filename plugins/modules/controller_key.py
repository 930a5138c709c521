#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.findings import Findings
from ansible_collections.saveos.fleet.plugins.module_utils.ssh_keys import parse_key

DOCUMENTATION = r"""
module: controller_key
short_description: Let the controller's new SSH key in, and the old one out
version_added: 0.3.0
author: The SaveOS contributors (@saveos)
description:
  - Works on the authorized_keys of the user who logs in. The new key gets a line of its own with the options of
    the old one's; every other line stays as it is. A file is replaced at once or not at all.
  - The phase V(drop) is to come over a connection that the new key alone made, which is its proof.
options:
  phase:
    description: V(add) the new key beside the old one, or V(drop) the old one.
    type: str
    choices: [add, drop]
    required: true
  new_key:
    description: The new public key.
    type: str
    required: true
  old_key:
    description:
      - The old public key; empty when there is none any more.
      - The same as O(new_key) in a check before a rotation, when the next key is not made yet.
    type: str
    default: ""
  files:
    description: Files to look at, below the home directory of the user who logs in.
    type: list
    elements: str
    default: [.ssh/authorized_keys, .ssh/authorized_keys2]
attributes:
  check_mode: {support: full, description: Says what would be done.}
"""

EXAMPLES = r"""
- name: Let the new key in
  saveos.fleet.controller_key:
    phase: add
    new_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAxr
    old_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBkq
"""

RETURN = r"""
saveos:
  description: The record of findings as C(rekey), and the key that the host was proven to let in as C(proven).
    Both only where the phase is the last one, which in check mode is V(add).
  returned: success
  type: dict
  sample: {proven: ssh-ed25519 AAAA, rekey: {schema: 1, state: ok, summary: {removed: 1}, findings: []}}
"""


def place_of(words, key):
    """The place of a key in the words of a line, or -1; options come before it, a comment after it."""
    kind, blob = key.split()
    for place in range(len(words) - 1):
        if words[place] == kind and words[place + 1] == blob:
            return place
    return -1


def has(line, key):
    """Whether a line of authorized_keys is this key's."""
    return bool(key) and not line.lstrip().startswith("#") and place_of(line.split(), key) >= 0


def added(lines, old, new):
    """The lines with the new key after the first of the old one, with the same options and comment."""
    if any(has(line, new) for line in lines):
        return lines
    for number, line in enumerate(lines):
        if has(line, old):
            return [*lines[: number + 1], line.replace(old.split()[1], new.split()[1]), *lines[number + 1 :]]
    return lines


def dropped(lines, old):
    """The lines without the old key."""
    return [line for line in lines if not has(line, old)]


def read(path):
    """Lines of a file; none where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def write(module, path, lines):
    """Replace a file at once, with its owner, mode and label; fails the module with the fix."""
    path = os.path.realpath(path)
    try:
        handle, partial = tempfile.mkstemp(prefix=".saveos-", dir=os.path.dirname(path))
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("".join(line + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        module.add_cleanup_file(partial)
        module.atomic_move(partial, path)
    except OSError as error:
        module.fail_json(msg=f"{path} cannot be written: {error.strerror}; let the controller's user write it")


def change(module, paths, changed):
    """Apply a change to every file; returns how many lines came or went, and writes nothing in check mode."""
    count = 0
    for path in paths:
        lines = read(path)
        after = changed(lines)
        if after != lines:
            count += abs(len(after) - len(lines))
            if not module.check_mode:
                write(module, path, after)
    return count


def main():
    module = AnsibleModule(
        argument_spec={
            "phase": {"choices": ["add", "drop"], "required": True},
            "new_key": {"required": True, "no_log": False},
            "old_key": {"default": "", "no_log": False},
            "files": {
                "type": "list",
                "elements": "str",
                "default": [".ssh/authorized_keys", ".ssh/authorized_keys2"],
            },
        },
        supports_check_mode=True,
    )
    try:
        new = parse_key(module.params["new_key"])
        old = parse_key(module.params["old_key"]) if module.params["old_key"] else ""
    except ValueError as error:
        module.fail_json(msg=f"this is no key to rotate: {error}")
    paths = [os.path.join(os.path.expanduser("~"), each) for each in module.params["files"]]
    known = any(has(line, old or new) or has(line, new) for path in paths for line in read(path))
    found, saveos = Findings(), {}
    if not known:
        found.add(
            "controller-key-elsewhere",
            "warning",
            "The controller's key is not in ~/.ssh/authorized_keys, yet it is let in.",
            fix="See AuthorizedKeysFile and AuthorizedKeysCommand of sshd: put the line of `saveos ssh-key` "
            "there, and take the old one away.",
        )
    if module.params["phase"] == "add":
        count = change(module, paths, lambda lines: added(lines, old, new))
        if module.check_mode:
            leaving = sum(has(line, old) for path in paths for line in read(path))
            count = leaving if old == new else count
            saveos["rekey"] = found.result({"removed": leaving, "added": count})
        module.exit_json(changed=bool(count), saveos=saveos)
    count = change(module, paths, lambda lines: dropped(lines, old))
    saveos = {"proven": new, "rekey": found.result({"removed": count})}
    module.exit_json(changed=bool(count), saveos=saveos)


if __name__ == "__main__":
    main()
