"""`saveos hosts import`: take over the hosts of an Ansible inventory, with the host keys it tells."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client
from saveos.cli.common import examples
from saveos.cli.errors import FINDINGS, REFUSED, USAGE, CommandError
from saveos.cli.hosts import differs, hosts, there
from saveos.cli.jobs import accepted

KEYS = "saveos_ssh_host_keys"


def add_to(_: typer.Typer) -> None:
    """Mounted with the commands about hosts, by the decorator below."""


@hosts.command(
    "import",
    epilog=examples(
        "saveos hosts import inventory/hosts.yml --known-hosts ~/.ssh/known_hosts --check",
        "saveos hosts import inventory/ --group web --provision",
        "ansible-inventory -i aws_ec2.yml --list | saveos hosts import -",
    ),
)
def import_hosts(
    inventory: Annotated[
        str, typer.Argument(help="Ansible inventory, or the JSON of ansible-inventory --list; - reads that.")
    ],
    known_hosts: Annotated[
        str, typer.Option("--known-hosts", help=f"File with host keys, where a host has no {KEYS}.")
    ] = "",
    limit: Annotated[str, typer.Option("--limit", help="Only the hosts of this Ansible group.")] = "",
    groups: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="Put new hosts into this group; may be repeated.")
    ] = None,
    policy: Annotated[str, typer.Option(help="Policy of new hosts (else the default one).")] = "",
    check: Annotated[
        bool, typer.Option("--check", "--dry-run", help="Change nothing, say what would be added.")
    ] = False,
    provision: Annotated[bool, typer.Option("--provision", help="Provision the new ones in one job.")] = False,
) -> None:
    """Add the hosts of an Ansible inventory. Those that are there already stay as they are.

    Taken over are ansible_host, ansible_port, ansible_user and host keys; of groups `storage_servers` and
    `agents` (without either, all are agents). A host without a known SSH host key is refused.
    """
    told = read_inventory(inventory)
    client = Client()
    results = []
    for name in chosen(told, limit):
        body = asked_for(told, name, known_hosts)
        body |= {"groups": groups or []} | ({"policy": policy} if policy else {})
        results.append(_take(client, body, check))
    _show(results, check)
    added = [row["name"] for row in results if row["outcome"] == "added"]
    if provision and added and not check:
        asked = {"targets": {"hosts": added}, "mode": "run", "parameters": {}}
        accepted(client, client.post("/maintenance/provision", asked, once=True), wait=True)
    if any(row["outcome"] == "refused" for row in results):
        raise typer.Exit(REFUSED)
    if check and any(row["outcome"] == "would be added" for row in results):
        raise typer.Exit(FINDINGS)


def read_inventory(source: str) -> dict[str, Any]:
    """Return an inventory as `ansible-inventory --list` tells it. Raises CommandError."""
    path = Path(source).expanduser()
    if source == "-":
        text = sys.stdin.read()
    elif path.suffix == ".json" and path.is_file():
        text = path.read_text()
    else:
        if not path.exists():
            raise CommandError(
                f"There is no inventory {source}: name a file or directory as for ansible-playbook -i.", USAGE
            )
        text = _list(path)
    try:
        told = json.loads(text)
        told["_meta"]["hostvars"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CommandError(
            f"{source} is no inventory that `ansible-inventory --list` told: it has no _meta.hostvars.", USAGE
        ) from None
    return dict(told)


def chosen(told: dict[str, Any], limit: str) -> list[str]:
    """Return the names of an inventory's hosts, or of a group's. Raises CommandError on no such group."""
    if limit and limit != "all":
        if limit not in told:
            raise CommandError(
                f"The inventory has no group {limit}: `ansible-inventory --graph` shows those it has.", USAGE
            )
        return sorted(members(told, limit))
    return sorted(set(told["_meta"]["hostvars"]) | members(told, "all"))


def members(told: dict[str, Any], group: str) -> set[str]:
    """Return a group's hosts, those of its children too."""
    found: set[str] = set()
    waiting, seen = [group], set[str]()
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        found |= set(told.get(each, {}).get("hosts") or [])
        waiting += told.get(each, {}).get("children") or []
    return found


def asked_for(told: dict[str, Any], name: str, known_hosts: str) -> dict[str, Any]:
    """Return the body of POST /hosts for a host of an inventory."""
    variables = told["_meta"]["hostvars"].get(name) or {}
    address = str(variables.get("ansible_host") or name)
    port = variables.get("ansible_port") or 22
    if not str(port).isdigit():
        raise CommandError(f"{name}: ansible_port is {port!r}, which is no number.", USAGE)
    port = int(port)
    keys = variables.get(KEYS) or []
    lines = keys.splitlines() if isinstance(keys, str) else [str(key) for key in keys]
    roles = {group: name in members(told, group) for group in ("agents", "storage_servers")}
    return {
        "name": name.lower(),
        "address": address,
        "port": port,
        "user": str(variables.get("ansible_user") or "root"),
        "ssh_host_keys": lines or (_known(known_hosts, {name, address}, port) if known_hosts else []),
        "is_agent": roles["agents"] or not roles["storage_servers"],
        "is_storage_server": roles["storage_servers"],
    }


def _take(client: Client, body: dict[str, Any], check: bool) -> dict[str, str]:
    known = there(client, body["name"])
    if not body["ssh_host_keys"]:
        return _row(body, "refused", f"no SSH host key: set {KEYS}, or name a file with --known-hosts")
    if known is not None:
        difference = differs(known, body)
        return _row(
            body, "refused" if difference else "unchanged", difference and f"there already, {difference}"
        )
    if check:
        return _row(body, "would be added", "")
    try:
        client.post("/hosts", body)
    except CommandError as error:
        if error.code not in (USAGE, REFUSED):
            raise
        return _row(body, "refused", str(error))
    return _row(body, "added", "")


def _row(body: dict[str, Any], outcome: str, reason: str) -> dict[str, str]:
    return {"name": body["name"], "address": body["address"], "outcome": outcome, "reason": reason}


def _show(results: list[dict[str, str]], check: bool) -> None:
    columns = {key: key for key in ("name", "address", "outcome", "reason")}
    output.page({"items": results}, columns, "The inventory has no hosts.")
    if check and not output.is_json() and results:
        print("Nothing was changed.")


def _list(path: Path) -> str:
    beside = Path(sys.executable).with_name("ansible-inventory")
    program = str(beside) if beside.exists() else "ansible-inventory"
    try:
        ran = subprocess.run(
            [program, "-i", str(path.resolve()), "--list"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"ansible-inventory cannot be run: {error}.") from error
    if ran.returncode:
        raise CommandError(
            f"ansible-inventory cannot read {path}: {output.clean(ran.stderr.strip()[-500:])}", USAGE
        )
    return ran.stdout


def _known(source: str, names: set[str], port: int) -> list[str]:
    """Return a host's keys of a known_hosts file; ssh-keygen reads hashed names, too."""
    path = Path(source).expanduser()
    if not path.is_file():
        raise CommandError(f"--known-hosts {source} is no file: name one such as ~/.ssh/known_hosts.", USAGE)
    found: list[str] = []
    for name in sorted(names):
        looked_for = name if port == 22 else f"[{name}]:{port}"
        ran = subprocess.run(
            ["ssh-keygen", "-F", looked_for, "-f", str(path)], capture_output=True, text=True, check=False
        )
        lines = (line.split() for line in ran.stdout.splitlines() if not line.startswith(("#", "@")))
        found += [" ".join(words[1:3]) for words in lines if len(words) >= 3]
    return sorted(set(found))
