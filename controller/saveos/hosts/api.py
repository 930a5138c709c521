"""Routes of hosts and groups. Adding and changing a host involve its policy and repository: policies/api.py."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from saveos.accounts.access import Actor, describe, require
from saveos.accounts.keys import ssh_key_made_at, ssh_public_key
from saveos.core.inputs import Text
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_text, split
from saveos.core.web import SessionDep
from saveos.hosts import groups as group_verbs
from saveos.hosts import service
from saveos.hosts.models import Group
from saveos.hosts.schemas import (
    GroupIn,
    GroupOut,
    GroupPatch,
    HostOut,
    HostState,
    Proof,
    Protection,
    ScanIn,
    ScannedKey,
    ScanOut,
    SshKeyOut,
)
from saveos.hosts.ssh_keys import fingerprint, scan

router = APIRouter(tags=["hosts"])

Reader = Annotated[Actor, Depends(require("hosts:read"))]
Writer = Annotated[Actor, Depends(require("hosts:write"))]
HostRef = Annotated[str, Path(max_length=253, description="Id or name")]
GroupRef = Annotated[str, Path(max_length=63, description="Id or name")]


@router.get("/hosts")
def list_hosts(
    *,
    session: SessionDep,
    actor: Reader,
    q: Annotated[Text, Query(description="Part of name, address or tag")] = "",
    state: HostState | None = None,
    protection: Protection | None = None,
    group: Text = "",
    tag: Text = "",
    drift: Annotated[bool | None, Query(description="Whether it has yet to follow its policy")] = None,
    proof: Annotated[Proof | None, Query(description="What drills say of its archives")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[HostOut]:
    """List hosts by name; those taken out only with state=decommissioned."""
    rows = service.list_hosts(
        session,
        actor.tenant_id,
        q=q,
        state=state or "",
        protection=protection or "",
        group=group,
        tag=tag,
        drift="" if drift is None else str(drift).lower(),
        proof=proof or "",
        cursor=cursor,
        limit=limit + 1,
    )
    hosts, following = split(rows, limit, lambda host: [host.name])
    return Page(items=service.describe_hosts(session, hosts), next=following)


@router.post("/hosts/scan")
def scan_host(body: ScanIn, _actor: Annotated[Actor, Depends(require("hosts:write", audit=False))]) -> ScanOut:
    """Ask a host for its SSH host keys. Compare the fingerprints with the host's own before you trust them."""
    keys = scan(body.address, body.port)
    words = ((key, *key.split(" ", 1)) for key in keys)
    return ScanOut(
        keys=[ScannedKey(type=kind, key=blob, fingerprint=fingerprint(key)) for key, kind, blob in words]
    )


@router.get("/hosts/{host}")
def get_host(session: SessionDep, actor: Reader, host: HostRef) -> HostOut:
    """Show a host."""
    return service.describe_hosts(session, [service.get_host(session, actor.tenant_id, host)])[0]


@router.delete("/hosts/{host}", status_code=204)
def take_out_host(session: SessionDep, actor: Writer, host: HostRef) -> None:
    """Take a host out of care. Its archives and repositories stay; its tokens end."""
    found = service.get_host(session, actor.tenant_id, host)
    service.take_out(session, found)
    describe(session, f"host:{found.name}")


@router.get("/ssh-key")
def get_ssh_key(session: SessionDep, actor: Reader) -> SshKeyOut:
    """Show the controller's public SSH key: the line that a host's authorized_keys needs."""
    public_key = ssh_public_key(session, actor.tenant_id)
    made_at = ssh_key_made_at(session, actor.tenant_id)
    return SshKeyOut(public_key=public_key, fingerprint=fingerprint(public_key), made_at=made_at)


@router.get("/groups")
def list_groups(
    session: SessionDep, actor: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[GroupOut]:
    """List groups by name."""
    rows = group_verbs.list_groups(session, actor.tenant_id, decode_text(cursor), limit + 1)
    items, following = split(rows, limit, lambda row: [row[0].name])
    return Page(items=[_group_out(group, count) for group, count in items], next=following)


@router.post("/groups", status_code=201)
def create_group(session: SessionDep, actor: Writer, body: GroupIn) -> GroupOut:
    """Make a group."""
    hosts = service.find_hosts(session, actor.tenant_id, body.hosts, "hosts")
    group = group_verbs.create_group(session, actor.tenant_id, body.name)
    group_verbs.set_members(session, group, hosts)
    describe(session, f"group:{group.name}", hosts=len(hosts))
    return _group_out(group, len(hosts))


@router.get("/groups/{group}")
def get_group(session: SessionDep, actor: Reader, group: GroupRef) -> GroupOut:
    """Show a group; its hosts are at /hosts?group=NAME."""
    found = group_verbs.get_group(session, actor.tenant_id, group)
    return _group_out(found, len(group_verbs.group_hosts(session, found)))


@router.patch("/groups/{group}")
def change_group(session: SessionDep, actor: Writer, group: GroupRef, body: GroupPatch) -> GroupOut:
    """Rename a group, give it another set of hosts, or let hosts join and leave."""
    found = group_verbs.get_group(session, actor.tenant_id, group)
    if body.name:
        group_verbs.rename_group(session, found, body.name)
    if body.hosts is not None:
        hosts = service.find_hosts(session, actor.tenant_id, body.hosts, "hosts")
        group_verbs.set_members(session, found, hosts)
    if body.add_hosts:
        joining = service.find_hosts(session, actor.tenant_id, body.add_hosts, "add_hosts")
        group_verbs.add_members(session, found, joining)
    if body.remove_hosts:
        leaving = service.find_hosts(session, actor.tenant_id, body.remove_hosts, "remove_hosts")
        group_verbs.remove_members(session, found, leaving)
    describe(session, f"group:{found.name}", changed=sorted(body.model_fields_set))
    return _group_out(found, len(group_verbs.group_hosts(session, found)))


@router.delete("/groups/{group}", status_code=204)
def delete_group(session: SessionDep, actor: Writer, group: GroupRef) -> None:
    """Delete a group; its hosts stay. 409 where a channel tells of its hosts."""
    found = group_verbs.get_group(session, actor.tenant_id, group)
    group_verbs.delete_group(session, found)
    describe(session, f"group:{found.name}")


def _group_out(group: Group, hosts: int) -> GroupOut:
    return GroupOut(id=group.id, name=group.name, hosts=hosts, created_at=group.created_at)
