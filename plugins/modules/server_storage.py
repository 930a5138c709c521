#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.converge import Converge, init_system, read, run

DOCUMENTATION = r"""
module: server_storage
short_description: Make a host a storage server
version_added: 0.1.0
author: The SaveOS contributors (@saveos)
description:
  - Sees to a running sshd, the user that owns the repositories, and their directory.
options:
  user:
    description: System user that owns the repositories; made without a password.
    type: str
    required: true
  root:
    description: Directory of the repositories, and the home of a user that is made.
    type: str
    required: true
  tenant:
    description: Tenant whose own user this is; then O(root) is closed to all others. Empty is the shared user.
    type: str
    default: ""
  shell:
    description: Text of the users' log-in shell, which starts borg and nothing else.
    type: str
    required: true
  open_parents:
    description: Let the user alone pass through closed parents of O(root), by an ACL; else refuse them.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Says what would be made.}
"""

EXAMPLES = r"""
- name: Make the host a storage server
  saveos.fleet.server_storage:
    user: saveos-borg
    root: /srv/saveos
    shell: "{{ lookup('ansible.builtin.file', 'serve-borg', rstrip=false) }}"
"""

RETURN = r"""
saveos:
  description: What agents need to know of the server.
  returned: success
  type: dict
  sample: {server: {host_keys: [ssh-ed25519 AAAA], port: 22, user: saveos-borg, root: /srv/saveos, tenant: "",
    free_bytes: 1000000}}
"""

SSHD = "/usr/sbin/sshd"
SHELL = "/opt/saveos/server/serve-borg"
SYSTEM = 1000  # users below are no persons


def sshd_settings(user):
    """sshd's effective settings for that user, by lower-case name; each a list of values."""
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd -T refuses without it
    settings = {}
    for line in run([SSHD, "-T", "-C", f"user={user},host=localhost,addr=127.0.0.1"]).stdout.splitlines():
        name, _, value = line.partition(" ")
        settings.setdefault(name, []).append(value)
    return settings


def sshd_runs(init):
    """Does sshd answer, or systemd listen for it?"""
    if init == "systemd":
        units = ("ssh.service", "ssh.socket", "sshd.service")
        return any(run(["systemctl", "is-active", "-q", unit]).returncode == 0 for unit in units)
    for file in glob.glob("/proc/[0-9]*/comm"):
        try:
            name = read(file)
        except OSError:
            continue  # it ended meanwhile
        if name and name.strip() == "sshd":
            return True
    return False


def ensure_sshd(host):
    """sshd installed, with host keys, and running."""
    if not os.path.exists(SSHD):
        if not shutil.which("apt-get"):
            host.fail("sshd is missing on this host: install OpenSSH's server and run this again")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        host.do("refresh the package lists", "apt-get", "-q", "update", env=quiet)
        packages = ("apt-get", "-q", "install", "-y", "--no-install-recommends", "openssh-server")
        if host.do("install openssh-server", *packages, env=quiet) is None:
            return
    if not glob.glob("/etc/ssh/ssh_host_*_key"):
        host.do("make SSH host keys", "ssh-keygen", "-A")
    init = init_system()
    if not sshd_runs(init):
        if init == "systemd":
            host.do("start sshd", "systemctl", "enable", "--now", "ssh.service")
        elif os.path.exists("/etc/init.d/ssh"):
            host.do("start sshd", "service", "ssh", "start")
        else:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
            host.do("start sshd", SSHD)


def ensure_user(host, user, root):
    """The repositories' user; returns its entry, or None in check mode. A home that is gone becomes the new
    root."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        useradd = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", root]
        made = host.do(f"make the user {user}", *useradd, "--shell", SHELL, "--password", "*", user)
        return pwd.getpwnam(user) if made else None
    if entry.pw_uid == 0:
        host.fail(f"server_user {user} is root: choose a user of its own")
    if not os.path.isdir(entry.pw_dir) and entry.pw_dir != root:
        host.do(f"move the home of {user} to {root}", "usermod", "--home", root, user)
        entry = pwd.getpwnam(user)
    if entry.pw_shell == "/bin/sh" and entry.pw_uid < SYSTEM:  # as we made it once; a person's own stays
        host.do(f"take the shell of {user} away", "usermod", "--shell", SHELL, user)
    return entry


def can_enter(entry, directory):
    """Whether the user may pass through a directory: asked as that user, so that ACLs count too."""
    groups = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return subprocess.run(["test", "-x", directory], check=False, **groups).returncode == 0


def ensure_way_in(host, root, entry, open_parents):
    """The user must be able to reach the repositories: let it pass through its parents, if that is wanted."""
    if host.module.check_mode or can_enter(entry, root):
        return
    parents = [root]
    while parents[0] != "/":
        parents.insert(0, os.path.dirname(parents[0]))
    for directory in parents:
        if can_enter(entry, directory):
            continue
        if not open_parents or not shutil.which("setfacl"):
            host.fail(
                f"{entry.pw_name} cannot reach {root}: {directory} is closed to it: chmod o+x {directory}"
            )
        host.do(
            f"let {entry.pw_name} pass through {directory}",
            "setfacl",
            "-m",
            f"u:{entry.pw_name}:--x",
            directory,
        )


def warn_of_refusals(module, settings, user):
    """sshd settings by which the user could never log in."""
    for name in ("allowusers", "allowgroups", "denyusers", "denygroups"):
        if settings.get(name):
            module.warn(
                f"sshd_config has {name} {' '.join(settings[name])}: see that {user} may log in with its key"
            )


def public_keys(settings):
    """The host keys sshd offers, type and base64 only."""
    keys = []
    for file in settings.get("hostkey", []) or sorted(glob.glob("/etc/ssh/ssh_host_*_key")):
        words = (read(f"{file}.pub") or "").split()
        if len(words) >= 2:
            keys.append(" ".join(words[:2]))
    return keys


def main():
    module = AnsibleModule(
        argument_spec={
            "user": {"required": True},
            "root": {"required": True},
            "tenant": {"default": ""},
            "shell": {"required": True},
            "open_parents": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    host = Converge(module)
    user, root = module.params["user"], os.path.normpath(module.params["root"])
    if not os.path.isabs(root) or root == "/":
        host.fail(f"server_root {root} must be a directory of its own, such as /srv/saveos")
    ensure_sshd(host)
    host.file(SHELL, module.params["shell"], 0o755)
    entry = ensure_user(host, user, root)
    uid, gid = (entry.pw_uid, entry.pw_gid) if entry else (0, 0)
    private = bool(module.params["tenant"])
    mode, group = (0o750, gid) if private else (0o755, 0)
    if private:
        host.directory(os.path.dirname(root), 0o711)  # nobody lists who else is here
    host.directory(root, mode, 0, group)
    host.directory(f"{root}/repositories", 0o750, 0, gid)
    if entry:
        # root owns the keys: who breaks out of the forced command still cannot let others in
        if entry.pw_dir != root:
            host.directory(entry.pw_dir, 0o755)
        host.directory(f"{entry.pw_dir}/.ssh", 0o750, 0, gid)
        ensure_way_in(host, root, entry, module.params["open_parents"])
    settings = sshd_settings(user) if os.path.exists(SSHD) else {}
    warn_of_refusals(module, settings, user)
    disk = shutil.disk_usage(root if os.path.isdir(root) else "/")
    host.exit(
        saveos={
            "server": {
                "host_keys": public_keys(settings),
                "port": int(settings.get("port", ["22"])[0]),
                "user": user,
                "uid": uid,
                "root": root,
                "tenant": module.params["tenant"],
                "free_bytes": disk.free,
                "total_bytes": disk.total,
            }
        }
    )


if __name__ == "__main__":
    main()
