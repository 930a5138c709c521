"""Entry of the command `saveos`."""

import sys
from typing import Annotated

import typer

from saveos import __version__
from saveos.cli import (
    agents,
    alerts,
    archives,
    audit,
    bulk,
    catalogue,
    controller,
    download,
    drills,
    enrol,
    fleet,
    hosts,
    importing,
    jobs,
    login,
    maintenance,
    output,
    policies,
    recovery,
    repositories,
    schedules,
    server,
    tls,
    tokens,
    users,
)
from saveos.cli.common import Commands, examples
from saveos.cli.errors import FAILED, CommandError

EXIT_CODES = """\b
Exit codes:
  0  done
  1  failed
  2  wrong usage, or what is named is not there
  3  drift or findings
  4  the controller does not answer
  5  refused"""

app = typer.Typer(
    cls=Commands,
    name="saveos",
    help="Back up, restore and maintain a fleet of hosts. Every command takes --json, anywhere on the line.",
    epilog=examples(
        "saveos up                                    set this machine up and back it up",
        "saveos hosts add web1 --address 10.0.0.5 --scan --provision",
        "saveos maintenance backup create web1 --wait",
        "saveos archives list --host web1",
        "saveos restores create --host web1 --path /etc/hosts --wait",
    )
    + "\n\n"
    + EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON; works anywhere on the line.")] = False,
) -> None:
    """Options before the command; `main` has taken --json off the line already, it is here for --help."""


for _module in (
    server,
    agents,
    login,
    hosts,
    importing,
    enrol,
    bulk,
    fleet,
    policies,
    jobs,
    archives,
    catalogue,
    controller,
    download,
    repositories,
    alerts,
    users,
    tokens,
    audit,
    tls,
    recovery,
    schedules,
    drills,
    maintenance,
):
    _module.add_to(app)


def split_json(words: list[str]) -> tuple[list[str], bool]:
    """Take `--json` off the words before `--`; return the others and whether it was there."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--json"]
    return kept + words[end:], len(kept) < end


def main(words: list[str] | None = None) -> None:
    """Run the command line and exit with the documented code."""
    kept, as_json = split_json(sys.argv[1:] if words is None else words)
    output.use_json(as_json)
    try:
        app(kept, prog_name="saveos")
    except CommandError as error:
        print(f"saveos: {error}", file=sys.stderr)
        sys.exit(error.code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(FAILED)
