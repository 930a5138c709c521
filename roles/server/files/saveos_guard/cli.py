# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command line."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from typing import Any

from saveos_guard.checking import check
from saveos_guard.errors import Busy, Damaged, Trouble
from saveos_guard.files import read_json
from saveos_guard.report import in_words
from saveos_guard.repository import Guard
from saveos_guard.run import adopt, run
from saveos_guard.settings import CONFIG, hold_days, load_settings, lower_hold
from saveos_guard.undo import undo
from saveos_guard.word import tell


def main(arguments: list[str]) -> int:
    """0 all well, 3 something is held or damaged, 1 the guard could not work."""
    parser = argparse.ArgumentParser(
        prog="saveos-guard", description="Guard the repositories of this storage server."
    )
    parser.add_argument("--config", default=CONFIG)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (
        ("run", "copy, check, judge, compact or hold; this is what the timer does"),
        ("report", "show the last report"),
        ("tell", "take the controller's word from standard input"),
        ("check", "read all segments against their checksums now"),
        ("undo", "put a repository back to a copy"),
        ("lower-hold", "hold copies for fewer days; only by hand, at the server"),
        ("adopt", "begin anew with a repository as it is; only by hand, at the server"),
    ):
        one = verbs.add_parser(verb, help=text, description=text)
        one.add_argument("--json", action="store_true", help="print the whole result as JSON")
        if verb in ("run", "check"):
            one.add_argument("--repository", action="append", default=[], help="only this one; may be repeated")
        if verb == "run":
            one.add_argument("--no-compact", action="store_true", help="judge only")
        if verb == "check":
            one.add_argument("--seconds", type=float, default=86_400, help="stop after so long")
        if verb in ("undo", "adopt"):
            one.add_argument("--repository", required=True)
        if verb == "undo":
            one.add_argument(
                "--to", default="latest-good", help="a copy's time as the report tells it, or latest-good"
            )
            one.add_argument("--dry-run", action="store_true", help="only say what would be done")
        if verb == "lower-hold":
            one.add_argument("--days", type=float, required=True)
        if verb in ("lower-hold", "adopt"):
            one.add_argument("--i-am-at-the-server", action="store_true", required=True)
    options = parser.parse_args(arguments)
    try:
        return act(options, load_settings(options.config))
    except (Trouble, Busy, Damaged) as error:
        print(f"saveos-guard: {error}", file=sys.stderr)
    except OSError as error:
        print(f"saveos-guard: {error.strerror}: {error.filename}", file=sys.stderr)
    return 1


def act(options: argparse.Namespace, settings: dict[str, Any]) -> int:
    """Do one verb, under the guard's lock but for `report`; returns the exit code."""
    state = settings["state"]
    os.makedirs(state, mode=0o711, exist_ok=True)
    if options.verb == "report":
        report = read_json(f"{state}/report.json")
        if not report:
            raise Trouble("there is no report yet: saveos-guard run")
        print(json.dumps(report) if options.json else in_words(report))
        return 0
    word = json.loads(sys.stdin.read() or "null") if options.verb == "tell" else None
    os.nice(10)
    with open(f"{state}/lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, result, text = changed(options, settings, word, time.time())
    print(json.dumps(result) if options.json or text is None else text)
    return code


def changed(
    options: argparse.Namespace, settings: dict[str, Any], word: Any, now: float
) -> tuple[int, dict[str, Any], str | None]:
    """Do a verb that needs the lock: (exit code, what came of it, the same for people)."""
    if options.verb == "tell":
        return 0, {"hold_refused": tell(settings, word, now)}, None
    if options.verb == "run":
        report = run(settings, options.repository, now, not options.no_compact)
        bad = any(each["state"] in ("held", "damaged", "missing") for each in report["repositories"])
        return 3 if bad else 0, report, in_words(report)
    if options.verb == "check":
        result = check(settings, options.repository, now, options.seconds)
        found = result["repositories"]
        lines = [f"{each['repository_id']}: {each['state']}: {each['detail']}" for each in found]
        bad = any(each["state"] != "ok" for each in found)
        return 3 if bad else 0, result, "\n".join(lines)
    if options.verb == "undo":
        repository = Guard(settings, now, hold_days(settings)[0], False).repository(options.repository)
        done = undo(repository, options.to, options.dry_run)
        return 0, done, f"{done['state']}: {options.repository} at {done['copy_at']}"
    if options.verb == "adopt":
        adopt(settings, options.repository, now)
        return 0, {"adopted": options.repository}, f"{options.repository} begins anew as it is"
    days = lower_hold(settings, options.days)
    text = f"copies are held for {days:g} days, unless settings or controller ask for more"
    return 0, {"hold_days": days}, text
