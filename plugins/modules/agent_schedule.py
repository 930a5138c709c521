#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import glob
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.converge import Converge, init_system, read, run

DOCUMENTATION = r"""
module: agent_schedule
short_description: Have a host back itself up by itself
version_added: 0.1.0
author: The SaveOS contributors (@saveos)
description:
  - Installs and starts systemd timers; where systemd is not PID 1, a file in /etc/cron.d and cron itself.
options:
  units:
    description: Unit files by name. Timers among them are enabled and started.
    type: dict
    required: true
  absent_units:
    description: Names of units that must not be there.
    type: list
    elements: str
    default: []
  cron_name:
    description: Name of the file in /etc/cron.d.
    type: str
    required: true
  cron:
    description: Content of that file.
    type: str
    required: true
attributes:
  check_mode: {support: full, description: Says what would change.}
"""

EXAMPLES = r"""
- name: Back up every night
  saveos.fleet.agent_schedule:
    units: {saveos-backup.service: "{{ service }}", saveos-backup.timer: "{{ timer }}"}
    cron_name: saveos-backup
    cron: "0 2 * * * root /opt/saveos/bin/saveos-agent backup --trigger timer\n"
"""

RETURN = r"""
saveos:
  description: How the host is scheduled.
  returned: success
  type: dict
  sample: {init: systemd}
"""

UNITS = "/etc/systemd/system"


def systemd(host, units, absent):
    """Unit files in place, known to systemd, timers enabled and started."""
    already, host.changed = host.changed, False
    for name in absent:
        if os.path.exists(f"{UNITS}/{name}"):
            host.do(f"stop {name}", "systemctl", "disable", "--now", name)
        host.absent(f"{UNITS}/{name}")
    for name, content in units.items():
        host.file(f"{UNITS}/{name}", content, 0o644)
    if host.changed and not host.module.check_mode:
        run(["systemctl", "daemon-reload"])
    timers = [name for name in units if name.endswith(".timer")]
    states = run(["systemctl", "show", "-p", "ActiveState,UnitFileState", "--value", *timers]).stdout
    wanted = "\n\n".join(["active\nenabled"] * len(timers))
    if states.strip() != wanted:
        host.do(f"start {' '.join(timers)}", "systemctl", "enable", "--now", *timers)
    elif host.changed and not host.module.check_mode:
        run(["systemctl", "restart", *timers])  # a timer takes up a new calendar only then
    host.changed = host.changed or already


def is_running(program):
    """Is there a process of that name?"""
    for file in glob.glob("/proc/[0-9]*/comm"):
        try:
            if (read(file) or "").strip() == program:
                return True
        except OSError:
            continue  # it ended meanwhile
    return False


def cron(host, name, content):
    """The cron file in place and cron running, installed first where it is missing."""
    if not os.path.exists("/usr/sbin/cron") and not os.path.exists("/usr/sbin/crond"):
        if not os.path.exists("/usr/bin/apt-get"):
            host.fail(
                "this host has neither systemd as PID 1 nor cron, so nothing would start backups: install cron"
            )
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        host.do("refresh the package lists", "apt-get", "-q", "update", env=quiet)
        host.do("install cron", "apt-get", "-q", "install", "-y", "--no-install-recommends", "cron", env=quiet)
    host.file(f"/etc/cron.d/{name}", content, 0o644)
    if not is_running("cron") and not is_running("crond"):
        host.do("start cron", "service", "cron" if os.path.exists("/etc/init.d/cron") else "crond", "start")


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "dict", "required": True},
            "absent_units": {"type": "list", "elements": "str", "default": []},
            "cron_name": {"required": True},
            "cron": {"required": True},
        },
        supports_check_mode=True,
    )
    host = Converge(module)
    init = init_system()
    if init == "systemd":
        host.absent(f"/etc/cron.d/{module.params['cron_name']}")
        systemd(host, module.params["units"], module.params["absent_units"])
    else:
        cron(host, module.params["cron_name"], module.params["cron"])
    host.exit(saveos={"init": init})


if __name__ == "__main__":
    main()
