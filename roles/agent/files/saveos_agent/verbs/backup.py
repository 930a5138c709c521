# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Make a backup, or start, join or end one."""

from __future__ import annotations

import argparse
import sys
import time

from saveos_agent.answers import Answer, plan_answer, record_answer, stop_answer
from saveos_agent.backup import back_up
from saveos_agent.control import request_backup, start_backup, stop_run, wait_for_backup
from saveos_agent.errors import refused
from saveos_agent.options import run_options
from saveos_agent.plan import plan_backup
from saveos_agent.schedule import default_trigger, jitter, not_now
from saveos_agent.settings import Settings
from saveos_agent.state import put_request, recent_records
from saveos_agent.times import check_run_id, new_run_id


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    if options.check:
        return plan_answer(plan_backup(settings))
    if options.stop:
        return stop_answer(stop_run(settings, options.run_id, "backup"))
    run_id = check_run_id(options.run_id or new_run_id())
    trigger = options.trigger or default_trigger()
    if options.detach:
        wanted, start = request_backup(settings, run_id, options.job_id, trigger)
        if start:
            start_backup(settings)
        return Answer({"run_id": wanted, "joined": wanted != run_id}, [f"run {wanted} started"])
    if options.wait:
        return record_answer(wait_for_backup(settings, run_id, options.job_id, trigger, options.timeout))
    if trigger == "timer" and (reason := not_now(settings, time.time(), options.due)):
        return Answer({"skipped": reason}, [reason])
    if options.run_id and put_request(settings, run_id, options.job_id, trigger) != run_id:
        raise refused("Another backup is about to begin.", "Join it with: saveos-agent backup --wait.")
    if trigger == "timer" and not settings.systemd and settings.jitter_seconds:
        time.sleep(jitter(settings, settings.jitter_seconds))
    code = back_up(
        settings, trigger, lambda text: print(text, file=sys.stderr, flush=True), requested=options.requested
    )
    newest = recent_records(settings, 1)
    return Answer(newest[0] if newest else None, [], code)


def add_options(parser: argparse.ArgumentParser) -> None:
    run_options(parser)
    parser.add_argument("--detach", action="store_true", help="start the run and return at once")
    parser.add_argument(
        "--due", action="store_true", help="with --trigger timer: do nothing unless it is time now"
    )
    parser.add_argument("--requested", action="store_true", help=argparse.SUPPRESS)  # nothing without a request
    parser.add_argument("--stop", action="store_true", help="end the running backup and all its processes")
