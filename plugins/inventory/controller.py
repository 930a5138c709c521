# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import os
import urllib.error

from ansible import constants
from ansible.errors import AnsibleParserError
from ansible.module_utils.urls import open_url
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

DOCUMENTATION = r"""
name: controller
short_description: Take the fleet from the SaveOS controller
version_added: 0.2.0
author: The SaveOS contributors (@saveos)
description:
  - Reads hosts, groups and role variables from the controller, so that a playbook run anywhere gives hosts what
    the controller itself would give them.
  - The source is a YAML file whose name ends in C(controller.yml) or C(controller.yaml).
  - SSH host keys are those that the controller has pinned; nothing is trusted on first use.
extends_documentation_fragment:
  - constructed
options:
  plugin:
    description: The name of this plugin.
    required: true
    choices: [saveos.fleet.controller]
  url:
    description: Address of the controller, such as V(https://saveos.example.net).
    type: str
    required: true
    env: [{name: SAVEOS_URL}]
  token:
    description:
      - An API token with the right C(hosts:read), and C(inventory:secrets) where O(secrets) is set.
      - Better from the environment than in the file.
    type: str
    required: true
    env: [{name: SAVEOS_TOKEN}]
  ca:
    description: File with the controller's own CA (C(saveos tls show) tells where), where it has one.
    type: path
    env: [{name: SAVEOS_CA}]
  secrets:
    description:
      - Also hooks and the passwords of databases. Playbooks that set hosts up need them where a policy has
        hooks, and stop before they change anything where they are missing.
      - Every such read is in the controller's audit trail. C(ansible-inventory --list) shows them.
    type: bool
    default: false
  pin_host_keys:
    description: Let SSH know the hosts by the controller's keys only, instead of the user's C(known_hosts).
    type: bool
    default: true
  timeout:
    description: Seconds to wait for the controller.
    type: int
    default: 30
"""

EXAMPLES = r"""
# fleet.controller.yml, with SAVEOS_URL and SAVEOS_TOKEN in the environment; all but the first line is optional
plugin: saveos.fleet.controller
ca: /etc/ssl/saveos-ca.pem
keyed_groups:  # groups made from what the controller knows: tag_web, state_pending
  - key: saveos_tags
    prefix: tag
  - key: saveos_state
    prefix: state
"""


def untagged(value):
    """Return a value without the tags of our JSON; plain text is never rendered as a template."""
    if isinstance(value, dict):
        if set(value) == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: untagged(item) for key, item in value.items()}
    if isinstance(value, list):
        return [untagged(item) for item in value]
    return value


class InventoryModule(BaseInventoryPlugin, Constructable):
    NAME = "saveos.fleet.controller"

    def verify_file(self, path):
        """Whether a source is meant for this plugin."""
        return super().verify_file(path) and path.endswith(("controller.yml", "controller.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        """Fill the inventory from the controller."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        answer = self._fetch()
        hostvars = answer["_meta"]["hostvars"]
        for name, variables in hostvars.items():
            inventory.add_host(name)
            for key, value in untagged(variables).items():
                inventory.set_variable(name, key, value)
        for group in answer["all"]["children"]:
            inventory.add_group(group)
            for name in answer[group]["hosts"]:
                inventory.add_host(name, group=group)  # add_child would take a group of the host's name
        if self.get_option("pin_host_keys"):
            self._pin(hostvars)
        self._construct(hostvars)

    def _fetch(self):
        url = self.get_option("url").rstrip("/")
        if self.get_option("secrets") and not url.startswith(("https://", "http://127.0.0.1", "http://[::1]")):
            raise AnsibleParserError("secrets travel only over HTTPS: give the controller's https:// address")
        query = "?secrets=true" if self.get_option("secrets") else ""
        try:
            answer = open_url(
                f"{url}/api/v1/inventory{query}",
                headers={"Authorization": f"Bearer {self.get_option('token')}", "Accept": "application/json"},
                timeout=self.get_option("timeout"),
                ca_path=self.get_option("ca"),
                follow_redirects="none",
                http_agent="saveos-inventory",
            )
            return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise AnsibleParserError(f"the controller at {url} refuses: {self._sentence(error)}") from None
        except (OSError, ValueError) as error:
            hint = "is it running, and is SAVEOS_CA its CA?"
            raise AnsibleParserError(f"the controller at {url} does not answer: {error}; {hint}") from None

    def _sentence(self, error):
        try:
            return json.loads(error.read())["detail"]
        except (OSError, ValueError, KeyError, TypeError):
            return f"{error.code} {error.reason}"

    def _pin(self, hostvars):
        """Write the pinned keys to a file that goes with Ansible's run, and let SSH know no others."""
        path = os.path.join(constants.DEFAULT_LOCAL_TMP, "saveos_known_hosts")
        lines = [
            f"{variables['saveos_host_id']} {' '.join(key.split()[:2])}\n"
            for variables in hostvars.values()
            for key in untagged(variables["saveos_ssh_host_keys"])
        ]
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.writelines(lines)
        for name, variables in hostvars.items():
            if variables.get("ansible_connection") == "local" or "ansible_ssh_common_args" in variables:
                continue
            known = f'-o UserKnownHostsFile="{path}" -o GlobalKnownHostsFile=/dev/null'
            alias = f"-o HostKeyAlias={variables['saveos_host_id']} -o StrictHostKeyChecking=yes"
            self.inventory.set_variable(name, "ansible_ssh_common_args", f"{alias} {known}")

    def _construct(self, hostvars):
        strict = self.get_option("strict")
        for name in hostvars:
            variables = self.inventory.get_host(name).get_vars()
            self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)
