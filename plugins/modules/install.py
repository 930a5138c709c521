#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.converge import Converge, run

DOCUMENTATION = r"""
module: install
short_description: Install borg, borgmatic and saveos-agent
version_added: 0.1.0
author: The SaveOS contributors (@saveos)
description:
  - Whatever the method, the tools are found in one directory, O(bin).
  - Method V(bundle) unpacks the agent bundle, which its action plugin sends when the host lacks it.
  - Method V(package) installs the distribution's packages, and refuses them where they are too old, before it
    installs anything.
  - Method V(path) uses binaries that are there already.
options:
  method:
    description: Where the tools come from.
    choices: [bundle, package, path]
    default: bundle
    type: str
  tools:
    description: What is needed; a storage server needs borg alone.
    type: list
    elements: str
    default: [borg]
  bin:
    description: Directory of the links. A storage server has its own, so that on a host that is an agent, too,
      each may choose.
    type: str
    default: /opt/saveos/bin
  bundle:
    description: Label of the bundle (sha256, borg, borgmatic). The task gives a path, the action plugin reads
      the label.
    type: dict
  borg_path:
    description: The borg binary, for method V(path).
    type: str
    default: ""
  borgmatic_path:
    description: The borgmatic binary, for method V(path).
    type: str
    default: ""
  host:
    description: What M(saveos.fleet.preflight) found; used by the action plugin.
    type: dict
  program:
    description: The agent's package on the control node, which the action plugin packs into one file.
    type: str
    default: ""
  program_sha256:
    description: Hash of saveos-agent; set by the action plugin.
    type: str
    default: ""
  bundle_sent:
    description: Where the action plugin put the bundle.
    type: str
    default: ""
  program_sent:
    description: Where the action plugin put saveos-agent.
    type: str
    default: ""
attributes:
  check_mode: {support: full, description: Says what would be installed.}
"""

EXAMPLES = r"""
- name: Install borg from the bundle
  saveos.fleet.install:
    host: "{{ preflight.saveos }}"
    tools: [borg]
"""

RETURN = r"""
saveos:
  description: Versions of what is installed.
  returned: success
  type: dict
  sample: {versions: {borg: 1.4.5, borgmatic: 2.1.10, install_method: bundle}}
"""


PREFIX = "/opt/saveos"
# borg 1.2 lacks the fix for CVE-2023-36811 in Debian 12; borgmatic 2.0 brought `commands:`, which our hooks are
# written in
OLDEST = {"borg": "1.4.0", "borgmatic": "2.0.0"}
PACKAGES = {"borg": "borgbackup", "borgmatic": "borgmatic"}
REASON = {
    "borg": "older ones lack fixes for lost and forged archives (CVE-2023-36811)",
    "borgmatic": "older ones do not read our configuration",
}
FALLBACKS = "use install method `bundle` (the default), or `path` with binaries of your own"
UNPACKED_MB = 120


def version_of(text):
    """The first dotted number in a program's or package's version, as a tuple; empty when there is none."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def dotted(version):
    return ".".join(str(part) for part in version)


def refusal(tool, found, whose):
    """Why a version is refused, or an empty string where it is new enough."""
    if found >= version_of(OLDEST[tool]):
        return ""
    return f"{whose} {tool} {dotted(found)} is too old, {OLDEST[tool]} is needed ({REASON[tool]}): {FALLBACKS}"


def sha256(path):
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return ""


class Installer:
    """One host's installation, by one of three methods."""

    def __init__(self, host, params):
        self.host = host
        self.params = params
        self.missing = []

    def bundle(self):
        """Unpack the bundle beside earlier ones; returns directory and versions. A run that uses an old one
        goes on."""
        label = self.params["bundle"]
        tree = f"{PREFIX}/bundle/{label['sha256'][:12]}"
        if not os.path.isfile(f"{tree}/bundle.json"):
            if self.params["bundle_sent"]:
                self.unpack(self.params["bundle_sent"], tree)
            else:
                self.missing.append("bundle")
                self.host.changed = True
        escrow = ["saveos-seal"] if "borgmatic" in self.params["tools"] else []
        return {tool: f"{tree}/{tool}" for tool in [*self.params["tools"], *escrow]}, label

    def unpack(self, tarball, tree):
        parent = os.path.dirname(tree)
        os.makedirs(parent, mode=0o755, exist_ok=True)
        free = shutil.disk_usage(parent).free // 2**20
        if free < UNPACKED_MB:
            self.host.fail(
                f"{parent} has {free} MiB free and the agent bundle needs {UNPACKED_MB}: free some space there"
            )
        partial = f"{tree}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(tarball) as archive:
            archive.extractall(partial, **({"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}))
        shutil.rmtree(tree, ignore_errors=True)
        os.rename(partial, tree)
        self.host.note(tree, "", "bundle\n")
        trees = sorted((os.path.join(parent, name) for name in os.listdir(parent)), key=os.path.getmtime)
        for old in trees[:-2]:
            shutil.rmtree(old, ignore_errors=True)

    def package(self):
        """The distribution's packages, refused by their candidate versions before any is installed."""
        if not shutil.which("apt-get"):
            self.host.fail(f"install method `package` knows Debian's packages only: {FALLBACKS}")
        tools, absent = self.params["tools"], []
        for tool in tools:
            if not shutil.which(tool, path="/usr/bin"):
                absent.append(PACKAGES[tool])
        if absent and not self.host.module.check_mode:
            self.apt("update")
        for tool in tools:
            policy = run(["apt-cache", "policy", PACKAGES[tool]]).stdout
            found = re.search(r"Installed: (\d\S*)", policy) or re.search(r"Candidate: (\d\S*)", policy)
            if not found:
                self.host.fail(f"this host's package sources do not have {PACKAGES[tool]}: {FALLBACKS}")
            if sentence := refusal(tool, version_of(found.group(1)), "this distribution's"):
                self.host.fail(sentence)
        if absent and self.host.note("packages", "", " ".join(absent) + "\n"):
            self.apt("install", "-y", "--no-install-recommends", *absent)
        return self.checked({tool: f"/usr/bin/{tool}" for tool in tools})

    def apt(self, *verb):
        result = run(["apt-get", "-q", *verb], env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=600)
        if result.returncode:
            self.host.fail(f"apt-get {verb[0]} failed ({FALLBACKS}): {result.stderr.strip()[-400:]}")

    def path(self):
        """Binaries the operator put there."""
        places = {}
        for tool in self.params["tools"]:
            places[tool] = self.params[f"{tool}_path"]
            if not os.access(places[tool], os.X_OK):
                self.host.fail(
                    f"install method `path`: {places[tool] or tool + '_path'} is not a program on this host; "
                    "set the path"
                )
        return self.checked(places)

    def checked(self, places):
        """The programs with the versions they tell, refused where too old."""
        versions = {}
        for tool, place in places.items():
            if not os.path.exists(place):
                continue  # check mode: it would be installed
            found = version_of(run([place, "--version"]).stdout)
            if sentence := refusal(tool, found, place + ":"):
                self.host.fail(sentence)
            versions[tool] = dotted(found)
        return places, versions

    def program(self):
        """The host's own command, saveos-agent."""
        place = f"{PREFIX}/bin/saveos-agent"
        if sha256(place) != self.params["program_sha256"]:
            if not self.params["program_sent"]:
                self.missing.append("program")
                self.host.changed = True
                return
            self.host.note(place, "", "saveos-agent\n")
            os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
            shutil.copyfile(self.params["program_sent"], place + ".new")
            os.chmod(place + ".new", 0o755)
            os.rename(place + ".new", place)
        self.host.link("/usr/local/bin/saveos-agent", place)


def main():
    module = AnsibleModule(
        argument_spec={
            "method": {"choices": ["bundle", "package", "path"], "default": "bundle"},
            "tools": {"type": "list", "elements": "str", "default": ["borg"]},
            "bin": {"default": f"{PREFIX}/bin"},
            "bundle": {"type": "dict"},
            "borg_path": {"default": ""},
            "borgmatic_path": {"default": ""},
            "host": {"type": "dict"},
            "program": {"default": ""},
            "program_sha256": {"default": ""},
            "bundle_sent": {"default": ""},
            "program_sent": {"default": ""},
        },
        required_if=[("method", "bundle", ["bundle"])],
        supports_check_mode=True,
    )
    host = Converge(module)
    installer = Installer(host, module.params)
    places, versions = getattr(installer, module.params["method"])()
    if module.params["program_sha256"]:
        installer.program()
    if "bundle" not in installer.missing:
        for tool, place in places.items():
            host.link(f"{module.params['bin']}/{tool}", place)
    known = {tool: versions[tool] for tool in module.params["tools"] if tool in versions}
    host.exit(
        missing=installer.missing, saveos={"versions": {**known, "install_method": module.params["method"]}}
    )


if __name__ == "__main__":
    main()
