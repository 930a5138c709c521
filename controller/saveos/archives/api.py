"""Routes of archives."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from saveos.accounts.access import Actor, describe, require
from saveos.archives import catalogue, retention, service, switch
from saveos.archives.schemas import (
    ArchiveOut,
    ArchivePatch,
    DifferenceOut,
    FileOut,
    FoundOut,
    LivingIn,
    ReceivedOut,
    SimulationIn,
    SimulationOut,
    VersionOut,
    WantedOut,
)
from saveos.core.errors import Forbidden
from saveos.core.inputs import AbsolutePath, Moment, Text
from saveos.core.pagination import (
    DEFAULT_LIMIT,
    Cursor,
    Limit,
    Page,
    decode_cursor,
    decode_text,
    split,
    time_and_id,
)
from saveos.core.web import SessionDep, StateDep
from saveos.hosts.groups import get_group, group_hosts
from saveos.hosts.service import get_host
from saveos.policies.service import get_policy
from saveos.repositories.service import get_repository

router = APIRouter(tags=["archives"])

Reader = Annotated[Actor, Depends(require("archives:read"))]
Keeper = Annotated[Actor, Depends(require("repositories:write"))]
Carer = Annotated[Actor, Depends(require("archives:write"))]
Agent = Annotated[Actor, Depends(require("checkins:write"))]
PathText = Annotated[AbsolutePath, Query(description="A path, as text")]
Ref = Annotated[str, Query(max_length=8192, description="A path, as `ref` of another answer")]
BorgId = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
Base = Annotated[str, Query(pattern=r"^([0-9a-f]{64})?$")]
Bytes = Annotated[int | None, Query(ge=0, lt=2**63)]


@router.get("/archives")
def list_archives(
    *,
    session: SessionDep,
    actor: Reader,
    host: Text = "",
    repository: uuid.UUID | None = None,
    before: Moment | None = None,
    after: Moment | None = None,
    tag: Text = "",
    gone: Annotated[bool, Query(description="Those too that their repositories have no more")] = False,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[ArchiveOut]:
    """List archives, newest first."""
    rows = service.list_archives(
        session,
        actor.tenant_id,
        host=host,
        repository=repository,
        before=before,
        after=after,
        tag=tag,
        gone=gone,
        cursor=cursor,
        limit=limit + 1,
    )
    items, following = split(rows, limit, lambda row: time_and_id(row.started_at, row.id))
    return Page(items=items, next=following)


@router.post("/policies/{policy}/simulate", tags=["policies"])
def simulate_retention(
    session: SessionDep,
    actor: Annotated[Actor, Depends(require("policies:write", audit=False))],
    policy: Annotated[str, Path(max_length=100, description="Id or name")],
    body: SimulationIn,
    limit: Annotated[int, Query(ge=1, le=100, description="Hosts on a page")] = 20,
    cursor: Cursor = None,
) -> SimulationOut:
    """Show what a retention would keep and prune of the archives there are, host by host; changes nothing."""
    found = get_policy(session, actor.tenant_id, policy)
    out, hosts = retention.simulate(session, found, body, decode_text(cursor), limit)
    out.next = split(hosts, limit, lambda host: [host.name])[1]
    return out


@router.get("/archives/{archive_id}")
def get_archive(session: SessionDep, actor: Reader, archive_id: uuid.UUID) -> ArchiveOut:
    """Show an archive."""
    return service.describe_archive(session, service.get_archive(session, actor.tenant_id, archive_id))


@router.patch("/archives/{archive_id}")
def change_archive(session: SessionDep, actor: Carer, archive_id: uuid.UUID, body: ArchivePatch) -> ArchiveOut:
    """Change an archive's note and tags; the archive itself stays as it is."""
    archive = service.get_archive(session, actor.tenant_id, archive_id)
    service.change_archive(session, archive, body)
    describe(session, f"archive {archive.name}")
    return service.describe_archive(session, archive)


@router.get("/backup/{host}/snapshots")
def list_snapshots(
    session: SessionDep,
    actor: Reader,
    host: Annotated[str, Path(max_length=253, description="Id or name")],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[ArchiveOut]:
    """List a host's archives, newest first: a short form for scripts."""
    rows = service.list_archives(session, actor.tenant_id, host=host, cursor=cursor, limit=limit + 1)
    items, following = split(rows, limit, lambda row: time_and_id(row.started_at, row.id))
    return Page(items=items, next=following)


def _path(path: str, ref: str) -> bytes:
    return catalogue.from_ref(ref or catalogue.to_ref(path.encode()))


def _after(cursor: str | None) -> bytes:
    return catalogue.from_ref(str(decode_cursor(cursor, 1)[0])) if cursor else b""


@router.get("/archives/{archive_id}/files")
def list_files(
    *,
    session: SessionDep,
    state: StateDep,
    actor: Reader,
    archive_id: uuid.UUID,
    path: PathText = "/",
    ref: Ref = "",
    limit: Limit = catalogue.SHOWN,
    cursor: Cursor = None,
) -> Page[FileOut]:
    """List a directory of an archive from the catalogue, by name."""
    archive = service.get_archive(session, actor.tenant_id, archive_id)
    after = _after(cursor).removeprefix(b"/")
    home = state.settings.home
    rows = catalogue.list_files(session, home, archive, _path(path, ref), after=after, limit=limit + 1)
    items, following = split(rows, limit, lambda row: [catalogue.name_ref(row)])
    return Page(items=items, next=following)


@router.get("/archives/{archive_id}/versions")
def list_file_versions(
    session: SessionDep,
    state: StateDep,
    actor: Reader,
    archive_id: uuid.UUID,
    path: PathText = "/",
    ref: Ref = "",
) -> list[VersionOut]:
    """List the versions of one path in the archive's repository, newest first."""
    archive = service.get_archive(session, actor.tenant_id, archive_id)
    return catalogue.list_versions(session, state.settings.home, archive, _path(path, ref))


@router.get("/archives/{archive_id}/compare/{other_id}")
def compare_archives(
    *,
    session: SessionDep,
    state: StateDep,
    actor: Reader,
    archive_id: uuid.UUID,
    other_id: uuid.UUID,
    path: PathText = "/",
    ref: Ref = "",
    limit: Limit = catalogue.SHOWN,
    cursor: Cursor = None,
) -> Page[DifferenceOut]:
    """List what differs from one archive to another of the same repository, by path."""
    old = service.get_archive(session, actor.tenant_id, archive_id)
    new = service.get_archive(session, actor.tenant_id, other_id)
    below, after, home = _path(path, ref), _after(cursor), state.settings.home
    rows = catalogue.compare(session, home, old, new, below=below, after=after, limit=limit + 1)
    items, following = split(rows, limit, lambda row: [row.ref])
    return Page(items=items, next=following)


@router.get("/find")
def find(
    *,
    session: SessionDep,
    state: StateDep,
    actor: Reader,
    q: Annotated[Text, Query(description="A part of a name, a path, or a glob such as *.conf")],
    host: Text = "",
    group: Text = "",
    min_size: Bytes = None,
    max_size: Bytes = None,
    after: Moment | None = None,
    before: Moment | None = None,
    limit: Limit = catalogue.SHOWN,
) -> list[FoundOut]:
    """Find paths in all archives of a host, a group or the fleet; those that are gone from the host too."""
    hosts = None
    if host:
        hosts = {get_host(session, actor.tenant_id, host).id}
    if group:
        members = {each.id for each in group_hosts(session, get_group(session, actor.tenant_id, group))}
        hosts = members if hosts is None else hosts & members
    return catalogue.find(
        session,
        state.settings.home,
        actor.tenant_id,
        q,
        hosts=hosts,
        min_size=min_size,
        max_size=max_size,
        after=after,
        before=before,
        limit=limit,
    )


@router.post("/repositories/{repository_id}/catalogue/rebuild", status_code=202)
def rebuild_catalogue(session: SessionDep, state: StateDep, actor: Keeper, repository_id: uuid.UUID) -> None:
    """Drop a repository's part of the catalogue; its host sends all its archives' listings, oldest first."""
    repository = get_repository(session, actor.tenant_id, repository_id)
    catalogue.rebuild(session, state.settings.home, repository)
    describe(session, f"repository {repository.id}")


@router.get("/agents/catalogue/{repository_id}")
def wanted_listing(session: SessionDep, state: StateDep, actor: Agent, repository_id: uuid.UUID) -> WantedOut:
    """Say which archive's listing the catalogue lacks (agent token)."""
    if actor.host_id is None:
        raise Forbidden("only an agent's token can send listings")
    host = get_host(session, actor.tenant_id, actor.host_id)
    return catalogue.wanted(session, state.settings.home, host, repository_id)


@router.post("/agents/catalogue/{repository_id}/living", status_code=204)
def take_living(
    session: SessionDep, state: StateDep, actor: Agent, repository_id: uuid.UUID, body: LivingIn
) -> None:
    """Take in which archives a repository has (agent token); the others are marked as gone.

    Where one came back, such as by an undo, the repository's part of the catalogue is built anew.
    """
    if actor.host_id is None:
        raise Forbidden("only an agent's token can say what its repositories hold")
    host = get_host(session, actor.tenant_id, actor.host_id)
    catalogue.follow_renames(session, state.settings.home, host, repository_id, body.renamed)
    _, returned = service.mark_living(session, host, repository_id, body.archives)
    if returned and not switch.why_off(session, host):
        catalogue.rebuild(session, state.settings.home, get_repository(session, actor.tenant_id, repository_id))


async def _piece(request: Request) -> bytes:
    return await request.body()


@router.put(
    "/agents/catalogue/{repository_id}/{borg_id}",
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}},
)
def take_listing(
    *,
    session: SessionDep,
    state: StateDep,
    actor: Agent,
    repository_id: uuid.UUID,
    borg_id: BorgId,
    base: Base = "",
    offset: Annotated[int, Query(ge=0, lt=2**40)] = 0,
    last: bool = False,
    piece: Annotated[bytes, Depends(_piece)],
) -> ReceivedOut:
    """Take in a piece of an archive's listing (agent token); sending one twice changes nothing."""
    if actor.host_id is None:
        raise Forbidden("only an agent's token can send listings")
    host = get_host(session, actor.tenant_id, actor.host_id)
    received = catalogue.take(
        session,
        state.settings.home,
        host,
        repository_id,
        borg_id,
        piece=piece,
        base=base,
        offset=offset,
        last=last,
    )
    return ReceivedOut(received=received)
