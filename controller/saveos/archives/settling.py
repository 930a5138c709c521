"""The catalogue brought in line with the policies' switch: names go where it is off, and come back with it.

Whatever changed the switch (the policy, a group, a host, a rollback), the worker finds what no longer fits and
makes it so: archives are `off`, and `wanted` again when it is on, so that their hosts send anew what they hold.
"""

import logging
import shutil
import uuid
from pathlib import Path

import sqlcipher3.dbapi2 as sqlite
from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session

from saveos.archives import catalogue, listings
from saveos.archives.models import Archive
from saveos.archives.switch import hosts_off
from saveos.core.database import Database, touch
from saveos.core.security import CannotOpen
from saveos.policies.precedence import PART
from saveos.repositories.models import Repository

STORED = ("indexed", "waiting", "wanted", "failed")

log = logging.getLogger(__name__)


def settle(database: Database, home: Path) -> bool:
    """Bring what is stored in line with the policies; whether all of it is.

    A repository whose store is busy is left for the next time, with those that share it, so that others go on.
    """
    with database.session() as session:
        off = hosts_off(session)
        leaving = _leaving(session, home, off)
        was_off = select(Archive.repository_id, Archive.host_id).where(catalogue.SWITCHED_OFF).distinct()
        returning = list(session.execute(was_off))
    for repository_id, host_id in returning:
        if host_id not in off:
            _resume(database, repository_id)
    busy: set[tuple[uuid.UUID, int]] = set()
    for repository in leaving:
        shard = repository.tenant_id, repository.id.int % catalogue.SHARDS
        if shard not in busy and not _leave(database, home, repository):
            busy.add(shard)
    return not busy


def _leaving(session: Session, home: Path, off: dict[uuid.UUID, str]) -> list[Repository]:
    """Return the repositories of hosts whose catalogue is off of which something is here, or not yet `off`."""
    unfit = or_(
        Archive.catalogue.in_(STORED),
        and_(Archive.catalogue == "none", Archive.gone_at.is_(None)),
        and_(Archive.catalogue == "off", Archive.catalogue_error != ""),
    )
    ids = list(off)
    found: set[uuid.UUID] = set()
    for start in range(0, len(ids), PART):
        own = Archive.host_id.in_(ids[start : start + PART])
        found.update(session.scalars(select(Archive.repository_id).where(own, unfit).distinct()))
    repositories = [session.get_one(Repository, each) for each in sorted(found)]
    for folder in (home / "catalogue" / "incoming").glob("*/*"):  # what was sent in part
        repository = session.get(Repository, uuid.UUID(folder.name))
        if repository is not None and repository.host_id in off and repository.id not in found:
            repositories.append(repository)
    return repositories


def _leave(database: Database, home: Path, repository: Repository) -> bool:
    """Take a repository's names away; whether that was possible. Done twice it changes nothing."""
    owners, own = [repository.id], Archive.repository_id == repository.id
    folder = listings.folder(home, repository.tenant_id, repository.id)
    try:
        with database.session() as session:
            stored = session.scalar(select(Archive.id).where(own, Archive.catalogue.in_(STORED)).limit(1))
            store = catalogue.open_store(session, home, repository.tenant_id, repository.id) if stored else None
        if store is not None:
            with store:
                store.drop(str(repository.id), names=True)
    except (sqlite.OperationalError, OSError, CannotOpen) as error:
        log.warning("names of files of repository %s are here for now: %s", repository.id, error)
        return False
    except sqlite.DatabaseError as error:
        log.warning("the catalogue's store of %s cannot be read and is made anew: %s", repository.id, error)
        with database.session() as session:
            owners = catalogue.drop_store(session, home, repository)
    shutil.rmtree(folder, ignore_errors=True)
    with database.session(writes=True) as session:
        catalogue.want_anew(session, owners)
        rows = update(Archive).where(own, Archive.gone_at.is_(None))
        session.execute(rows.values(catalogue="off", catalogue_error=""))
        touch(session, repository.tenant_id, "archives")
    return True


def _resume(database: Database, repository_id: uuid.UUID) -> None:
    """Want all archives of a repository again: after its next backup the host sends what they hold."""
    with database.session(writes=True) as session:
        catalogue.want_anew(session, [repository_id])
        touch(session, session.get_one(Repository, repository_id).tenant_id, "archives")
