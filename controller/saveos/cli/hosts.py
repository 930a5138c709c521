"""Commands about hosts."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples, group
from saveos.cli.errors import FAILED, REFUSED, USAGE, CommandError
from saveos.cli.jobs import accepted

hosts = group("The machines that are backed up or store backups.")
KEY_BEGINS = ("ssh-", "ecdsa-")
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Its SSH port.")]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(hosts, name="hosts")


@hosts.command(
    "list", epilog=examples("saveos hosts list --protection late", "saveos --json hosts list | jq .items")
)
def list_hosts(
    query: Annotated[str, typer.Option("--query", "-q", help="Part of the name or address.")] = "",
    state: Annotated[str, typer.Option(help="pending, enrolled, paused or decommissioned.")] = "",
    protection: Annotated[str, typer.Option(help="protected, late, failing, silent, never or none.")] = "",
    group_name: Annotated[str, typer.Option("--group", "-g", help="Only a group's hosts.")] = "",
    tag: Annotated[str, typer.Option(help="Only hosts with this tag.")] = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List hosts and how well each is protected."""
    filters = {"q": query, "state": state, "protection": protection, "group": group_name, "tag": tag}
    body = Client().page("/hosts", None if everything else limit, **filters)
    columns = {
        "name": "name",
        "address": "address",
        "state": "state",
        "protection": "protection",
        "last backup": lambda h: output.when(h.get("last_backup_at")),
        "size": lambda h: output.size(h.get("last_size")),
        "policy": "policy_name",
    }
    output.page(body, columns, "No host yet: saveos hosts add NAME --address ADDRESS --scan --provision")


@hosts.command("show", epilog=examples("saveos hosts show web1"))
def show_host(host: Annotated[str, typer.Argument(help="Name or id.")]) -> None:
    """Show one host."""
    fields = {
        "name": "name",
        "id": "id",
        "address": lambda h: f"{h['user']}@{h['address']}:{h['port']}",
        "roles": lambda h: [
            n for n, k in (("agent", "is_agent"), ("storage server", "is_storage_server")) if h[k]
        ],
        "state": "state",
        "protection": "protection",
        "policy": "policy_name",
        "groups": "groups",
        "tags": "tags",
        "system": "os",
        "last run": lambda h: f"{h.get('last_run_state') or '-'} {output.when(h.get('last_run_at'))}",
        "last backup": lambda h: output.when(h.get("last_backup_at")),
        "next run": lambda h: output.when(h.get("next_run_at")),
        "late after": lambda h: output.when(h.get("due_at")),
        "host keys": lambda h: [_fingerprint(key) for key in h.get("ssh_host_keys") or []],
    }
    output.fields(Client().get(f"/hosts/{segment(host)}"), fields)


@hosts.command(
    "add",
    epilog=examples(
        "saveos hosts add web1 --address 10.0.0.5 --scan --provision   look at its key, confirm, provision",
        "saveos hosts add web1 --address 10.0.0.5 --host-key 'ssh-ed25519 AAAA…' --provision",
        "saveos hosts add web1 --address 10.0.0.5 --host-key ~/.ssh/known_hosts",
        "ssh-keyscan 10.0.0.5 | saveos hosts add web1 --address 10.0.0.5 --host-key -",
        "saveos hosts add vault --address 10.0.0.9 --scan --yes --storage-server --no-agent",
    ),
)
def add_host(
    name: Annotated[str, typer.Argument(help="Its name here.")],
    address: Annotated[str, typer.Option(help="IP address or host name.")],
    port: Port = 22,
    user: Annotated[str, typer.Option(help="User to log in as: root, or one with sudo.")] = "root",
    host_key: Annotated[
        str,
        typer.Option(
            "--host-key", help="Its SSH host key, or a file of keys or known_hosts lines; - reads them."
        ),
    ] = "",
    scan: Annotated[
        bool, typer.Option("--scan", help="Ask the host for its keys, and ask you to confirm.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --scan: trust the keys without asking.")] = False,
    storage_server: Annotated[bool, typer.Option("--storage-server", help="It stores backups.")] = False,
    agent: Annotated[bool, typer.Option("--agent/--no-agent", help="It is backed up.")] = True,
    policy: Annotated[str, typer.Option(help="Policy, by name (else the default one).")] = "",
    groups: Annotated[list[str] | None, typer.Option("--group", "-g", help="Group; may be repeated.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Tag; may be repeated.")] = None,
    server: Annotated[str, typer.Option(help="Storage server of its repository (else the only one).")] = "",
    quota: Annotated[str, typer.Option(help="Quota of its repository, like 100G.")] = "",
    provision: Annotated[
        bool, typer.Option("--provision", help="Provision it now, and show progress.")
    ] = False,
) -> None:
    """Add a host. Its SSH host key must be known before anything connects to it.

    A host that is there already stays as it is; one of another address or host key is refused.
    """
    if bool(host_key) == scan:
        raise CommandError("Say how its SSH host key is known: --host-key KEY|FILE (or -), or --scan.", USAGE)
    client = Client()
    known = there(client, name)
    keys = _scanned(client, address, port, yes or known is not None) if scan else _read_keys(host_key)
    body: dict[str, Any] = {
        "name": name,
        "address": address,
        "port": port,
        "user": user,
        "ssh_host_keys": keys,
        "is_agent": agent,
        "is_storage_server": storage_server,
        "groups": groups or [],
        "tags": tags or [],
    }
    if policy:
        body["policy"] = policy
    if server or quota:
        body["repository"] = {"kind": "ssh"} | ({"server": server} if server else {})
        body["repository"] |= {"quota": quota} if quota else {}
    if known is not None:
        if difference := differs(known, body):
            raise CommandError(f"There is a host {name} already, {difference}: nothing was changed.", REFUSED)
        if not provision or known["state"] == "enrolled":
            output.emit(known | {"unchanged": True}) if output.is_json() else print(
                f"{name} is there already, unchanged."
            )
            return
        output.say(f"{name} is there already, unchanged.")
        _provision(client, name)
        return
    host = client.post("/hosts", body)
    if not provision:
        if output.is_json():
            output.emit(host)
        else:
            print(
                f"Added {host['name']}. Provision it with: saveos maintenance provision {host['name']} --wait"
            )
        return
    output.say(f"Added {host['name']}.")
    _provision(client, host["name"])


@hosts.command(
    "set",
    epilog=examples(
        "saveos hosts set web1 --policy web --provision",
        "saveos hosts set vm --reached-at 10.0.0.2     let other hosts store backups on this machine",
    ),
)
def set_host(
    host: Annotated[str, typer.Argument(help="Name or id.")],
    address: Annotated[str, typer.Option(help="IP address or host name.")] = "",
    port: Annotated[int, typer.Option(help="Its SSH port.", min=0, max=65535)] = 0,
    policy: Annotated[str, typer.Option(help="Policy, by name.")] = "",
    reached_at: Annotated[
        str, typer.Option("--reached-at", help="Storage server: the address that hosts reach it by.")
    ] = "",
    provision: Annotated[
        bool, typer.Option("--provision", help="Provision it now, and show progress.")
    ] = False,
) -> None:
    """Change a host. It takes effect when the host is next provisioned."""
    client = Client()
    asked = {"address": address, "port": port, "policy": policy}
    body: dict[str, Any] = {name: value for name, value in asked.items() if value}
    if reached_at:
        known = client.get(f"/hosts/{segment(host)}")
        body["variables"] = known["variables"] | {"server_address": reached_at}
    if not body:
        raise CommandError("Say what to change: --address, --port, --policy or --reached-at.", USAGE)
    changed = client.patch(f"/hosts/{segment(host)}", body)
    if provision:
        _provision(client, changed["name"])
    elif output.is_json():
        output.emit(changed)
    else:
        print(f"Changed {host}. Provision it with: saveos maintenance provision {host} --wait")


def _provision(client: Client, name: str) -> None:
    asked = {"targets": {"hosts": [name]}, "mode": "run", "parameters": {}}
    accepted(client, client.post("/maintenance/provision", asked, once=True), wait=True)


@hosts.command("scan", epilog=examples("saveos hosts scan 10.0.0.5"))
def scan_host(
    address: Annotated[str, typer.Argument(help="IP address or host name.")], port: Port = 22
) -> None:
    """Show the SSH host keys of an address. Compare them with the host's own before you trust them."""
    keys = Client().post("/hosts/scan", {"address": address, "port": port})["keys"]
    output.page({"items": keys}, {"type": "type", "fingerprint": "fingerprint"}, "It showed no key.")


@hosts.command("remove", epilog=examples("saveos hosts remove web1"))
def remove_host(
    host: Annotated[str, typer.Argument(help="Name or id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take a host out of care. Its archives stay."""
    if not yes and not _confirm(f"Stop taking care of {host}? Its archives stay."):
        raise CommandError("Nothing was changed.", FAILED)
    removed = Client().delete(f"/hosts/{segment(host)}")
    if output.is_json():
        output.emit(removed or {"removed": host})
    else:
        print(f"{host} is no longer taken care of; its archives are kept.")


def there(client: Client, name: str) -> dict[str, Any] | None:
    """Return the host of this name, but for one that was taken out; None where there is none."""
    found = [
        host
        for host in client.get("/hosts", q=name.lower(), limit=500)["items"]
        if host["name"] == name.lower()
    ]
    return found[0] if found else None


def differs(known: dict[str, Any], asked: dict[str, Any]) -> str:
    """Return how a host differs from what is asked, as words after "already"; "" when it does not."""
    for field in ("address", "port", "user"):
        if known[field] != asked[field]:
            return f"with the {field} {known[field]}"
    for field, words in (("is_agent", "an agent"), ("is_storage_server", "a storage server")):
        if known[field] != asked[field]:
            return f"as {words}" if known[field] else f"but not as {words}"
    names = {known["name"], known["address"]}
    told = {key for line in asked["ssh_host_keys"] if (key := _bare_key(line, names))}
    if not told & set(known["ssh_host_keys"]):
        return "with other SSH host keys. If it was reinstalled, take it out and add it again"
    return ""


def _bare_key(line: str, names: set[str]) -> str:
    """Return "type base64" of a pasted line, or of a known_hosts line that is for one of `names`."""
    words = line.split()
    if len(words) >= 3 and words[1].startswith(KEY_BEGINS):
        found = {name.partition("]")[0].lstrip("[") for name in words[0].split(",")}
        words = words[1:] if found & names else []
    return " ".join(words[:2])


def _scanned(client: Client, address: str, port: int, yes: bool) -> list[str]:
    keys = client.post("/hosts/scan", {"address": address, "port": port})["keys"]
    for key in keys:
        output.say(f"  {key['type']}  {key['fingerprint']}")
    if not yes and not _confirm(f"Are these the host keys of {address}?"):
        raise CommandError("The host was not added.", REFUSED)
    return [f"{key['type']} {key['key']}" for key in keys]


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        raise CommandError("Nobody is there to confirm: add --yes.", USAGE)
    return typer.confirm(question, err=True)


def _read_keys(source: str) -> list[str]:
    if source.startswith(KEY_BEGINS):
        return [source.strip()]
    try:
        text = sys.stdin.read() if source == "-" else Path(source).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--host-key {source} cannot be read: {error}.", USAGE) from error
    keys = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not keys:
        raise CommandError(
            f"--host-key {source} holds no key: give a line such as ssh-ed25519 AAAA…, or a file of them.",
            USAGE,
        )
    return keys


def _fingerprint(key: str) -> str:
    import base64
    import hashlib

    kind, _, blob = key.partition(" ")
    digest = hashlib.sha256(base64.b64decode(blob.split()[0])).digest()
    return f"{kind} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
