"""Verbs of the catalogue: take listings in, index them, browse, compare, find."""

import base64
import errno
import fnmatch
import logging
import re
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import sqlcipher3.dbapi2 as sqlite
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import and_, func, select, tuple_, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from saveos.accounts.keys import data_key
from saveos.archives import listings
from saveos.archives.listings import Listing
from saveos.archives.models import Archive
from saveos.archives.schemas import DifferenceOut, FileOut, FoundOut, RenamedIn, VersionOut, WantedOut
from saveos.archives.store import Store
from saveos.archives.store.browsing import Difference
from saveos.archives.store.entries import Entry, base
from saveos.archives.store.searching import Found, OutOfTime, Wanted, ask_all
from saveos.archives.store.taking import Incomplete, OutOfOrder
from saveos.archives.switch import check_on, why_off
from saveos.core.database import Database, touch
from saveos.core.errors import Conflict, Invalid, NotFound, Unavailable
from saveos.core.security import CannotOpen
from saveos.hosts.models import Host
from saveos.repositories.models import Repository

SHARDS = 16  # stores of a tenant; a repository lives in the one that its id names
SHOWN = 200  # entries on a page
SEARCH_SECONDS = 10  # of one search, in all stores
PROTECTED = "+"  # a name that begins so is left out by retention
NO_REF = "the reference to a path is not one that a list returned: send `path`, or a `ref` as it was listed"
DAMAGED = "a part of the catalogue cannot be read: build it anew with saveos archives rebuild REPOSITORY"
SET_ASIDE = (
    "its listing could not be taken over, the controller's log says why: "
    "its host sends it again after saveos archives rebuild REPOSITORY"
)
LATER = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.ENOMEM}

NOT_INDEXED: dict[type[Exception], tuple[str, str]] = {
    Incomplete: ("none", "files are gone since the archive before; the host lists all"),
    OutOfOrder: ("off", "it is older than the newest archive in the catalogue; rebuild the repository's part"),
}

SWITCHED_OFF = and_(Archive.catalogue == "off", Archive.catalogue_error == "")  # else it was out of order

log = logging.getLogger(__name__)


def open_store(session: Session, home: Path, tenant_id: uuid.UUID, repository_id: uuid.UUID) -> Store:
    """Open the store that holds a repository's part; made where there is none."""
    return _open(session, home, tenant_id, repository_id.int % SHARDS)


def copy_stores(session: Session, home: Path, tenant_id: uuid.UUID, target: Path) -> None:
    """Copy all stores of a tenant to another home, consistently and sealed, while they are in use."""
    for shard in range(SHARDS):
        if _path(home, tenant_id, shard).exists():
            place = _path(target, tenant_id, shard)
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _open(session, home, tenant_id, shard) as store:
                store.copy_to(place)


def _open(session: Session, home: Path, tenant_id: uuid.UUID, shard: int) -> Store:
    return Store(_path(home, tenant_id, shard), _key(session, tenant_id))


@contextmanager
def _reading(session: Session, home: Path, tenant_id: uuid.UUID, shard: int) -> Iterator[Store]:
    """Open a store to look at. Raises Unavailable where it cannot be read."""
    try:
        with _open(session, home, tenant_id, shard) as store:
            yield store
    except sqlite.DatabaseError as error:
        log.warning("the catalogue's store %s cannot be read: %s", _path(home, tenant_id, shard), error)
        if _is_locked(error):
            raise Unavailable("the catalogue is busy taking an archive over: try again in a minute") from error
        raise Unavailable(DAMAGED) from error


def _is_locked(error: sqlite.DatabaseError) -> bool:
    return isinstance(error, sqlite.OperationalError) and "locked" in str(error)


def _path(home: Path, tenant_id: uuid.UUID, shard: int) -> Path:
    return home / "catalogue" / str(tenant_id) / f"{shard:02x}.db"


def _key(session: Session, tenant_id: uuid.UUID) -> bytes:
    return HKDF(hashes.SHA256(), 32, tenant_id.bytes, b"saveos catalogue").derive(data_key(session, tenant_id))


# ---- taking in


def wanted(session: Session, home: Path, host: Host, repository_id: uuid.UUID) -> WantedOut:
    """Return what the catalogue has of a host's repository, so that the host sends what it lacks.

    Raises NotFound when the repository is not the host's.
    """
    owner = session.scalar(select(Repository.host_id).where(Repository.id == repository_id))
    if owner != host.id:
        raise NotFound("this host has no such repository: provision it again")
    none = WantedOut(archive=None, base=None)
    if why_off(session, host):
        return none
    query = select(Archive).where(Archive.repository_id == repository_id, Archive.gone_at.is_(None))
    if session.scalar(query.where(SWITCHED_OFF).limit(1)) is not None:
        return none  # it was off a moment ago: all are wanted, oldest first, once the worker says so
    anew = query.where(Archive.catalogue == "wanted").order_by(Archive.started_at, Archive.id)
    newest = session.scalar(anew.limit(1))
    more = session.scalar(select(func.count()).select_from(anew.order_by(None).subquery())) if newest else 0
    if newest is not None and session.scalar(query.where(Archive.catalogue == "waiting").limit(1)) is not None:
        return WantedOut(archive=None, base=None, waiting=True, more=more)  # one listing at a time lies here
    if newest is None:
        newest = session.scalar(query.order_by(Archive.started_at.desc()).limit(1))
    if newest is None or newest.catalogue in ("indexed", "waiting", "failed"):
        return WantedOut(archive=None, base=None, waiting=newest is not None and newest.catalogue == "waiting")
    known: list[str] = []
    if not newest.catalogue_error:  # else changes were sent, and did not do
        with _reading(session, home, host.tenant_id, repository_id.int % SHARDS) as store:
            known = list(store.numbers(str(repository_id)))
    waiting = listings.folder(home, host.tenant_id, repository_id)
    received = {base: Listing(waiting, newest.borg_id, base).received for base in ("", *known[-1:])}
    base = known[-1] if known else None
    return WantedOut(archive=newest.borg_id, base=base, received=received, more=max(0, (more or 0) - 1))


def take(
    session: Session,
    home: Path,
    host: Host,
    repository_id: uuid.UUID,
    borg_id: str,
    *,
    piece: bytes,
    base: str,
    offset: int,
    last: bool,
) -> int:
    """Take in a piece of an archive's listing; return how many bytes are here.

    Raises NotFound for no such archive of the host, Conflict, also where the catalogue is off, TooLarge.
    """
    check_on(session, host)
    archive = session.scalar(
        select(Archive).where(
            Archive.repository_id == repository_id, Archive.borg_id == borg_id, Archive.host_id == host.id
        )
    )
    if archive is None:
        raise NotFound("there is no such archive of this host: check its run in first")
    if archive.catalogue == "indexed":
        return offset + len(piece)
    listing = Listing(listings.folder(home, host.tenant_id, repository_id), borg_id, base)
    size = listings.receive(listing, data_key(session, host.tenant_id), offset, piece, last=last)
    if last:
        archive.catalogue, archive.catalogue_error = "waiting", ""
        touch(session, host.tenant_id, "archives")
    return size


def index_next(database: Database, home: Path) -> bool:
    """Index the oldest listing that waits; whether there was one. Each step may be killed and is repeated.

    A listing that cannot be taken over is set aside as failed, so that others go on. Raises what passes:
    a database that is busy, a disk that is full.
    """
    with database.session() as session:
        query = select(Archive).where(Archive.catalogue == "waiting").order_by(Archive.started_at, Archive.id)
        archive = session.scalar(query.limit(1))
        if archive is None:
            return False
    try:
        state, error = _take_over(database, home, archive)
    except sqlite.OperationalError:
        raise  # busy, or the disk is full: later
    except sqlite.DatabaseError as damage:
        log.warning("archive %s: its store cannot be read: %s", archive.name, damage)
        state, error = "failed", DAMAGED
    except Exception as fault:
        if _passes(fault):
            raise
        log.exception("archive %s: its listing is set aside", archive.name)
        state, error = "failed", SET_ASIDE
    with database.session(writes=True) as session:
        row = session.get_one(Archive, archive.id)
        row.catalogue, row.catalogue_error = state, error[:500]
        touch(session, archive.tenant_id, "archives")
    for each in listings.folder(home, archive.tenant_id, archive.repository_id).glob(f"{archive.borg_id}.*"):
        each.unlink(missing_ok=True)
    return True


def _passes(fault: Exception) -> bool:
    """Whether a fault is the machine's or the database's of the moment, and no listing's."""
    return isinstance(fault, DBAPIError) or (isinstance(fault, OSError) and fault.errno in LATER)


def _take_over(database: Database, home: Path, archive: Archive) -> tuple[str, str]:
    with database.session() as session:
        key = data_key(session, archive.tenant_id)
        store = open_store(session, home, archive.tenant_id, archive.repository_id)
        grown = _grown(session, archive, store)
    with store:
        return _index(store, home, archive, key, grown)


def _grown(session: Session, archive: Archive, store: Store) -> int | None:
    """Return by how many files an archive is larger than the newest one that is indexed."""
    newest = next(reversed(store.numbers(str(archive.repository_id))), "")
    before = session.scalar(
        select(Archive.files).where(Archive.repository_id == archive.repository_id, Archive.borg_id == newest)
    )
    return None if before is None or archive.files is None else archive.files - before


def _index(store: Store, home: Path, archive: Archive, key: bytes, grown: int | None) -> tuple[str, str]:
    repository = str(archive.repository_id)
    listing = listings.find(listings.folder(home, archive.tenant_id, archive.repository_id), archive.borg_id)
    known = store.numbers(repository)
    if archive.borg_id in known:
        return "indexed", ""
    if listing is None:
        return "none", "its listing was lost; the host sends it again"
    if listing.base and next(reversed(known), "") != listing.base:
        return "none", "its listing refers to an archive that is not indexed; the host sends all"
    gone: list[bytes] = []
    names: dict[bytes, set[bytes]] = {}
    try:
        store.index(
            repository,
            archive.borg_id,
            archive.started_at.timestamp(),
            listings.read(listing.pieces(key), gone.append, names),
            complete=not listing.base,
            missing=gone,
            names=names,
            grown=grown,
        )
    except (Incomplete, OutOfOrder) as error:
        return NOT_INDEXED[type(error)]
    except (Invalid, CannotOpen) as error:
        log.warning("archive %s: %s", archive.name, error)
        return "failed", str(error)
    return "indexed", ""


def forget_next(database: Database, home: Path) -> bool:
    """Drop what only archives held that are gone, for one repository; whether there was one.

    A repository whose part cannot be changed is left as it is, so that others go on.
    """
    gone = (Archive.gone_at.is_not(None), Archive.catalogue == "indexed")
    with database.session() as session:
        archive = session.scalar(select(Archive).where(*gone).limit(1))
        if archive is None:
            return False
        owner = Archive.repository_id == archive.repository_id
        ids = list(session.scalars(select(Archive.id).where(owner, *gone)))
        living = list(session.scalars(select(Archive.borg_id).where(owner, Archive.gone_at.is_(None))))
    try:
        with database.session() as session:
            store = open_store(session, home, archive.tenant_id, archive.repository_id)
        with store:
            store.forget_archives(str(archive.repository_id), living)
    except sqlite.OperationalError:
        raise
    except sqlite.DatabaseError as damage:  # a rebuild asks for none of them
        log.warning("the store of %s cannot be read: %s", archive.repository_id, damage)
    except Exception as fault:
        if _passes(fault):
            raise
        log.exception("the catalogue's part of %s keeps archives that are gone", archive.repository_id)
    with database.session(writes=True) as session:
        for archive_id in ids:
            session.get_one(Archive, archive_id).catalogue = "none"
        touch(session, archive.tenant_id, "archives")
    return True


def rename(session: Session, home: Path, archive: Archive, borg_id: str, name: str) -> None:
    """Follow a rename, which gives an archive another id: its row, its part of the catalogue.

    Telling twice changes nothing.
    """
    if archive.borg_id != borg_id:
        known = Archive.repository_id == archive.repository_id, Archive.borg_id == borg_id
        if session.scalar(select(Archive.id).where(*known)) is not None:
            raise Conflict("another archive of this repository has the new id already")
        if archive.catalogue == "indexed":
            with open_store(session, home, archive.tenant_id, archive.repository_id) as store:
                store.rename_archive(str(archive.repository_id), archive.borg_id, borg_id)
        folder = listings.folder(home, archive.tenant_id, archive.repository_id)
        for each in folder.glob(f"{archive.borg_id}.*"):
            each.unlink(missing_ok=True)  # sealed to its name: the host sends it again
        if archive.catalogue == "waiting":
            archive.catalogue = "wanted"
    archive.borg_id, archive.name = borg_id, name
    archive.protected = name.startswith(PROTECTED)
    archive.gone_at = None
    touch(session, archive.tenant_id, "archives")


def follow_renames(
    session: Session, home: Path, host: Host, repository_id: uuid.UUID, renamed: Collection[RenamedIn]
) -> None:
    """Follow what a host says its archives are called now; ids that are not known here are left out."""
    own = Archive.repository_id == repository_id, Archive.host_id == host.id
    for each in renamed:
        archive = session.scalar(select(Archive).where(*own, Archive.borg_id == each.was))
        taken = session.scalar(select(Archive.id).where(*own, Archive.borg_id == each.now))
        if archive is not None and taken is None:
            rename(session, home, archive, each.now, each.name)


def rebuild(session: Session, home: Path, repository: Repository) -> None:
    """Drop a repository's part of the catalogue; its host sends all its archives' listings, oldest first.

    A store that is damaged goes as a whole, and all repositories that share it are built anew.
    Raises Conflict while an archive is being taken over, and where the policy has the catalogue off.
    """
    check_on(session, session.get_one(Host, repository.host_id))
    owners = [repository.id]
    try:
        with open_store(session, home, repository.tenant_id, repository.id) as store:
            store.drop(str(repository.id))
    except sqlite.DatabaseError as error:
        if _is_locked(error):
            raise Conflict("the catalogue is taking an archive over: try again in a minute") from error
        log.warning("the catalogue's store of %s cannot be read and is made anew: %s", repository.id, error)
        owners = drop_store(session, home, repository)
    want_anew(session, owners)
    touch(session, repository.tenant_id, "archives")


def want_anew(session: Session, owners: Collection[uuid.UUID]) -> None:
    """Want all archives of repositories of which nothing is stored any more."""
    rows = update(Archive).where(Archive.repository_id.in_(owners))
    session.execute(rows.where(Archive.gone_at.is_(None)).values(catalogue="wanted", catalogue_error=""))
    session.execute(rows.where(Archive.gone_at.is_not(None)).values(catalogue="none", catalogue_error=""))


def drop_store(session: Session, home: Path, repository: Repository) -> list[uuid.UUID]:
    """Remove the store that holds a repository's part; return the repositories that shared it, with it."""
    shard = repository.id.int % SHARDS
    path = _path(home, repository.tenant_id, shard)
    for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        each.unlink(missing_ok=True)
    own = session.scalars(select(Repository.id).where(Repository.tenant_id == repository.tenant_id))
    return [each for each in own if each.int % SHARDS == shard]


# ---- looking


def list_files(
    session: Session, home: Path, archive: Archive, path: bytes, *, after: bytes = b"", limit: int = SHOWN
) -> list[FileOut]:
    """Return up to `limit` entries of a directory, by name.

    Raises Conflict where the archive is not indexed, NotFound where it has no such directory.
    """
    with _reading(session, home, archive.tenant_id, archive.repository_id.int % SHARDS) as store:
        number, repository = _number(session, store, archive), str(archive.repository_id)
        found = store.list_directory(repository, number, path, after=after, limit=limit)
        if not found and not after and not store.holds_directory(repository, number, path):
            raise NotFound(
                f"this archive has no folder {show(path)}: look in the one above, or another archive"
            )
    return [_file(entry) for entry in found]


def list_versions(session: Session, home: Path, archive: Archive, path: bytes) -> list[VersionOut]:
    """Return the versions of a path in an archive's repository, newest first, with archives that hold them."""
    with _reading(session, home, archive.tenant_id, archive.repository_id.int % SHARDS) as store:
        found = store.versions(str(archive.repository_id), path)
        numbers = store.numbers(str(archive.repository_id))
    if not found:
        check_on(session, session.get_one(Host, archive.host_id))
    archives = _archives(session, archive.repository_id, numbers)
    versions = []
    for entry in found:
        held = [number for number in archives if entry.first <= number <= (entry.last or number)]
        if held:
            newest, oldest = archives[max(held)], archives[min(held)]
            last = None if entry.last is None else newest.started_at
            versions.append(
                VersionOut(
                    **_file(entry).model_dump(),
                    archive_id=newest.id,
                    first_at=oldest.started_at,
                    last_at=last,
                )
            )
    return versions


def compare(
    session: Session,
    home: Path,
    old: Archive,
    new: Archive,
    *,
    below: bytes = b"/",
    after: bytes = b"",
    limit: int = SHOWN,
) -> list[DifferenceOut]:
    """Return up to `limit` paths that differ between two archives of a repository.

    Raises Invalid, Conflict, and NotFound where neither has such a directory.
    """
    if old.repository_id != new.repository_id:
        raise Invalid("the archives are of two repositories: choose two of one host's", field="with")
    with _reading(session, home, old.tenant_id, old.repository_id.int % SHARDS) as store:
        first, second = _number(session, store, old), _number(session, store, new)
        swap = first > second
        low, high = sorted((first, second))
        repository = str(old.repository_id)
        found = store.compare(repository, low, high, below=below, after=after, limit=limit)
        if (
            not found
            and not after
            and not any(store.holds_directory(repository, n, below) for n in (low, high))
        ):
            raise NotFound(f"neither of the archives has a folder {show(below)}: compare the one above")
    return [_difference(each, swap=swap) for each in found]


def _difference(found: Difference, *, swap: bool) -> DifferenceOut:
    """Describe a difference; swapped where the older archive is what another one is compared to."""
    kind, size = found.kind, found.old_size
    told = _file(found.entry)
    if swap and kind == "changed":
        told.size, size = (size or 0), told.size
    elif swap:
        kind, size = ("removed", told.size) if kind == "added" else ("added", None)
    return DifferenceOut(**told.model_dump(), kind=kind, old_size=size)


def find(
    session: Session,
    home: Path,
    tenant_id: uuid.UUID,
    text: str,
    *,
    hosts: Collection[uuid.UUID] | None = None,
    min_size: int | None = None,
    max_size: int | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
    limit: int = SHOWN,
) -> list[FoundOut]:
    """Return up to `limit` paths of all archives that fit a path, a glob or a part of a name.

    Names that are just the text come first, then what was changed last. Raises Invalid for a text that asks
    for nothing, or for too much to look through.
    """
    sought = replace(
        _sought(text),
        size=(min_size, max_size),
        mtime=(int(after.timestamp()) if after else None, int(before.timestamp()) if before else None),
    )
    shards: Collection[int] = range(SHARDS)
    if hosts is not None:
        own = select(Repository.id).where(Repository.tenant_id == tenant_id, Repository.host_id.in_(hosts))
        ids = list(session.scalars(own))
        sought = replace(sought, repositories=[str(each) for each in ids])
        shards = {each.int % SHARDS for each in ids}
    hits = _search(session, home, tenant_id, sought, shards=shards, limit=limit)
    keys = {(uuid.UUID(hit.repository), hit.borg_id) for hit in hits}
    query = select(Archive, Host.name).join(Host, Host.id == Archive.host_id)
    query = query.where(tuple_(Archive.repository_id, Archive.borg_id).in_(list(keys)))
    archives = {(str(row.repository_id), row.borg_id): (row, host) for row, host in session.execute(query)}
    return [
        _found(hit, *archives[hit.repository, hit.borg_id])
        for hit in hits
        if (hit.repository, hit.borg_id) in archives
    ]


def _search(
    session: Session,
    home: Path,
    tenant_id: uuid.UUID,
    sought: Wanted,
    *,
    shards: Collection[int],
    limit: int,
) -> list[Found]:
    deadline = time.monotonic() + SEARCH_SECONDS

    def ask(shard: int, most: int) -> list[Found]:
        with _reading(session, home, tenant_id, shard) as store:
            return store.search(sought, limit=most, deadline=deadline)

    try:
        hits = ask_all([each for each in shards if _path(home, tenant_id, each).exists()], limit, ask)
    except OutOfTime as error:
        raise Invalid(
            "this takes too long: say three letters of the name or more, its folder, or a host", field="q"
        ) from error
    names = {word.encode() for word in sought.words} if sought.pattern is None else set()
    hits.sort(key=lambda hit: (base(hit.entry.path) not in names, -hit.entry.mtime, hit.entry.path))
    return hits[:limit]


def _sought(text: str) -> Wanted:
    """Read what a person typed: a path (with /), a glob (with * or ?), or a part of a name."""
    text = text.strip()
    folder, _, name = text.rpartition("/")
    if re.search(r"[*?\[]", text):
        literal = [part for part in re.split(r"[*?]|\[[^]]*\]", name) if part]
        anchored = text if text.startswith("/") else f"*/{text}"
        begins = re.match(r"[^*?[\x80-\U0010ffff]*/", text)  # letters that are no ASCII have no case for SQLite
        return Wanted(
            literal,
            begins[0] if begins else "",
            pattern=re.compile(fnmatch.translate(anchored), re.IGNORECASE | re.DOTALL),
            glob=name.lower() if name.isascii() and not re.search(r"[?\[]", name) else "",
        )
    if not name and not folder:
        raise Invalid("say what to look for: a part of a name, a path, or a glob such as *.conf", field="q")
    if not name:  # etc/nginx/ asks for the folder itself
        folder, _, name = folder.rpartition("/")
    rooted = text.startswith("/")
    return Wanted([name], f"{folder}/" if folder or rooted else "")


def _number(session: Session, store: Store, archive: Archive) -> int:
    number = store.numbers(str(archive.repository_id)).get(archive.borg_id)
    if number is None:
        check_on(session, session.get_one(Host, archive.host_id))
        raise Conflict("this archive is not in the catalogue: browse it on the host, or rebuild the catalogue")
    return number


def _archives(session: Session, repository_id: uuid.UUID, numbers: dict[str, int]) -> dict[int, Archive]:
    query = select(Archive).where(Archive.repository_id == repository_id)
    return {numbers[row.borg_id]: row for row in session.scalars(query) if row.borg_id in numbers}


def _file(entry: Entry) -> FileOut:
    return FileOut(
        path=show(entry.path),
        ref=to_ref(entry.path),
        name=show(entry.path.rpartition(b"/")[2]),
        mode=entry.mode,
        size=entry.bytes if entry.is_directory else entry.size,
        files=entry.files,
        modified_at=datetime.fromtimestamp(max(min(entry.mtime, 2**36), -(2**35)), UTC),
        is_directory=entry.is_directory,
        changed=entry.changed,
    )


def _found(hit: Found, archive: Archive, host: str) -> FoundOut:
    return FoundOut(
        **_file(hit.entry).model_dump(),
        host=host,
        host_id=archive.host_id,
        repository_id=archive.repository_id,
        archive_id=archive.id,
        archived_at=archive.started_at,
        gone=not hit.lives,
        older=hit.lives and hit.entry.last is not None,
    )


def show(path: bytes) -> str:
    """Return a path as people read it; bytes that are no UTF-8 become a mark."""
    return path.decode(errors="replace")


def to_ref(path: bytes) -> str:
    """Return a path as URLs carry it, whatever its bytes."""
    return base64.urlsafe_b64encode(path).decode().rstrip("=")


def from_ref(ref: str) -> bytes:
    """Return the path of a reference; "" is the root. Raises Invalid when it is none of ours."""
    try:
        path = base64.b64decode(ref + "=" * (-len(ref) % 4), b"-_", validate=True)
    except ValueError as error:
        raise Invalid(NO_REF, field="ref") from error
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in path:
        raise Invalid(NO_REF, field="ref")
    return b"/" + b"/".join(parts)


def name_ref(row: FileOut) -> str:
    """Return the reference of an entry's last part, which is where the next page goes on."""
    return to_ref(b"/" + from_ref(row.ref).rpartition(b"/")[2])
