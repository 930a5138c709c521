"""Archives: list, look inside, restore from one; and what was restored."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import Response

from saveos.archives import service
from saveos.archives.models import Archive
from saveos.core.errors import NotFound, Problem
from saveos.core.i18n import gettext
from saveos.core.pagination import decode_id, split
from saveos.dashboard import actions, queries
from saveos.dashboard.rendering import View, redirect, url, view
from saveos.dashboard.views import files
from saveos.hosts.models import Host
from saveos.hosts.service import get_host
from saveos.jobs import service as jobs
from saveos.jobs.models import ACTIVE, Job
from saveos.restores import service as restores

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("archives:read"))]
Browser = Annotated[View, Depends(view("jobs:write"))]
Restorer = Annotated[View, Depends(view("restores:write"))]
Cursor = Annotated[str, Query(max_length=1000)]
PathIn = Annotated[str, Form(max_length=4096)]
LIMIT = 50
MAX_ENTRIES = 2000
KINDS = {"d": "dir", "l": "link"}


@router.get("/archives")
def list_archives(
    page: Reader, host: Annotated[str, Query(max_length=253)] = "", cursor: Cursor = ""
) -> Response:
    """List the archives of all hosts or of one."""
    name = host.strip()
    try:
        found = service.list_archives(
            page.session, page.tenant_id, host=name, cursor=cursor or None, limit=LIMIT + 1
        )
    except NotFound:
        found = []
    rows, following = split(found, LIMIT, lambda row: [row.started_at.isoformat(), str(row.id)])
    total, _ = queries.archive_totals(page.session, page.tenant_id)
    return page.render(
        "archives/list.html",
        archives=rows,
        show_host=True,
        filters={"host": name},
        total=total,
        first_page=url("/archives", host=name) if cursor else "",
        next_page=url("/archives", host=name, cursor=following) if following else "",
    )


@router.get("/archives/{archive_id}")
def show_archive(
    page: Reader,
    archive_id: uuid.UUID,
    path: Annotated[str, Query(max_length=4096)] = "",
    ref: files.Ref = "",
    cursor: files.Cursor = "",
) -> Response:
    """Show an archive's figures and a folder of it: from the catalogue, else once a browse job has read it."""
    archive, host = _find(page, archive_id)
    around = service.list_around(page.session, archive)
    if archive.catalogue == "indexed":
        folder = files.folder(page, archive, ref, cursor)
        return page.render(
            "archives/detail.html",
            archive=archive,
            host=host,
            around=around,
            ref=ref,
            folder=folder,
            waiting=False,
        )
    wanted = _clean(path or "/")
    job = queries.latest_browse(page.session, archive, wanted)
    listing, error = _listing(page, job)
    return page.render(
        "archives/detail.html",
        archive=archive,
        host=host,
        around=around,
        ref="",
        folder=None,
        path=wanted,
        crumbs=_crumbs(wanted),
        browse_job=job,
        browse_error=error,
        listing=listing,
        waiting=job is not None and job.state in ACTIVE,
    )


def _find(page: View, archive_id: uuid.UUID) -> tuple[Archive, Host]:
    archive = service.get_archive(page.session, page.tenant_id, archive_id)
    return archive, get_host(page.session, page.tenant_id, archive.host_id)


def _clean(path: str) -> str:
    """Return a directory as browse jobs know it: absolute, without a slash at its end."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _crumbs(path: str) -> list[dict[str, str]]:
    parts = [part for part in path.split("/") if part]
    return [{"name": part, "path": "/" + "/".join(parts[: place + 1])} for place, part in enumerate(parts)]


def _listing(page: View, job: Job | None) -> tuple[dict[str, Any] | None, str]:
    """Return what a browse job read, or why it could not. Its result comes from a host: believe no shape."""
    if job is None or job.state in ACTIVE:
        return None, ""
    row = next(iter(jobs.list_hosts(page.session, job, limit=1)), None)
    told = row.result.get("browse") if row else None
    if not isinstance(told, dict) or not isinstance(told.get("entries"), list):
        reason = (row.error if row else "") or job.error or gettext("The host gave no listing.")
        return None, reason
    entries = [_entry(each) for each in told["entries"][:MAX_ENTRIES] if isinstance(each, dict)]
    entries.sort(key=lambda entry: (entry["kind"] != "dir", entry["name"]))
    return {"entries": entries, "truncated": bool(told.get("truncated"))}, ""


def _entry(told: dict[str, Any]) -> dict[str, Any]:
    owner, group = str(told.get("user") or ""), told.get("group")
    size = told.get("size")
    return {
        "name": str(told.get("name", "")),
        "path": str(told.get("path", "")),
        "kind": KINDS.get(str(told.get("type")), "file"),
        "target": str(told.get("link") or ""),
        "size": size if isinstance(size, int) else None,
        "owner": f"{owner}:{group}" if owner and group else owner,
        "changed_at": _time(told.get("mtime")),
    }


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else None


@router.post("/archives/{archive_id}/browse")
def browse(page: Browser, archive_id: uuid.UUID, path: PathIn = "/") -> Response:
    """Show a directory; where no browse job has read it yet, start one on the host."""
    archive, host = _find(page, archive_id)
    wanted = _clean(path)
    job = queries.latest_browse(page.session, archive, wanted)
    listing, _ = _listing(page, job)
    if listing is None and not (job and job.state in ACTIVE):
        parameters = {"archive": archive.name, "repository_id": str(archive.repository_id), "path": wanted}
        actions.start(page, "browse", [str(host.id)], parameters=parameters)
    return redirect(url(f"/archives/{archive.id}", path=wanted))


@router.get("/archives/{archive_id}/restore")
def ask_restore(
    page: Restorer, archive_id: uuid.UUID, paths: Annotated[list[str] | None, Query()] = None
) -> Response:
    """Ask what to bring back, to where."""
    archive, host = _find(page, archive_id)
    form = {"paths": "\n".join(paths or []), "destination": ""}
    return page.render("archives/restore.html", archive=archive, host=host, form=form, error="")


@router.post("/archives/{archive_id}/restore")
def start_restore(
    page: Restorer,
    archive_id: uuid.UUID,
    paths: Annotated[str, Form(max_length=1_000_000)] = "",
    destination: PathIn = "",
    confirmed: Annotated[bool, Form()] = False,
) -> Response:
    """Start the restore and go to its job."""
    archive, host = _find(page, archive_id)
    form = {"paths": paths, "destination": destination.strip()}
    chosen = [line.rstrip("\r") for line in paths.split("\n") if line.strip()]
    error = "" if confirmed else gettext("Tick the box: a restore writes onto the host.")
    if not error:
        try:
            with page.session.begin_nested():
                job = actions.restore(page, archive.id, chosen, form["destination"])
        except Problem as problem:
            if problem.status != 422:
                raise
            error = problem.detail
    if error:
        return page.render("archives/restore.html", 422, archive=archive, host=host, form=form, error=error)
    return redirect(f"/jobs/{job.id}", actions.flash(job))


@router.get("/restores")
def list_restores(page: Annotated[View, Depends(view("restores:read"))], cursor: Cursor = "") -> Response:
    """List what was asked back, and how it went."""
    found = restores.list_restores(
        page.session, page.tenant_id, before=decode_id(cursor or None), limit=LIMIT + 1
    )
    rows, following = split(found, LIMIT, lambda row: [str(row.id)])
    return page.render(
        "restores/list.html",
        restores=restores.describe(page.session, rows),
        first_page="/restores" if cursor else "",
        next_page=url("/restores", cursor=following) if following else "",
    )
