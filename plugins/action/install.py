# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Install the tools on a host: ask the module of the same name what is missing, send that, and let it
install."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.saveos.fleet.plugins.module_utils.packed_program import pack

ROOT = Path(__file__).resolve().parents[2]  # the checkout, or the installed collection
FALLBACKS = (
    "use install method `package` (the distribution's borg, where it is new enough) or `path` (your "
    "own binaries)"
)


def is_older(version, needed):
    """Is a dotted version older than the one needed?"""
    return [int(part) for part in version.split(".")] < [int(part) for part in needed.split(".")]


def find_bundle(configured, arch, display):
    """Path of the bundle for a host of this architecture; built when it is the default one and missing."""
    given = configured or os.environ.get("SAVEOS_BUNDLE", "")
    if given:
        bundle = Path(given).expanduser()
        if not bundle.is_file():
            raise AnsibleActionFail(
                f"the agent bundle {bundle} does not exist: build it with scripts/bundle.py"
            )
        return bundle
    bundle = ROOT / ".build" / "bundle" / f"saveos-bundle-{arch}.tar.gz"
    if bundle.is_file():
        return bundle
    if arch != platform.machine():
        raise AnsibleActionFail(
            f"there is no agent bundle for {arch} at {bundle}: run scripts/bundle.py on such a machine and "
            f"copy it, or {FALLBACKS}"
        )
    display.display("Building the agent bundle; this happens once and takes about two minutes")
    built = subprocess.run(
        ["/usr/bin/python3", str(ROOT / "scripts" / "bundle.py")], capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise AnsibleActionFail(built.stderr.strip())
    return bundle


def read_label(bundle, host):
    """The bundle's label; refuses a host that is too old for it."""
    file = bundle.with_name(bundle.name.removesuffix(".tar.gz") + ".json")
    try:
        label = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise AnsibleActionFail(
            f"the label {file} of the agent bundle is not readable: build it again ({error})"
        ) from error
    if label["arch"] != host["arch"]:
        raise AnsibleActionFail(
            f"the agent bundle {bundle} is for {label['arch']} and this host is {host['arch']}"
        )
    if not host["glibc"] or is_older(host["glibc"], label["glibc"]):
        raise AnsibleActionFail(
            f"the agent bundle needs glibc {label['glibc']} and {host['os']} has {host['glibc'] or 'none'}: "
            f"build it on a machine as old as this host (scripts/bundle.py), or {FALLBACKS}"
        )
    return label


class ActionModule(ActionBase):
    """Send only what the host lacks."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        host, configured, program = args.pop("host"), args.pop("bundle", ""), args.pop("program", "")
        sources = {}
        if args.get("method", "bundle") == "bundle":
            sources["bundle"] = find_bundle(configured, host["arch"], Display())
            label = read_label(sources["bundle"], host)
            args["bundle"] = {key: label[key] for key in ("sha256", "borg", "borgmatic")}
        if program and Path(program).is_dir():
            sources["program"] = pack(program)
            args["program_sha256"] = hashlib.sha256(sources["program"]).hexdigest()
        answer = self._execute_module("saveos.fleet.install", module_args=args, task_vars=task_vars)
        missing = answer.pop("missing", [])
        if missing and not answer.get("failed") and not self._task.check_mode:
            self._make_tmp_path()
            for name in missing:
                sent = self._connection._shell.join_path(self._connection._shell.tmpdir, name)
                source = sources[name]
                if isinstance(source, bytes):
                    args[f"{name}_sent"] = self._transfer_data(sent, source)
                else:
                    args[f"{name}_sent"] = self._transfer_file(str(source), sent)
            answer = self._execute_module("saveos.fleet.install", module_args=args, task_vars=task_vars)
            answer.pop("missing", None)
            self._remove_tmp_path(self._connection._shell.tmpdir)
        answer.pop("invocation", None)
        return {**result, **answer}
