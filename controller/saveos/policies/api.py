"""Routes of policies, and of what joins host, policy and repository: adding, changing, inventory."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from saveos.accounts.access import Actor, describe, require
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_text, split
from saveos.core.web import SessionDep
from saveos.hosts.schemas import HostIn, HostOut, HostPatch
from saveos.hosts.service import describe_hosts, get_host
from saveos.policies import fleet, service
from saveos.policies.schemas import PolicyIn, PolicyOut, PolicyPatch

router = APIRouter()

Reader = Annotated[Actor, Depends(require("policies:read"))]
Writer = Annotated[Actor, Depends(require("policies:write"))]
HostWriter = Annotated[Actor, Depends(require("hosts:write"))]
PolicyRef = Annotated[str, Path(max_length=100, description="Id or name")]
HostRef = Annotated[str, Path(max_length=253, description="Id or name")]


@router.get("/policies", tags=["policies"])
def list_policies(
    session: SessionDep, actor: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[PolicyOut]:
    """List policies by name."""
    rows = service.list_policies(session, actor.tenant_id, decode_text(cursor), limit + 1)
    policies, following = split(rows, limit, lambda policy: [policy.name])
    return Page(items=service.describe_policies(session, policies), next=following)


@router.post("/policies", status_code=201, tags=["policies"])
def create_policy(session: SessionDep, actor: Writer, body: PolicyIn) -> PolicyOut:
    """Make a policy."""
    policy = service.create_policy(session, actor.tenant_id, body)
    describe(session, f"policy:{policy.name}")
    return service.describe_policies(session, [policy])[0]


@router.get("/policies/{policy}", tags=["policies"])
def get_policy(session: SessionDep, actor: Reader, policy: PolicyRef) -> PolicyOut:
    """Show a policy."""
    return service.describe_policies(session, [service.get_policy(session, actor.tenant_id, policy)])[0]


@router.patch("/policies/{policy}", tags=["policies"])
def change_policy(session: SessionDep, actor: Writer, policy: PolicyRef, body: PolicyPatch) -> PolicyOut:
    """Change a policy; its hosts follow at their next provisioning."""
    found = service.get_policy(session, actor.tenant_id, policy)
    service.change_policy(session, found, body)
    describe(session, f"policy:{found.name}", changed=sorted(body.model_fields_set))
    return service.describe_policies(session, [found])[0]


@router.delete("/policies/{policy}", status_code=204, tags=["policies"])
def delete_policy(session: SessionDep, actor: Writer, policy: PolicyRef) -> None:
    """Delete a policy that no host uses; archives stay."""
    found = service.get_policy(session, actor.tenant_id, policy)
    service.delete_policy(session, found)
    describe(session, f"policy:{found.name}")


@router.post("/hosts", status_code=201, tags=["hosts"])
def add_host(session: SessionDep, actor: HostWriter, body: HostIn) -> HostOut:
    """Add a host, with its policy and repository. Provision it next: POST /maintenance/provision."""
    host = fleet.add_host(session, actor.tenant_id, body)
    describe(session, f"host:{host.name}", address=host.address)
    return _host_out(session, actor, host.name)


@router.patch("/hosts/{host}", tags=["hosts"])
def change_host(session: SessionDep, actor: HostWriter, host: HostRef, body: HostPatch) -> HostOut:
    """Change a host; what its roles set up follows at its next provisioning."""
    found = get_host(session, actor.tenant_id, host)
    fleet.change_host(session, found, body)
    describe(session, f"host:{found.name}", changed=sorted(body.model_fields_set))
    return _host_out(session, actor, found.name)


@router.get("/inventory", tags=["hosts"])
def get_inventory(
    session: SessionDep, actor: Annotated[Actor, Depends(require("hosts:read"))]
) -> dict[str, Any]:
    """Return the fleet as Ansible inventory. Hooks are not in it: they may hold secrets."""
    return fleet.inventory(session, actor.tenant_id)


def _host_out(session: SessionDep, actor: Actor, name: str) -> HostOut:
    return describe_hosts(session, [get_host(session, actor.tenant_id, name)])[0]
