#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import glob
import os
import platform
import shlex
import shutil
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.converge import Converge, init_system, read, run

DOCUMENTATION = r"""
module: preflight
short_description: Look at a host before anything is changed on it
version_added: 0.1.0
author: The SaveOS contributors (@saveos)
description:
  - Refuses a host that cannot work (no root, old Python, full disk) with a sentence that says how to fix it.
  - Changes nothing. Its action plugin also says clearly when the host cannot be reached or become does not
    work.
options:
  space:
    description: Mebibytes that must be free, by path. A path that does not exist yet counts as its nearest
      parent.
    type: dict
    default: {}
  sources:
    description: Paths of a policy; a warning names those that do not exist.
    type: list
    elements: str
    default: []
  problems:
    description: Sentences about the host's variables; with any, the action plugin fails before it looks at the
      host.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full, description: Changes nothing.}
"""

EXAMPLES = r"""
- name: Look at the host
  saveos.fleet.preflight:
    space: {/opt: 200}
    sources: [/etc, /home]
"""

RETURN = r"""
saveos:
  description: What the host is.
  returned: always
  type: dict
  sample: {os: Debian 12, arch: x86_64, glibc: "2.36", init: systemd, python: 3.11.2, clock: synchronised}
"""


RELEASED = 1767225600  # 2026-01-01: no sane clock of a host shows less


def os_name():
    """Such as Debian 12, or Linux where os-release is missing."""
    known = {}
    for line in (read("/etc/os-release") or "").splitlines():
        key, found, value = line.partition("=")
        if found:
            known[key] = "".join(shlex.split(value)) if value.startswith(('"', "'")) else value
    name = known.get("NAME", "Linux").split()[0].strip('"')
    return f"{name} {known.get('VERSION_ID', '')}".strip()


def glibc():
    """The C library's version, empty where it is not glibc."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION").split()[-1]
    except (AttributeError, OSError, ValueError):
        return ""


def clock(init):
    """synchronised, unsynchronised, implausible or unknown."""
    if time.time() < RELEASED:
        return "implausible"
    if init != "systemd":
        return "unknown"
    answer = run(["timedatectl", "show", "-p", "NTPSynchronized", "--value"], timeout=5).stdout.strip()
    return {"yes": "synchronised", "no": "unsynchronised"}.get(answer, "unknown")


def nearest(path):
    """The path itself or its nearest parent that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    return path


def main():
    module = AnsibleModule(
        argument_spec={
            "space": {"type": "dict", "default": {}},
            "sources": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    host = Converge(module)
    if os.geteuid() != 0:
        host.fail("this needs root on the host: set `become: true` (with sudo there) or `ansible_user: root`")
    for path, needed in module.params["space"].items():
        free = shutil.disk_usage(nearest(path)).free // 2**20
        if free < int(needed):
            host.fail(
                f"the disk of {path} is nearly full: {free} MiB are free and {needed} MiB are needed; free "
                "some space"
            )
    for source in module.params["sources"]:
        if not glob.glob(source):
            module.warn(
                f"the policy names {source}, which does not exist on this host: nothing is backed up from there"
            )
    init = init_system()
    time_state = clock(init)
    if time_state == "implausible":
        host.fail(
            "the clock of this host is years behind: set it first, since retention and host keys depend on it"
        )
    host.exit(
        saveos={
            "os": os_name(),
            "arch": platform.machine(),
            "glibc": glibc(),
            "init": init,
            "python": platform.python_version(),
            "clock": time_state,
        }
    )


if __name__ == "__main__":
    main()
