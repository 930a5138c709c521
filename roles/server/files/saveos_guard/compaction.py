# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Making final what was judged: the only place where borg compacts."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from saveos_guard.borg_files import read_config
from saveos_guard.copies import take_copy
from saveos_guard.errors import Busy, Trouble
from saveos_guard.objects import settle
from saveos_guard.reasons import reason
from saveos_guard.report import figures
from saveos_guard.repository import Repository
from saveos_guard.values import mib
from saveos_guard.view import View


def borg(repository: Repository, *words: str) -> None:
    """Run borg on the repository as its owner, without a key. Busy while a client is at work, or Trouble."""
    (uid, gid), state = repository.owner, repository.settings["state"]
    home = f"{state}/.homes/{uid}"
    os.makedirs(home, mode=0o700, exist_ok=True)
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        for folder in (state, os.path.dirname(home)):
            os.chmod(folder, 0o711)  # only to pass through: what is below is root's own
        os.chown(home, uid, gid)
        as_user = {"user": uid, "group": gid, "extra_groups": []}
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "BORG_BASE_DIR": home,
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    }
    command = [repository.settings["borg"], words[0], "--lock-wait", "5", *words[1:]]
    done = subprocess.run(
        command, env=environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", check=False, start_new_session=True, umask=0o077, **as_user,
    )  # fmt: skip
    said = (done.stderr.strip().splitlines() or [""])[-1][:300]
    if done.returncode not in (0, 1) and "lock" in done.stderr.lower():
        raise Busy(f"a client is at work: {said}")
    if done.returncode not in (0, 1):
        raise Trouble(f"borg {words[0]} ended {done.returncode}: {said}")


def compact_repository(repository: Repository, last: dict[str, Any]) -> None:
    """Make final what was judged. Killed at any point, the next run begins here and ends what was begun."""
    repository.state.update(compacting=True, ours=last["name"])
    repository.save()
    if read_config(repository.path).get("repository", "append_only", fallback="0") not in ("0", "False"):
        # the forced command says it to every client
        borg(repository, "config", repository.path, "append_only", "0")
    try:
        borg(repository, "compact", repository.path)
    except Trouble:
        repository.state["compacting"] = repository.transaction() != last["transaction"]
        repository.save()
        raise
    repository.state.update(compacting=False, last_compact_at=repository.now)
    repository.save()


def make_final(
    repository: Repository, report: dict[str, Any], view: View, copy: dict[str, Any], written: int
) -> None:
    """Compact, and copy what came of it."""
    free, needed = shutil.disk_usage(repository.guard.root).free, repository.settings["reserve_bytes"] + written
    if free < needed:
        text = f"To compact, {mib(needed)} must be free, but only {mib(free)} are"
        report["reasons"].append(reason("space", text, "warning"))
        return
    repository.mark(copy, why="compact")
    repository.ledger.add("compact", repository.now, transaction=view.transaction, freeable=view.freeable_bytes)
    compact_repository(repository, copy)
    transaction = repository.transaction()
    after = take_copy(repository, "change", transaction if transaction is not None else -1)
    repository.mark(after, committed_at=copy["committed_at"], good=True)
    repository.state["ours"] = ""
    repository.save()
    now = View(f"{repository.hold}/{after['name']}")
    settle(repository, now)
    report.update(state="compacted", freed_bytes=max(0, view.bytes - now.bytes))
    figures(report, now)
