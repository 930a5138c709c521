# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Send paths of an archive through the controller to who waits for them."""

from __future__ import annotations

import argparse

from saveos_agent.answers import Answer
from saveos_agent.options import repository_option, run_options
from saveos_agent.request import RestoreRequest, check_paths
from saveos_agent.send import send
from saveos_agent.settings import Settings
from saveos_agent.times import check_run_id, new_run_id
from saveos_agent.verbs.restore import metadata_options, path_of


def run(settings: Settings, options: argparse.Namespace) -> Answer:
    request = RestoreRequest(
        check_run_id(options.run_id or new_run_id()),
        options.job_id,
        options.trigger or "host",
        options.repository,
        options.archive,
        tuple(options.path) + tuple(path_of(ref) for ref in options.ref),
        "",
        tuple(options.exclude) + tuple(path_of(ref) for ref in options.exclude_ref),
        verify=True,
        transfer=check_run_id(options.transfer),
        acls=not options.no_acls,
        xattrs=not options.no_xattrs,
    )
    check_paths(request)
    data = send(settings, request, options.staged, options.timeout)
    return Answer(data, [f"{data['sent']} bytes sent as {data['form']}"])


def add_options(parser: argparse.ArgumentParser) -> None:
    run_options(parser)
    repository_option(parser)
    parser.add_argument("--transfer", required=True, metavar="UUID", help="the controller's transfer")
    parser.add_argument("--archive", required=True, help="name or id of the archive, or latest")
    parser.add_argument("--path", action="append", default=[], help="path to send; repeat it (default: all)")
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="PATH", help="path to leave out; repeat it"
    )
    for name in ("--ref", "--exclude-ref"):
        parser.add_argument(name, action="append", default=[], metavar="REF", help=argparse.SUPPRESS)
    metadata_options(parser)
    parser.add_argument(
        "--staged",
        action="store_true",
        help="for another host: extract aside first, send everything of each file",
    )
