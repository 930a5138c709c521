"""Routes of policies, and of what joins host, policy and repository: adding, changing, inventory."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from saveos.accounts.access import Actor, describe, require
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_text, split
from saveos.core.web import SessionDep
from saveos.hosts.groups import get_group
from saveos.hosts.schemas import HostIn, HostOut, HostPatch
from saveos.hosts.service import describe_hosts, get_host
from saveos.policies import fleet, planning, precedence, service, versions
from saveos.policies.schemas import (
    ApplyIn,
    ApplyOut,
    DiffOut,
    EffectiveOut,
    GroupPolicyIn,
    GroupPolicyOut,
    PolicyIn,
    PolicyOut,
    PolicyPatch,
    PreviewIn,
    PreviewOut,
    RollbackIn,
    RunsOut,
    VersionOut,
)

router = APIRouter()

Reader = Annotated[Actor, Depends(require("policies:read"))]
Writer = Annotated[Actor, Depends(require("policies:write"))]
HostWriter = Annotated[Actor, Depends(require("hosts:write"))]
PolicyRef = Annotated[str, Path(max_length=100, description="Id or name")]
GroupRef = Annotated[str, Path(max_length=63, description="Id or name")]
Number = Annotated[int, Path(ge=1, le=1_000_000_000)]
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
    policy = service.create_policy(session, actor.tenant_id, body, by=actor.name)
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
    service.change_policy(session, found, body, by=actor.name)
    describe(session, f"policy:{found.name}", changed=sorted(body.model_fields_set), version=found.version)
    return service.describe_policies(session, [found])[0]


@router.delete("/policies/{policy}", status_code=204, tags=["policies"])
def delete_policy(session: SessionDep, actor: Writer, policy: PolicyRef) -> None:
    """Delete a policy that no host uses; archives stay."""
    found = service.get_policy(session, actor.tenant_id, policy)
    service.delete_policy(session, found)
    describe(session, f"policy:{found.name}")


@router.post("/policies/apply", tags=["policies"])
def apply_policy(session: SessionDep, actor: Writer, body: ApplyIn) -> ApplyOut:
    """Make or change a policy so that it is what the document says; the same again changes nothing."""
    if body.dry_run:
        with session.begin_nested() as savepoint:
            outcome = service.apply_document(session, actor.tenant_id, body.policy, by=actor.name)
            savepoint.rollback()
        describe(session, f"policy:{outcome.name}", dry_run=True)
        return outcome
    outcome = service.apply_document(session, actor.tenant_id, body.policy, by=actor.name)
    describe(session, f"policy:{outcome.name}", outcome=outcome.outcome, version=outcome.version)
    return outcome


@router.post("/policies/preview", tags=["policies"])
def preview_schedule(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("policies:write", audit=False))],
    body: PreviewIn,
) -> PreviewOut:
    """Show when a schedule would run next and how the fleet's starts would spread, without keeping it."""
    policy = service.get_policy(session, actor.tenant_id, body.policy) if body.policy else None
    return planning.preview(session, actor.tenant_id, body, policy)


@router.get("/policies/{policy}/runs", tags=["policies"])
def list_next_runs(
    session: SessionDep, actor: Reader, policy: PolicyRef, count: Annotated[int, Query(ge=1, le=100)] = 10
) -> RunsOut:
    """Show when a policy runs next."""
    return planning.runs(session, service.get_policy(session, actor.tenant_id, policy), count)


@router.get("/policies/{policy}/versions", tags=["policies"])
def list_policy_versions(
    session: SessionDep, actor: Reader, policy: PolicyRef, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[VersionOut]:
    """List a policy's versions, newest first."""
    found = service.get_policy(session, actor.tenant_id, policy)
    before = decode_text(cursor)
    number = int(before) if before and before.isdigit() else None
    rows = versions.list_versions(session, found, number, limit + 1)
    items, following = split(rows, limit, lambda version: [str(version.number)])
    return Page(items=[versions.describe_version(each) for each in items], next=following)


@router.get("/policies/{policy}/versions/{version}", tags=["policies"])
def get_policy_version(session: SessionDep, actor: Reader, policy: PolicyRef, version: Number) -> VersionOut:
    """Show a version of a policy."""
    found = service.get_policy(session, actor.tenant_id, policy)
    return versions.describe_version(versions.get_version(session, found, version))


@router.get("/policies/{policy}/versions/{before}/diff/{after}", tags=["policies"])
def diff_policy_versions(
    session: SessionDep, actor: Reader, policy: PolicyRef, before: Number, after: Number
) -> DiffOut:
    """Show what differs between two versions, by field and as YAML."""
    return versions.diff(session, service.get_policy(session, actor.tenant_id, policy), before, after)


@router.post("/policies/{policy}/rollback", tags=["policies"])
def roll_back_policy(session: SessionDep, actor: Writer, policy: PolicyRef, body: RollbackIn) -> PolicyOut:
    """Make a policy what it was in a version; that is a new version, which hosts follow when provisioned."""
    found = service.get_policy(session, actor.tenant_id, policy)
    service.rollback(session, found, body.version, by=actor.name, note=body.note)
    describe(session, f"policy:{found.name}", back_to=body.version, version=found.version)
    return service.describe_policies(session, [found])[0]


@router.get("/groups/{group}/policy", tags=["policies"])
def get_group_policy(session: SessionDep, actor: Reader, group: GroupRef) -> GroupPolicyOut:
    """Show the policy that a group gives its hosts."""
    return precedence.group_policy(session, get_group(session, actor.tenant_id, group))


@router.put("/groups/{group}/policy", tags=["policies"])
def set_group_policy(
    session: SessionDep, actor: Writer, group: GroupRef, body: GroupPolicyIn
) -> GroupPolicyOut:
    """Give a group's hosts a policy; those that chose one themselves keep it."""
    found = get_group(session, actor.tenant_id, group)
    policy = service.get_policy(session, actor.tenant_id, body.policy) if body.policy else None
    outcome = precedence.set_group_policy(session, found, policy, body.priority)
    describe(session, f"group:{found.name}", policy=outcome.policy, priority=outcome.priority)
    return outcome


@router.get("/hosts/{host}/policy", tags=["policies"])
def get_host_policy(session: SessionDep, actor: Reader, host: HostRef) -> EffectiveOut:
    """Show what a host gets: its policy and where that comes from, variables, and borgmatic's configuration."""
    return fleet.effective(session, get_host(session, actor.tenant_id, host))


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


def _host_out(session: SessionDep, actor: Actor, name: str) -> HostOut:
    return describe_hosts(session, [get_host(session, actor.tenant_id, name)])[0]
