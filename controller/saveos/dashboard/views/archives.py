"""Archives: list, and look inside."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError

from saveos.accounts.access import describe
from saveos.archives import catalogue, service, switch
from saveos.archives.models import Archive
from saveos.archives.schemas import ArchivePatch
from saveos.core.errors import NotFound, Problem
from saveos.core.i18n import gettext
from saveos.core.inputs import Filter
from saveos.core.pagination import split
from saveos.core.settings import get_settings
from saveos.dashboard import actions, forms, queries
from saveos.dashboard.rendering import View, redirect, url, view
from saveos.dashboard.sentences import sentence
from saveos.dashboard.views import files
from saveos.hosts.models import Host
from saveos.hosts.service import get_host
from saveos.jobs import service as jobs
from saveos.jobs.models import ACTIVE, Job
from saveos.maintenance import care
from saveos.maintenance.care import Compared
from saveos.repositories.service import get_repository
from saveos.restores import differences

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("archives:read"))]
Carer = Annotated[View, Depends(view("archives:write"))]
Keeper = Annotated[View, Depends(view("repositories:write"))]
Browser = Annotated[View, Depends(view("jobs:write"))]
Cursor = Annotated[str, Query(max_length=1000)]
PathIn = Annotated[str, Form(max_length=4096)]
LIMIT = 50
MAX_ENTRIES = 2000
KINDS = {"d": "dir", "l": "link"}


@router.get("/archives")
def list_archives(page: Reader, host: Filter = "", cursor: Cursor = "") -> Response:
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
    return _show(page, archive_id, path, ref, cursor)


def _show(
    page: View,
    archive_id: uuid.UUID,
    path: str,
    ref: str,
    cursor: str,
    *,
    problems: dict[str, str] | None = None,
    care_form: dict[str, str] | None = None,
    care_error: str = "",
) -> Response:
    archive, host = _find(page, archive_id)
    status = 422 if problems or care_error else 200
    can: dict[str, Any] = {
        "can_care": page.actor.may("archives:write"),
        "can_delete": page.actor.may(care.DELETE),
    }
    can["can_rebuild"] = page.actor.may("repositories:write")
    blank = dict.fromkeys(("action", "new_name", "destination", "database", "copy_name"), "")
    can |= {"care_form": blank | (care_form or {}), "can_replace": page.actor.may(care.REPLACE)}
    can |= {"care_error": care_error, "problems": problems or {}}
    around = service.list_around(page.session, archive)
    can["catalogue_off"] = switch.why_off(page.session, host)
    if archive.catalogue == "indexed":
        folder = files.folder(page, archive, ref, cursor)
        return page.render(
            "archives/detail.html",
            status,
            **can,
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
        status,
        **can,
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
        has_text=files.has_text(page),
        waiting=job is not None and job.state in ACTIVE,
    )


@router.post("/archives/{archive_id}/care")
def care_for(
    page: Carer,
    archive_id: uuid.UUID,
    note: Annotated[str, Form(max_length=4096)] = "",
    tags: Annotated[str, Form(max_length=4096)] = "",
) -> Response:
    """Change an archive's note and tags."""
    archive, _ = _find(page, archive_id)
    try:
        patch = ArchivePatch(note=note, tags=tags.replace(",", " ").split())
    except ValidationError as error:
        return _show(page, archive_id, "", "", "", problems=forms.problems(error, {"note", "tags"})[0])
    service.change_archive(page.session, archive, patch)
    describe(page.session, f"archive {archive.name}")
    return redirect(f"/archives/{archive.id}")


@router.post("/archives/{archive_id}/catalogue")
def rebuild_catalogue(page: Keeper, archive_id: uuid.UUID) -> Response:
    """Drop the repository's part of the catalogue; its host sends the files of all its archives again."""
    archive, _ = _find(page, archive_id)
    repository = get_repository(page.session, page.tenant_id, archive.repository_id)
    catalogue.rebuild(page.session, get_settings().home, repository)
    describe(page.session, f"repository {repository.id}")
    return redirect(f"/archives/{archive.id}")


class CareForm(BaseModel):
    """What is to be done to an archive; `typed` is its name, which a delete wants, unless `check` is set."""

    action: Annotated[str, Field(max_length=20)]
    new_name: Annotated[str, Field(max_length=400)] = ""
    destination: Annotated[str, Field(max_length=4096)] = ""
    typed: Annotated[str, Field(max_length=400)] = ""
    check: bool = False
    database: Annotated[str, Field(max_length=1000)] = ""
    database_as: Annotated[str, Field(max_length=20)] = "copy"
    copy_name: Annotated[str, Field(max_length=1000)] = ""

    def shown(self) -> dict[str, str]:
        """Return what was typed, for the form to show it again."""
        names = ("action", "new_name", "destination", "database", "copy_name")
        return {name: getattr(self, name).strip() for name in names}


@router.post("/archives/{archive_id}/act")
def act(page: Reader, archive_id: uuid.UUID, form: Annotated[CareForm, Form()]) -> Response:
    """Start what is to be done to the archive on its host, and go to the job; a comparison to its page."""
    archive, host = _find(page, archive_id)
    wanted = form.shown()
    own = {"archive": archive.borg_id, "repository_id": str(archive.repository_id)}
    if form.action == "compare":
        actions.start(page, "compare", [str(host.id)], parameters=own)
        return redirect(f"/archives/{archive.id}/host")
    error = ""
    if form.action == "delete" and not form.check and form.typed.strip() != archive.name:
        error = gettext("Type the archive's name: a delete cannot be taken back once the gate has opened.")
    elif (
        form.action == "database" and form.database_as == "replace" and form.typed.strip() != wanted["database"]
    ):
        error = gettext("Type the database's name to replace it.")
    if not error:
        operation = "database" if form.action == "database" else "care"
        if operation == "database":
            parameters = own | {"database": wanted["database"], "database_as": form.database_as}
            parameters |= {"copy_name": wanted["copy_name"]}
        else:
            names = {name: wanted[name] for name in ("new_name", "destination")}
            parameters = care.parameters(archive, form.action, **names)
        try:
            with page.session.begin_nested():
                care.check(archive, form.action)
                mode = "check" if form.check else "run"
                job = actions.start(page, operation, [str(host.id)], parameters=parameters, mode=mode)
        except Problem as problem:
            if problem.status not in (409, 422):
                raise
            error = sentence(problem.detail)
    if error:
        return _show(page, archive_id, "", "", "", care_form=wanted, care_error=error)
    describe(page.session, f"archive {archive.name}", action=form.action, check=form.check, job=str(job.id))
    return redirect(f"/jobs/{job.id}", actions.flash(job))


@router.get("/archives/{archive_id}/host")
def compare_with_host(
    page: Reader, archive_id: uuid.UUID, start: Annotated[int, Query(ge=0, le=100_000)] = 0
) -> Response:
    """Show what the last comparison found on the archive's host."""
    archive, host = _find(page, archive_id)
    job = queries.latest_compare(page.session, archive)
    told, error = _compared(page, job)
    rows = told["differences"] if told else []
    here = f"/archives/{archive.id}/host"
    return page.render(
        "files/host.html",
        archive=archive,
        host=host,
        job=job,
        waiting=job is not None and job.state in ACTIVE,
        told=told,
        error=error,
        can_download=files.may_see_text(page),
        text_limit=differences.SMALL,
        rows=rows[start : start + files.LIMIT],
        first_page=here if start else "",
        next_page=url(here, start=str(start + files.LIMIT)) if len(rows) > start + files.LIMIT else "",
    )


def _compared(page: View, job: Job | None) -> tuple[dict[str, Any] | None, str]:
    """Return what a host found, or why it could not. It comes from a host: believe no shape."""
    if job is None or job.state in ACTIVE:
        return None, ""
    row = next(iter(jobs.list_hosts(page.session, job, limit=1)), None)
    try:
        return Compared.model_validate(row.result.get("compare") if row else None).model_dump(), ""
    except ValidationError:
        return None, (row.error if row else "") or job.error or gettext("The host gave no comparison.")


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
