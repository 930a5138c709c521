# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Bring paths of an archive back."""

from __future__ import annotations

import argparse
import base64
import os
import sys

from saveos_agent.answers import Answer, plan_answer, record_answer
from saveos_agent.errors import usage
from saveos_agent.options import repository_option, run_options
from saveos_agent.plan import plan_restore
from saveos_agent.request import CONFLICTS, RestoreRequest, check_restore
from saveos_agent.restore import restore, saved_request, wait_for_restore
from saveos_agent.settings import Settings
from saveos_agent.state import find_record, store
from saveos_agent.times import check_run_id, new_run_id


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    if options.resume:
        request = saved_request(settings, check_run_id(options.run_id))
    elif not options.archive:
        raise usage("Which archive?", "Add --archive latest, or a name that `saveos-agent snapshots` shows.")
    else:
        request = RestoreRequest(
            check_run_id(options.run_id or new_run_id()),
            options.job_id,
            options.trigger or "host",
            options.repository,
            options.archive,
            tuple(options.path) + tuple(path_of(ref) for ref in options.ref),
            options.destination,
            tuple(options.exclude) + tuple(path_of(ref) for ref in options.exclude_ref),
            options.conflict,
            options.in_place,
            not options.no_verify,
            check_run_id(options.transfer) if options.transfer else "",
            *wanted(options),
        )
    if options.check:
        return plan_answer(plan_restore(settings, request))
    if options.wait:
        return record_answer(wait_for_restore(settings, request, options.timeout))
    if not options.resume:
        check_restore(settings, request)
        store(settings, request.state_file, {"request": vars(request), "tries": 0})
    code = restore(settings, request, lambda text: print(text, file=sys.stderr, flush=True))
    return Answer(find_record(settings, request.run_id), [], code)


def wanted(options: argparse.Namespace) -> tuple[bool, bool, bool]:
    """Whether owners, ACLs and extended attributes come back, too."""
    return not options.no_owners, not options.no_acls, not options.no_xattrs


def metadata_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-owners",
        action="store_true",
        help="leave owners out: all is root's, and setuid to nobody",
    )
    parser.add_argument("--no-acls", action="store_true", help="leave ACLs out")
    parser.add_argument(
        "--no-xattrs", action="store_true", help="leave extended attributes (and file capabilities) out"
    )


def path_of(ref: str) -> str:
    """The path that a reference stands for: URL-safe base64 of its bytes. Raises AgentError."""
    try:
        return os.fsdecode(base64.urlsafe_b64decode(ref + "=" * (-len(ref) % 4)))
    except ValueError:
        raise usage(f"{ref!r} is no reference of a path.") from None


def add_options(parser: argparse.ArgumentParser) -> None:
    run_options(parser)
    repository_option(parser)
    parser.add_argument("--archive", default="", help="name or id of the archive, or latest")
    parser.add_argument(
        "--path", action="append", default=[], help="path to bring back; repeat it (default: all)"
    )
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="PATH", help="path to leave out; repeat it"
    )
    for name in ("--ref", "--exclude-ref"):
        parser.add_argument(name, action="append", default=[], metavar="REF", help=argparse.SUPPRESS)
    parser.add_argument(
        "--destination", default="", help="directory to restore into (default: one below the state directory)"
    )
    parser.add_argument("--in-place", action="store_true", help="put everything back to where it came from")
    parser.add_argument(
        "--conflict",
        default="refuse",
        choices=CONFLICTS,
        help="what happens to what is there (%(default)s: the destination must be absent or empty)",
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="do not compare what was restored with the archive by hash"
    )
    metadata_options(parser)
    parser.add_argument("--transfer", default="", help=argparse.SUPPRESS)  # another host sends the content
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
