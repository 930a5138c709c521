"""Files in archives, as the catalogue knows them: search, versions of one, what differs."""

import uuid
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import Response

from saveos.accounts.access import describe
from saveos.accounts.service import get_tenant
from saveos.archives import catalogue, service, switch
from saveos.archives.models import Archive
from saveos.archives.schemas import FileOut
from saveos.core.errors import Invalid, NotFound, Problem
from saveos.core.i18n import gettext, zone
from saveos.core.inputs import parse_size
from saveos.core.pagination import decode_cursor, split
from saveos.core.settings import get_settings
from saveos.dashboard import queries
from saveos.dashboard.rendering import View, redirect, url, view
from saveos.dashboard.sentences import sentence
from saveos.hosts.groups import get_group, group_hosts
from saveos.hosts.service import get_host
from saveos.restores import differences
from saveos.restores.service import DOWNLOAD

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("archives:read"))]
Ref = Annotated[str, Query(max_length=8192)]
Cursor = Annotated[str, Query(max_length=9000)]
Typed = Annotated[str, Query(max_length=20)]
LIMIT = 200


@router.get("/files")
def search(
    page: Reader,
    *,
    q: Annotated[str, Query(max_length=200)] = "",
    host: Annotated[str, Query(max_length=253)] = "",
    group: Annotated[str, Query(max_length=63)] = "",
    min_size: Typed = "",
    max_size: Typed = "",
    after: Typed = "",
    before: Typed = "",
) -> Response:
    """Find files in the archives of the fleet, also those that are gone from their host."""
    given = {"q": q, "host": host, "group": group}
    given |= {"min_size": min_size, "max_size": max_size, "after": after, "before": before}
    filters = {name: text.strip() for name, text in given.items()}
    error, hits, hosts, off = "", [], None, {}
    if filters["q"]:
        off = switch.hosts_off(page.session, page.tenant_id)
        try:
            hosts = _hosts(page, filters["host"], filters["group"])
            hits = catalogue.find(
                page.session,
                get_settings().home,
                page.tenant_id,
                filters["q"],
                hosts=hosts,
                min_size=_size(filters["min_size"]),
                max_size=_size(filters["max_size"]),
                after=_day(filters["after"]),
                before=_day(filters["before"], end=True),
                limit=LIMIT,
            )
        except Problem as problem:
            error = sentence(problem.detail)
    groups = queries.groups(page.session, page.tenant_id)
    return page.render(
        "files/search.html",
        filters=filters,
        groups=groups,
        hits=hits,
        has_text=has_text(page),
        left_out=sorted(name for key, name in off.items() if hosts is None or key in hosts),
        error=error,
        limit=LIMIT,
    )


def may_see_text(page: View) -> bool:
    """Say whether texts of files are offered: to whom may download, where content may pass the controller."""
    passes = get_tenant(page.session, page.tenant_id).content_through_controller
    return passes and page.actor.may(DOWNLOAD)


def has_text(page: View) -> Callable[[int, int], bool]:
    """Return what says of a file's mode and size whether its text is offered."""
    offered = may_see_text(page)
    return lambda mode, size: offered and differences.has_text(mode, size)


def _size(text: str) -> int | None:
    try:
        return parse_size(text) if text else None
    except ValueError as error:
        raise Invalid(gettext("Write sizes as bytes, or as 500k, 10M or 2G.")) from error


def _day(text: str, *, end: bool = False) -> datetime | None:
    """Return when a day begins, or ends, in the reader's zone."""
    try:
        day = date.fromisoformat(text) if text else None
        if day is None or not 1990 <= day.year <= 2200:
            return None
    except ValueError as error:
        raise Invalid(gettext("Write days as 2026-11-23.")) from error
    return datetime.combine(day, time(23, 59, 59) if end else time(), zone())


def _hosts(page: View, host: str, group: str) -> set[uuid.UUID] | None:
    chosen = None
    if host:
        chosen = {get_host(page.session, page.tenant_id, host).id}
    if group:
        members = {
            each.id for each in group_hosts(page.session, get_group(page.session, page.tenant_id, group))
        }
        chosen = members if chosen is None else chosen & members
    return chosen


@router.get("/archives/{archive_id}/versions")
def list_versions(page: Reader, archive_id: uuid.UUID, ref: Ref = "") -> Response:
    """Show the versions of one path."""
    archive = service.get_archive(page.session, page.tenant_id, archive_id)
    path = catalogue.from_ref(ref)
    return page.render(
        "files/versions.html",
        archive=archive,
        host=get_host(page.session, page.tenant_id, archive.host_id),
        path=catalogue.show(path),
        folder=catalogue.to_ref(path.rpartition(b"/")[0]),
        versions=catalogue.list_versions(page.session, get_settings().home, archive, path),
        has_text=has_text(page),
    )


@router.get("/archives/{archive_id}/compare/{other_id}")
def compare(
    page: Reader, archive_id: uuid.UUID, other_id: uuid.UUID, ref: Ref = "", cursor: Cursor = ""
) -> Response:
    """Show what differs from one archive to another."""
    old = service.get_archive(page.session, page.tenant_id, archive_id)
    new = service.get_archive(page.session, page.tenant_id, other_id)
    below = catalogue.from_ref(ref)
    after = catalogue.from_ref(str(decode_cursor(cursor, 1)[0])) if cursor else b""
    found = catalogue.compare(
        page.session, get_settings().home, old, new, below=below, after=after, limit=LIMIT + 1
    )
    rows, following = split(found, LIMIT, lambda row: [row.ref])
    here = f"/archives/{old.id}/compare/{new.id}"
    return page.render(
        "files/compare.html",
        old=old,
        new=new,
        host=get_host(page.session, page.tenant_id, old.host_id),
        path=catalogue.show(below),
        ref=ref,
        rows=rows,
        has_text=has_text(page),
        text_limit=differences.SMALL,
        first_page=url(here, ref=ref) if cursor else "",
        next_page=url(here, ref=ref, cursor=following) if following else "",
    )


@router.post("/archives/{archive_id}/diff")
def show_difference(
    page: Annotated[View, Depends(view("download"))],
    archive_id: uuid.UUID,
    ref: Annotated[str, Form(max_length=8192)],
    other: Annotated[uuid.UUID | None, Form()] = None,
) -> Response:
    """Ask the host how a file's text differs, and go to the page where it comes in; nothing keeps it."""
    restore, job = differences.request(
        page.session,
        page.tenant_id,
        archive_id,
        other,
        ref,
        requested_by=page.actor.name,
        trigger="dashboard",
    )
    path = catalogue.show(catalogue.from_ref(ref))[:500]
    describe(page.session, f"restore:{restore.id}", job=str(job.id), path=path)
    return redirect(f"/restores/{restore.id}/text")


@router.post("/archives/{archive_id}/text")
def ask_text(
    page: Annotated[View, Depends(view("download"))],
    archive_id: uuid.UUID,
    ref: Annotated[str, Form(max_length=8192)] = "",
    path: Annotated[str, Form(max_length=4096)] = "",
) -> Response:
    """Ask the host for a file's text, and go to the page where it comes in; nothing keeps it."""
    restore, job = differences.request(
        page.session,
        page.tenant_id,
        archive_id,
        None,
        ref or catalogue.to_ref(path.encode()),
        alone=True,
        requested_by=page.actor.name,
        trigger="dashboard",
    )
    shown = catalogue.show(catalogue.from_ref(restore.refs[0]))[:500]
    describe(page.session, f"restore:{restore.id}", job=str(job.id), path=shown)
    return redirect(f"/restores/{restore.id}/text")


def folder(page: View, archive: Archive, ref: str, cursor: str) -> dict[str, Any]:
    """Return what the page of an archive shows of one of its folders, from the catalogue."""
    path = catalogue.from_ref(ref)
    after = catalogue.from_ref(str(decode_cursor(cursor, 1)[0])).removeprefix(b"/") if cursor else b""
    home, missing, found = get_settings().home, False, []
    try:
        found = catalogue.list_files(page.session, home, archive, path, after=after, limit=LIMIT + 1)
    except NotFound:  # the timeline keeps the folder, and not every archive has it
        missing = True
    rows, following = split(found, LIMIT, _name)
    here = f"/archives/{archive.id}"
    parts = [part for part in path.split(b"/") if part]
    crumbs = [
        {"name": catalogue.show(part), "ref": catalogue.to_ref(b"/" + b"/".join(parts[: place + 1]))}
        for place, part in enumerate(parts)
    ]
    return {
        "crumbs": crumbs,
        "missing": missing,
        "has_text": has_text(page),
        "rows": rows,
        "first_page": url(here, ref=ref) if cursor else "",
        "next_page": url(here, ref=ref, cursor=following) if following else "",
    }


def _name(row: FileOut) -> list[str]:
    return [catalogue.name_ref(row)]
