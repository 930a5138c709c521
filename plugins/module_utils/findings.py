# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a maintenance operation found on a host, in the one form that the controller stores and compares.

A module collects what it finds in `Findings` and ends with `saveos={"<operation>": findings.result(...)}`, in
check mode just as in a run.
"""

from __future__ import annotations

import datetime
import json
import re

SEVERITIES = ("critical", "warning", "info")
STATES = {"critical": "critical", "warning": "warning"}
MOST = 1000  # findings of a host
EVIDENCE, SUBJECT, SENTENCE = 2000, 1000, 500  # characters
RESULT_BYTES = 400 * 1024  # as JSON; ansible-runner drops a larger event, and nobody reads so much


def clean(text, length):
    """Text that a database and a terminal take, no longer than `length`."""
    text = str(text).encode("utf-8", "backslashreplace").decode()
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "?", text)
    return text if len(text) <= length else text[: length - 1] + "…"


class Findings:
    """The findings of one run on this host; (id, subject) is what a finding is, from run to run."""

    def __init__(self):
        self._found = {}
        self._left = 0

    def add(self, id, severity, title, subject="", evidence="", fix="", fixable=False, fixed=False):  # noqa: PLR0917
        """Note a finding; the same id and subject again replaces it.

        `id` is a stable kebab-case kind, `subject` what it is about on this host (a path, a package; "" is the
        host). `title` is one sentence, `fix` what to type or do, `fixable` whether the operation can mend it by
        itself, `fixed` whether it just did (in check mode: would). None of them may hold a secret.
        """
        if severity not in SEVERITIES:
            raise ValueError(f"{severity} is no severity")
        subject = clean(subject, SUBJECT).replace("\n", "?").replace("\t", "?")
        if (id, subject) not in self._found and len(self._found) >= MOST:
            self._left += 1
            return
        self._found[id, subject] = {
            "id": id,
            "severity": severity,
            "subject": subject,
            "title": clean(title, SENTENCE).replace("\n", " "),
            "evidence": clean(evidence, EVIDENCE),
            "fix": clean(fix, EVIDENCE),
            "fixable": bool(fixable),
            "fixed": bool(fixed),
        }

    def __len__(self):
        return len(self._found)

    @property
    def fixed(self):
        """Whether any was mended (in check mode: would be)."""
        return any(each["fixed"] for each in self._found.values())

    def result(self, summary=None, judged=None):
        """The record of the run.

        `summary` are flat numbers and short texts. `judged` are the ids that this run looked for where that
        were not all of the operation's: open findings of other ids stay as they are.
        """
        found = sorted(
            self._found.values(),
            key=lambda each: (SEVERITIES.index(each["severity"]), each["id"], each["subject"]),
        )
        open_ = [each["severity"] for each in found if not each["fixed"]]
        state = next((STATES[each] for each in ("critical", "warning") if each in open_), "ok")
        kept, left, size = [], self._left, 0
        for each in found:
            size += len(json.dumps(each))
            if size > RESULT_BYTES:
                left += 1
            else:
                kept.append(each)
        if left:
            kept.append(
                {
                    "id": "more",
                    "severity": "info",
                    "subject": "",
                    "title": f"There are {left} more findings than can be told: mend these first.",
                    "evidence": "",
                    "fix": "Mend what is listed, then run it again.",
                    "fixable": False,
                    "fixed": False,
                }
            )
        return {
            "schema": 1,
            "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "state": state,
            "summary": summary or {},
            "judged": sorted(judged) if judged is not None else None,
            "findings": kept,
        }
