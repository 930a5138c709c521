#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import glob
import os
import pwd

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.converge import Converge, read
from ansible_collections.saveos.fleet.plugins.module_utils.ssh_keys import (
    authorized_line,
    check_id,
    comment_of,
    merge,
    parse_key,
    refused,
)

DOCUMENTATION = r"""
module: server_repositories
short_description: One directory and one authorized key per repository
version_added: 0.1.0
author: The SaveOS contributors (@saveos)
description:
  - Entries are added and updated. Other lines of authorized_keys, and repositories of others, stay as they are.
  - Taking access away is explicit, by O(absent), and never removes a repository.
  - A key is its host's own word. One that is no key, or that serves another repository, shuts out nobody else;
    RV(refused) names it.
options:
  user:
    description: The user that owns the repositories.
    type: str
    required: true
  root:
    description: The storage directory.
    type: str
    required: true
  base:
    description: Storage directory of all tenants of this server; a repository that lies elsewhere in it is
      refused, for it would seem gone to its host.
    type: str
    default: ""
  borg:
    description: The borg that serves them.
    type: str
    default: /opt/saveos/server/borg
  repositories:
    description: Repositories with V(id), V(public_key), V(quota) and V(append_only). One without a key yet gets
      only its directory; V(next_public_key) is let in beside the other while a host changes its key.
    type: list
    elements: dict
    default: []
  absent:
    description: Ids whose key is taken away.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full, description: Says what would be made.}
"""

EXAMPLES = r"""
- name: Let one host in
  saveos.fleet.server_repositories:
    user: saveos-borg
    root: /srv/saveos
    repositories:
      - {id: 0198c5f0-0000-7000-8000-000000000001, public_key: "{{ key }}", quota: 500G}
"""

RETURN = r"""
repositories:
  description: By id, whether there is a Borg repository already.
  returned: success
  type: dict
  sample: {0198c5f0-0000-7000-8000-000000000001: true}
refused:
  description: By id, why a host's key was not let in.
  returned: success
  type: dict
  sample: {0198c5f0-0000-7000-8000-000000000001: "it is not one SSH public key of type ed25519, ecdsa or rsa"}
"""


def elsewhere(base, path):
    """Where a repository that is not at C(path) lies for another user of this server; empty for nowhere."""
    if not base or os.path.lexists(path):
        return ""
    name = os.path.basename(path)
    found = [f"{base}/repositories/{name}", *glob.glob(f"{glob.escape(base)}/tenants/*/repositories/{name}")]
    return next((each for each in found if os.path.lexists(each)), "")


def let_in(text, wanted, absent, borg, parent):
    """authorized_keys with the keys of those who are wanted, and by repository why one of them is not let in.

    A key is its host's own word, so one that is none shuts out nobody else. ValueError for what the inventory
    says wrong.
    """
    lines, beside, out = [], [], {}
    for item in wanted:
        told = [item.get("public_key"), item.get("next_public_key")] if item.get("public_key") else []
        try:
            keys = [parse_key(each) for each in told if each]
        except ValueError as error:
            keys, out[item["id"]] = [], f"its host told no public key: {error}"
        made = [authorized_line(borg, f"{parent}/{item['id']}", {**item, "public_key": key}) for key in keys]
        lines += made[:1]
        beside += made[1:]
    out.update(refused(text, [*lines, *beside], absent))
    lines, beside = ([line for line in some if comment_of(line) not in out] for some in (lines, beside))
    return merge(text, lines, absent, beside), out


def main():
    module = AnsibleModule(
        argument_spec={
            "user": {"required": True},
            "root": {"required": True},
            "base": {"default": ""},
            "borg": {"default": "/opt/saveos/server/borg"},
            "repositories": {"type": "list", "elements": "dict", "default": [], "no_log": False},
            "absent": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    host = Converge(module)
    wanted = module.params["repositories"]
    try:
        entry = pwd.getpwnam(module.params["user"])
    except KeyError:  # check mode on a bare host
        host.changed = True
        host.exit(repositories={item["id"]: False for item in wanted}, refused={})
    parent = os.path.normpath(module.params["root"]) + "/repositories"
    base = os.path.normpath(module.params["base"]) if module.params["base"] else ""
    known = {}
    try:
        for item in wanted:
            path = f"{parent}/{check_id(item['id'])}"
            other = elsewhere(base, path)
            if other:
                raise ValueError(
                    f"repository {item['id']} lies in {other} and does not move with server_tenant: set that "
                    "as it was, or give the host a repository with a new id"
                )
            host.directory(path, 0o700, entry.pw_uid, entry.pw_gid)
            known[item["id"]] = os.path.exists(f"{path}/config")
        keys = f"{entry.pw_dir}/.ssh/authorized_keys"
        content, out = let_in(read(keys) or "", wanted, module.params["absent"], module.params["borg"], parent)
    except ValueError as error:
        host.fail(str(error))
    host.file(keys, content, 0o640, 0, entry.pw_gid)
    host.exit(repositories=known, refused=out)


if __name__ == "__main__":
    main()
