"""Care of archives: who may, what is refused before a host is asked, and what its answer changes here."""

import uuid
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.archives import catalogue, retention, service
from saveos.archives.models import Archive
from saveos.core.clock import now
from saveos.core.errors import Conflict, Invalid
from saveos.core.settings import get_settings
from saveos.jobs.models import Job, JobHost
from saveos.maintenance.results import host_of, parsed

DELETE = "archives:delete"
RIGHTS = {"delete": DELETE, "export": "restores:write"}  # the others need archives:write alone
REPLACE = "restores:in_place"

BorgId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Named(BaseModel):
    """An archive as its repository knows it."""

    id: BorgId
    name: Annotated[str, Field(min_length=1, max_length=400)]


class Cared(BaseModel):
    """What a host did to an archive; `now` is null where there is none any more, or nothing was renamed."""

    action: Literal["protect", "unprotect", "rename", "delete", "export"]
    repository_id: uuid.UUID
    archive: Named
    now: Named | None = None


Size = Annotated[int, Field(ge=0, lt=2**63)]


class Counted(BaseModel):
    """How many paths differ in a way, and their bytes."""

    files: Size
    bytes: Size


class Differs(BaseModel):
    """A path that differs from an archive: added, removed or modified; sizes in the archive and now."""

    kind: Literal["added", "removed", "modified"]
    path: Annotated[str, Field(max_length=9000)]
    ref: Annotated[str, Field(max_length=9000, pattern=r"^[A-Za-z0-9_-]*$")]
    size: Size | None
    now: Size | None
    what: Literal["", "content", "mode", "type"] = ""


class Compared(BaseModel):
    """What a host found when it compared an archive with its files; `more` paths differ that are not told."""

    compared: Size
    added: Counted
    removed: Counted
    modified: Counted
    differences: Annotated[list[Differs], Field(max_length=2000)]
    more: Size


def needed_rights(operation: str, parameters: Mapping[str, Any]) -> Collection[str]:
    """Return the rights beside the operation's own that these parameters need."""
    if operation == "care":
        return [RIGHTS[action]] if (action := str(parameters.get("action"))) in RIGHTS else []
    if operation == "diff":
        return ["download"]
    replaces = operation == "database" and parameters.get("database_as") == "replace"
    return [REPLACE] if replaces else []


def check(archive: Archive, action: str) -> None:
    """Raise Conflict for what cannot be done to an archive."""
    if archive.gone_at is not None:
        raise Conflict("its repository has this archive no more: choose another archive")
    if action == "delete" and archive.protected:
        raise Conflict("this archive is protected: take its protection away first")


def parameters(archive: Archive, action: str, *, new_name: str = "", destination: str = "") -> dict[str, Any]:
    """Return what the operation takes to do this to an archive, which is named by Borg's id."""
    asked = {"new_name": new_name, "destination": destination}
    return {"action": action, "archive": archive.borg_id, "repository_id": str(archive.repository_id)} | asked


def _check_asked(job: Job, found: Cared, archive: Archive) -> None:
    """Raise Invalid where a host tells of anything but what it was asked for.

    What is noted here as a person's wish, its guard lets go: root on the host must not choose it.
    """
    asked = job.parameters or {}
    same_place = asked.get("repository_id") in (None, str(found.repository_id))
    if (
        found.action != asked.get("action")
        or asked.get("archive") not in (archive.borg_id, archive.name)
        or not same_place
    ):
        raise Invalid(f"the host tells of {found.action} of another archive than it was asked for")


def recorded(session: Session, job: Job, row: JobHost) -> None:
    """Follow what a host did to an archive: its name and id, its protection, or that it is deleted."""
    told, host = row.result.get("care"), host_of(session, row)
    if host is None or not isinstance(told, dict) or job.mode == "check":
        return
    found = parsed(Cared, told)
    own = Archive.repository_id == found.repository_id, Archive.host_id == host.id
    archive = session.scalar(select(Archive).where(*own, Archive.borg_id == found.archive.id))
    if archive is None:
        return
    _check_asked(job, found, archive)
    if found.now is not None and found.action in ("protect", "unprotect", "rename"):
        if found.now.id != archive.borg_id:
            retention.note_former_id(session, archive)
        catalogue.rename(session, get_settings().home, archive, found.now.id, found.now.name)
    elif found.action == "delete":
        service.mark_removed(session, archive, "request", job.requested_by, at=row.finished_at or now())
