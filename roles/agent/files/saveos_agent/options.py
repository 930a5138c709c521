# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Options that several verbs have."""

from __future__ import annotations

import argparse


def run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait", action="store_true", help="start the run detached, wait for it, print its record"
    )
    parser.add_argument(
        "--run-id", default="", metavar="UUID", help="id of the run; the same id never runs twice"
    )
    parser.add_argument("--job-id", default="", metavar="ID", help="the controller's job, for the record")
    parser.add_argument("--check", action="store_true", help="change nothing, say what would be done")
    parser.add_argument(
        "--trigger", default="", choices=("", "timer", "job", "playbook", "host"), help="who asked for it"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=86400,
        metavar="SECONDS",
        help="with --wait: wait so long (%(default).0f)",
    )


def repository_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repository", default="", metavar="ID", help="repository (default: the only one)")


def turn_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=float,
        default=7200,
        metavar="SECONDS",
        help="wait so long for a running run (%(default).0f)",
    )


def jitter_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--jitter", type=int, default=0, metavar="SECONDS", help="spread over so many seconds first"
    )


def no_options(_: argparse.ArgumentParser) -> None:
    pass
