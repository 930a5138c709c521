# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Put the guard in place: pack its package here, and have the module of the same name install the one file."""

from __future__ import annotations

import base64

from ansible.plugins.action import ActionBase
from ansible_collections.saveos.fleet.plugins.module_utils.packed_program import pack


class ActionModule(ActionBase):
    """Replace the package's directory by the packed program."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        args = {**self._task.args, "program": base64.b64encode(pack(self._task.args["program"])).decode()}
        answer = self._execute_module("saveos.fleet.server_guard", module_args=args, task_vars=task_vars)
        answer.pop("invocation", None)
        return {**result, **answer}
