"""Restores: what, where, by which rule; a preview before; and how each went."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response
from pydantic import StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from saveos.accounts.access import Actor, find_actor
from saveos.accounts.service import get_tenant
from saveos.archives import catalogue
from saveos.archives import service as archives
from saveos.archives.models import Archive
from saveos.core.clock import now
from saveos.core.errors import Forbidden, NotFound, Problem, Unauthenticated
from saveos.core.i18n import gettext
from saveos.core.pagination import decode_id, split
from saveos.core.web import State, StateDep
from saveos.dashboard import actions, queries
from saveos.dashboard.rendering import View, bare, redirect, url, view
from saveos.dashboard.sentences import sentence
from saveos.hosts.models import Host
from saveos.hosts.service import protection
from saveos.jobs import service as jobs
from saveos.jobs.models import ACTIVE, Job, JobHost
from saveos.restores import content, differences, service

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("restores:read"))]
Restorer = Annotated[View, Depends(view("restores:write"))]
PathsIn = Annotated[str, Form(max_length=1_000_000)]
RefsIn = Annotated[list[str] | None, Form()]
Keep = Annotated[list[Annotated[str, StringConstraints(max_length=10)]] | None, Form(max_length=10)]
KEEP = ("owners", "acls", "xattrs")
LIMIT, DATABASES = 50, 10
TEXT_SECONDS = 20.0  # one request of a page that waits for a text; then it asks again


@router.get("/archives/{archive_id}/restore")
def ask_restore(
    page: Restorer,
    archive_id: uuid.UUID,
    paths: Annotated[list[str] | None, Query()] = None,
    refs: Annotated[list[str] | None, Query()] = None,
    like: uuid.UUID | None = None,
) -> Response:
    """Ask what to bring back, to where, by which rule; `like` takes that from another restore."""
    archive, host = _find(page, archive_id)
    plain, odd = _plain(refs or [])
    form: dict[str, Any] = {"paths": "\n".join([*(paths or []), *plain]), "refs": odd}
    if like:
        before = service.get_restore(page.session, page.tenant_id, like)
        asked = service.describe(page.session, [before])[0]
        form = {"paths": "\n".join(asked.paths), "excludes": "\n".join(asked.excludes)}
        form |= {"refs": asked.refs, "exclude_refs": asked.exclude_refs}
        form |= {"destination": asked.destination, "conflict": asked.conflict, "where": _where(asked)}
        form |= {
            "target_host": asked.target_host or "",
            "keep": [name for name in KEEP if getattr(asked, name)],
        }
    return _form(page, archive, host, form)


@router.post("/archives/{archive_id}/restore")
def start_restore(  # noqa: PLR0917 - the fields of a form
    page: Restorer,
    archive_id: uuid.UUID,
    paths: PathsIn = "",
    excludes: PathsIn = "",
    refs: RefsIn = None,
    exclude_refs: RefsIn = None,
    where: Annotated[str, Form(max_length=20)] = "staging",
    destination: Annotated[str, Form(max_length=4096)] = "",
    conflict: Annotated[str, Form(max_length=20)] = "refuse",
    target_host: Annotated[str, Form(max_length=253)] = "",
    keep: Keep = None,
    preview: Annotated[bool, Form()] = False,
    confirmed: Annotated[bool, Form()] = False,
) -> Response:
    """Start the restore and go to its job, or the preview or the download and go to its page."""
    archive, host = _find(page, archive_id)
    odd = {"refs": refs or [], "exclude_refs": exclude_refs or []}
    form: dict[str, Any] = {"paths": paths, "excludes": excludes, "destination": destination.strip()}
    form |= {"where": where, "conflict": conflict, "target_host": target_host} | odd
    form["keep"] = KEEP if keep is None else keep
    free = preview or where == "download"
    error = "" if confirmed or free else gettext("Tick the box: a restore writes onto the host.")
    if where == "other_host" and not target_host.strip():
        error = gettext("Name the other host.")
    if not error:
        asked = {"paths": _lines(paths), "excludes": _lines(excludes), "conflict": conflict, "preview": preview}
        asked |= odd | {"in_place": where == "in_place"}
        asked |= {"destination": form["destination"] if where in ("staging", "directory", "other_host") else ""}
        asked |= {"target_host": target_host.strip() if where == "other_host" else None}
        asked |= {"download": where == "download"} | {name: name in form["keep"] for name in KEEP}
        try:
            with page.session.begin_nested():
                made, job = actions.restore(page, archive.id, asked)
        except Problem as problem:
            if problem.status not in (404, 409, 422):
                raise
            error = sentence(problem.detail)
    if error:
        return _form(page, archive, host, form, error)
    return redirect(f"/restores/{made.id}" if free else f"/jobs/{job.id}", actions.flash(job))


@router.get("/restores")
def list_restores(page: Reader, cursor: Annotated[str, Query(max_length=1000)] = "") -> Response:
    """List what was asked back, and how it went."""
    found = service.list_restores(
        page.session, page.tenant_id, before=decode_id(cursor or None), limit=LIMIT + 1
    )
    rows, following = split(found, LIMIT, lambda row: [str(row.id)])
    shown = service.describe(page.session, rows)
    return page.render(
        "restores/list.html",
        restores=shown,
        names=_shown([ref for each in shown for ref in each.refs[:3]]),
        databases=[] if cursor else _databases(page),
        first_page="/restores" if cursor else "",
        next_page=url("/restores", cursor=following) if following else "",
    )


def _databases(page: View) -> list[tuple[queries.JobRow, dict[str, Any], str]]:
    """Return the newest restores of databases, what each came to, and why it failed.

    They are jobs of their own, of no archive's files.
    """
    if not page.actor.may("jobs:read"):
        return []
    found = jobs.list_jobs(page.session, page.tenant_id, operation="database", limit=DATABASES)
    query = select(JobHost).where(JobHost.job_id.in_([job.id for job in found]))
    told = {row.job_id: row for row in page.session.scalars(query)}
    return [
        (row, _brought_back(told.get(row.job.id)), _fault(row.job, told.get(row.job.id)))
        for row in queries.job_rows(page.session, found)
    ]


def _brought_back(row: JobHost | None) -> dict[str, Any]:
    """Return what a host told of a database; of what is no such thing nothing."""
    told = row.result.get("database") if row is not None else None
    told = told if isinstance(told, dict) else {}
    texts = {name: told[name] if isinstance(told.get(name), str) else "" for name in ("into", "safety")}
    return texts | {"rows": told["rows"] if isinstance(told.get("rows"), int) else None}


def _fault(job: Job, row: JobHost | None) -> str:
    return (row.error if row is not None else "") or job.error


@router.get("/restores/{restore_id}")
def show_restore(page: Reader, restore_id: uuid.UUID) -> Response:
    """Show a restore: what was asked, what it came to, or of a preview what it would come to."""
    restore = service.get_restore(page.session, page.tenant_id, restore_id)
    shown = service.describe(page.session, [restore])[0]
    names = _shown([*shown.refs, *shown.exclude_refs])
    return page.render("restores/detail.html", restore=shown, names=names, active=shown.state in ACTIVE)


@router.get("/restores/{restore_id}/content")
async def read_content(request: Request, state: StateDep, restore_id: uuid.UUID) -> Response:
    """Give what a download asked for, as it comes from the host."""
    actor = await run_in_threadpool(_downloader, request, state)
    found = await content.give(state, actor, restore_id, seconds=content.PERSON_SECONDS)
    if found is None:
        raise content.not_begun()
    return found


@router.get("/restores/{restore_id}/text")
def show_text(page: Annotated[View, Depends(view(service.DOWNLOAD))], restore_id: uuid.UUID) -> Response:
    """Show the page into which a file's text, or how it differs, comes from its host."""
    return page.render("restores/text.html", **_text_page(page.session, page.tenant_id, restore_id))


@router.get("/restores/{restore_id}/text/part")
async def read_text(request: Request, state: StateDep, restore_id: uuid.UUID) -> Response:
    """Give what the page of a text shows, once; or that it is waited for, or why it does not come."""
    actor = await run_in_threadpool(_downloader, request, state)
    known = await run_in_threadpool(_about_text, state, actor, restore_id)
    text, error = None, ""
    try:
        found = await content.give(state, actor, restore_id, seconds=TEXT_SECONDS)
        text = None if found is None else await found.text()
    except Problem as problem:
        known = await run_in_threadpool(_about_text, state, actor, restore_id)
        error = known["error"] or sentence(problem.detail)
    return bare(request, "restores/text_part.html", **known | {"text": text, "error": error})


def _about_text(state: State, actor: Actor, restore_id: uuid.UUID) -> dict[str, Any]:
    with state.database.session() as session:
        return _text_page(session, actor.tenant_id, restore_id)


def _text_page(session: Session, tenant_id: uuid.UUID, restore_id: uuid.UUID) -> dict[str, Any]:
    """Return what the page says of a file and its job; `error` is the host's sentence. Raises NotFound."""
    restore = service.get_restore(session, tenant_id, restore_id)
    job = session.get_one(Job, restore.job_id)
    if job.operation != differences.OPERATION:
        raise NotFound("this restore brings no text: its page says what it brings")
    row = next(iter(jobs.list_hosts(session, job, limit=1)), None)
    told = (row.error if row else "") or job.error
    archive, against = session.get_one(Archive, restore.archive_id), job.parameters.get("other")
    same = Archive.repository_id == archive.repository_id, Archive.borg_id == against
    return {
        "archive": archive,
        "compared": against != differences.NONE,
        "with_host": against == differences.HOST,
        "other": session.scalar(select(Archive).where(*same)),
        "host": session.get_one(Host, restore.host_id),
        "job": job,
        "restore": restore,
        "path": catalogue.show(catalogue.from_ref(restore.refs[0])),
        "ref": restore.refs[0],
        "read": job.state == "succeeded",
        "text": None,
        "error": sentence(told) if told else "",
    }


def _downloader(request: Request, state: State) -> Actor:
    actor = find_actor(request, state)
    if actor is None:
        raise Unauthenticated("log in to download")
    if actor.must_change_password or not actor.may(service.DOWNLOAD):
        raise Forbidden("this needs the right download: ask an admin for it")
    return actor


def _form(page: View, archive: Archive, host: Host, form: dict[str, Any], error: str = "") -> Response:
    empty = {"paths": "", "excludes": "", "refs": [], "exclude_refs": [], "target_host": ""}
    empty |= {"destination": "", "where": "staging", "conflict": "refuse", "keep": KEEP}
    passes = get_tenant(page.session, page.tenant_id).content_through_controller
    return page.render(
        "archives/restore.html",
        422 if error else 200,
        archive=archive,
        host=host,
        silent=protection(host, now()) == "silent",
        form=empty | form,
        shown=_shown([*form.get("refs", []), *form.get("exclude_refs", [])]),
        may_in_place=page.actor.may(service.IN_PLACE),
        may_other_host=passes and page.actor.may(service.OTHER_HOST),
        may_download=passes and page.actor.may(service.DOWNLOAD),
        passes=passes,
        error=error,
    )


def _where(asked: Any) -> str:
    if asked.kind != "host":
        return str(asked.kind)
    return "in_place" if asked.in_place else "directory" if asked.destination else "staging"


def _shown(refs: list[str]) -> dict[str, str]:
    return {ref: catalogue.show(catalogue.from_ref(ref)) for ref in refs}


def _plain(refs: list[str]) -> tuple[list[str], list[str]]:
    """Return the paths of references that a line of text can say, and the references of the others."""
    plain, odd = [], []
    for ref in refs:
        path = catalogue.from_ref(ref)
        try:
            text = path.decode()
        except UnicodeDecodeError:
            text = ""
        if text.isprintable() and text:
            plain.append(text)
        else:
            odd.append(ref)
    return plain, odd


def _lines(text: str) -> list[str]:
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _find(page: View, archive_id: uuid.UUID) -> tuple[Archive, Host]:
    archive = archives.get_archive(page.session, page.tenant_id, archive_id)
    return archive, page.session.get_one(Host, archive.host_id)
