# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import datetime
import getpass
import gzip
import json
import os
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import PurePath

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: report
type: notification
short_description: Report a run by hand to the SaveOS controller
version_added: 0.1.0
author: The SaveOS contributors (@saveos)
description:
  - At the end of a playbook it posts one summary to the controller, so that a run by hand becomes a job there.
  - Active only where E(SAVEOS_URL) and E(SAVEOS_TOKEN) are set and E(SAVEOS_JOB_ID) is not, because the
    controller tracks its own runs. Where the controller has a CA of its own, E(SAVEOS_CA) names the file with
    it. It waits at most 3 s and never fails a play. Results of tasks with
    C(no_log) are left out.
"""

TIMEOUT = 3.0  # seconds, for the whole report
RESULT_BYTES = 512 * 1024  # per host; more is a listing, which nobody needs in a job
REPORT_BYTES = 24 * 1024 * 1024  # of all hosts: the controller takes 32 MB, packed 2 MB
PACK_BYTES = 256 * 1024  # what is larger is packed


def now():
    return (
        datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def merge(into, new):
    """Merge a dictionary into another, dictionaries inside it too."""
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def shorten(hosts):
    """Leave out the largest results of a report until the others fit."""
    sizes = [(len(json.dumps(host["result"])), place) for place, host in enumerate(hosts)]
    total = sum(size for size, _place in sizes)
    for size, place in sorted(sizes, reverse=True):
        if total <= REPORT_BYTES:
            return
        hosts[place]["result"] = {"truncated": True}
        total -= size


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to another place."""

    def redirect_request(self, *_arguments, **_options):
        return None


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "saveos.fleet.report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.url = os.environ.get("SAVEOS_URL", "").rstrip("/")
        self.token = os.environ.get("SAVEOS_TOKEN", "")
        self.disabled = not (self.url and self.token) or bool(os.environ.get("SAVEOS_JOB_ID"))
        self.operation, self.started_at = "", now()
        self.results, self.errors = {}, {}

    def v2_playbook_on_start(self, playbook):
        self.operation, self.started_at = PurePath(playbook._file_name).stem, now()
        self.results, self.errors = {}, {}

    def v2_runner_on_ok(self, result):
        self._collect(result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._collect(result)
        if not ignore_errors:
            self._note_error(result)

    def v2_runner_on_unreachable(self, result):
        self._note_error(result)

    def _hidden(self, result):
        return bool(result.task.no_log) or bool(result.result.get("_ansible_no_log"))

    def _collect(self, result):
        data = result.result.get("saveos")
        if isinstance(data, dict) and not self._hidden(result):
            merge(
                self.results.setdefault(result.host.get_name(), {}), json.loads(json.dumps(data, default=str))
            )

    def _note_error(self, result):
        text = "hidden by no_log" if self._hidden(result) else str(result.result.get("msg") or "failed")
        # The controller refuses what no database takes, and with it the whole report
        text = text[:2000].replace("\x00", "\N{REPLACEMENT CHARACTER}")
        self.errors[result.host.get_name()] = text.encode("utf-8", "replace").decode()

    def v2_playbook_on_stats(self, stats):
        hosts = [self._host(name, stats.summarize(name)) for name in sorted(stats.processed)]
        shorten(hosts)
        failed = sum(host["state"] in ("failed", "unreachable") for host in hosts)
        report = {
            "operation": self.operation,
            "mode": "check" if context.CLIARGS.get("check") else "run",
            "started_at": self.started_at,
            "finished_at": now(),
            "state": "succeeded" if not failed else "failed" if failed == len(hosts) else "partial",
            "hosts": hosts,
            "user": self._user(),
        }
        problem = self._post(report)
        if problem:
            self._display.warning(f"The run was not reported to the controller {self.url}: {problem}.")

    def _host(self, name, counts):
        """One host's line of the report; counts are Ansible's recap."""
        state = "changed" if counts["changed"] else "ok" if counts["ok"] else "skipped"
        if counts["failures"] or counts["unreachable"]:
            state = "unreachable" if counts["unreachable"] else "failed"
        result = self.results.get(name, {})
        return {
            "name": name,
            "state": state,
            "counts": {
                "ok": counts["ok"],
                "changed": counts["changed"],
                "failed": counts["failures"],
                "unreachable": counts["unreachable"],
                "skipped": counts["skipped"],
            },
            "result": result if len(json.dumps(result)) <= RESULT_BYTES else {"truncated": True},
            "error": self.errors.get(name) if state in ("failed", "unreachable") else None,
        }

    @staticmethod
    def _refusal(error):
        """The controller's own sentence where it gives one: which right the token lacks, say."""
        try:
            return str(json.loads(error.read(65536))["detail"])
        except Exception:  # noqa: BLE001 - what stands in front of it may answer anything
            return f"{error.code} {error.reason}"

    @staticmethod
    def _user():
        try:
            return getpass.getuser()
        except (KeyError, OSError):
            return str(os.getuid())

    def _post(self, report):
        """Send the report; returns what went wrong, or None. In a thread: name look-ups know no timeout."""
        outcome = [f"no answer within {TIMEOUT:.0f} s (it may record it yet: saveos jobs list)"]

        def send():
            try:
                body = json.dumps(report).encode()
                packed = len(body) > PACK_BYTES
                request = urllib.request.Request(
                    f"{self.url}/api/v1/jobs/reports", gzip.compress(body, 6) if packed else body, method="POST"
                )
                request.add_header("Content-Type", "application/json")
                if packed:
                    request.add_header("Content-Encoding", "gzip")
                request.add_header("Authorization", f"Bearer {self.token}")
                trusted = ssl.create_default_context(cafile=os.environ.get("SAVEOS_CA") or None)
                opener = urllib.request.build_opener(NoRedirect, urllib.request.HTTPSHandler(context=trusted))
                with opener.open(request, timeout=TIMEOUT) as response:
                    response.read(65536)
                outcome[0] = None
            except urllib.error.HTTPError as error:
                outcome[0] = self._refusal(error)
            except Exception as error:  # noqa: BLE001 - a report must never fail a play
                outcome[0] = str(error)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        thread.join(TIMEOUT)
        return outcome[0]
