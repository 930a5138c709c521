# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""The command line: the table of verbs. Only the module of the verb that is asked for is loaded."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saveos_agent.errors import EXIT_FAILED, EXIT_REFUSED, AgentError
from saveos_agent.settings import ROOT_CONFIG, USER_CONFIG, VERSION, default_config, load_settings


@dataclass(frozen=True)
class Verb:
    """A verb; what it does is in the module of its name in `verbs/`."""

    help: str
    provisioned: bool = True  # whether it needs agent.json, which provisioning writes


VERBS = {
    "register": Verb("ask a controller to take care of this host", provisioned=False),
    "backup": Verb("make a backup now (the unit's command)"),
    "restore": Verb("bring paths of an archive back into a directory"),
    "send": Verb("send paths of an archive through the controller to who waits for them"),
    "stop": Verb("end a run by its id"),
    "browse": Verb("list one directory of an archive"),
    "drill": Verb("prove that the newest archive can be restored"),
    "receive": Verb("be the sandbox of another host's drill"),
    "care": Verb("protect, rename, delete or export an archive"),
    "mend": Verb("take a repository that was put back on its server"),
    "compare": Verb("say how the host differs from an archive"),
    "database": Verb("bring a database back, as a copy or in place"),
    "diff": Verb("show the text of a file, or how it differs"),
    "check": Verb("check the repositories with this host's keys"),
    "rotate": Verb("give this host new secrets: passphrases, SSH key, token"),
    "measure": Verb("show how much a backup of some paths would hold"),
    "snapshots": Verb("list the archives"),
    "status": Verb("show what runs and how the last runs ended"),
    "health": Verb("show facts and findings about this host"),
    "catalogue": Verb("send the controller the list of files it lacks"),
    "deliver": Verb("post waiting run records to the controller"),
    "heartbeat": Verb("post waiting run records, then tell the controller how this host is"),
}

EXAMPLES = """examples:
  saveos-agent register --token-file token         join a controller with an enrolment token
  saveos-agent backup --wait                       back up now and wait for the result
  saveos-agent backup --stop                       end the running backup
  saveos-agent snapshots                           list the archives
  saveos-agent browse --archive latest --path /etc list a directory of the newest archive
  saveos-agent restore --wait --archive latest --path /etc/hosts --destination /root/restored
  saveos-agent drill                               prove that the newest archive can be restored
  saveos-agent care protect --archive NAME         keep an archive from being pruned
  saveos-agent health --json                       facts and findings for a program

exit codes: 0 ok, 1 failed, 2 wrong usage, 5 refused"""


def verb_module(name: str) -> Any:
    return importlib.import_module(f"saveos_agent.verbs.{name}")


def build_parser(words: list[str]) -> argparse.ArgumentParser:
    """The parser; of the verbs only those that are among the words get their options."""
    parser = argparse.ArgumentParser(
        prog="saveos-agent",
        description="Back up and restore this host, and see how it is.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"saveos-agent {VERSION}")
    parser.add_argument(
        "--config",
        default=os.environ.get("SAVEOS_AGENT_CONFIG") or default_config(),
        metavar="DIR",
        help=f"directory of agent.json ({ROOT_CONFIG}, for a plain user {USER_CONFIG})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON; may stand anywhere")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        own = verbs.add_parser(name, help=verb.help, description=verb.help.capitalize() + ".")
        if name in words:
            verb_module(name).add_options(own)
    return parser


def main(argv: list[str]) -> int:
    if argv[:1] == ["changes"] and "SAVEOS_BORG" in os.environ:  # its arguments are borg's
        from saveos_agent.changes import run_create

        return run_create(argv[1], argv[2], argv[3:])
    as_json = "--json" in argv
    words = [argument for argument in argv if argument != "--json"]
    options = build_parser(words).parse_args(words)
    os.umask(0o077)
    try:
        verb = VERBS[options.verb]
        settings = load_settings(Path(options.config).absolute()) if verb.provisioned else None
        answer = verb_module(options.verb).run(settings, options)
    except AgentError as error:
        if as_json:
            print(json.dumps({"error": error.as_dict()}))
        print(f"saveos-agent: {error.message} {error.fix}".rstrip(), file=sys.stderr)
        return error.exit_code
    except PermissionError as error:
        print(f"saveos-agent: {error.filename}: permission denied. Run it as root.", file=sys.stderr)
        return EXIT_REFUSED
    except OSError as error:
        print(f"saveos-agent: {error}. Check the disk and the permissions of its directories.", file=sys.stderr)
        return EXIT_FAILED
    print(json.dumps(answer.data) if as_json else "\n".join(answer.lines))
    return int(answer.code)
