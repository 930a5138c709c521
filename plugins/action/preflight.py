# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the module of the same name; say in a sentence why a host cannot be worked on."""

from __future__ import annotations

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

BECOME = (
    (
        "not found",
        "sudo is not installed there: install it, or set `ansible_user: root` with `ansible_become: false`",
    ),
    ("password", "sudo asks for a password: allow the user without one, or run with --ask-become-pass"),
    ("not in the sudoers", "the user may not use sudo: add a sudoers rule, or set `ansible_user: root`"),
)


def connection_sentence(text):
    """What to do about a failed SSH connection, or an empty string where SSH's own words are best."""
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in text or "Host key verification failed" in text:
        return (
            "its SSH host key is not the one that is known: if the host was rebuilt, replace the key in "
            "known_hosts "
            "(ssh-keygen -R ADDRESS, then add the new one); if not, someone may be in between"
        )
    if "Permission denied" in text:
        return "SSH refused the log-in: check ansible_user and the private key, and authorized_keys there"
    if any(words in text for words in ("timed out", "No route to host", "Connection refused", "closed by")):
        return "it does not answer over SSH: see that it is up, and that its address and port are right"
    return ""


def become_sentence(text):
    """What to do about become that does not work, or an empty string where that is not the trouble."""
    if "sudo" not in text:
        return ""
    return next((sentence for word, sentence in BECOME if word in text), "")


class ActionModule(ActionBase):
    """Preflight of a host."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        name = (task_vars or {}).get("inventory_hostname", "the host")
        args = dict(self._task.args)
        if problems := args.pop("problems", []):
            return {**result, "failed": True, "msg": "; ".join(problems)}
        try:
            result.update(self._execute_module(module_args=args, task_vars=task_vars))
        except AnsibleConnectionFailure as error:
            sentence = connection_sentence(str(error))
            raise AnsibleConnectionFailure(
                f"{name}: {sentence}. {error}" if sentence else str(error)
            ) from error
        except AnsibleError as error:
            sentence = become_sentence(str(error))
            return {**result, "failed": True, "msg": sentence or str(error)}
        told = " ".join(str(result.get(key, "")) for key in ("msg", "module_stderr", "module_stdout"))
        if result.get("failed") and become_sentence(told):
            return {**result, "msg": become_sentence(told), "module_stderr": "", "exception": ""}
        return result
