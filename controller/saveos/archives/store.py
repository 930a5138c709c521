"""The catalogue's store: which files every archive holds, as intervals: an unchanged file costs nothing.

A store is one encrypted SQLite file (SQLCipher) that several repositories share, apart from the main
database. A path is a directory, a name and the archives between which one version of it lived:

    entries(repository, directory, name, first, last, size, mtime, mode)

`first` and `last` number a repository's archives in the order of their time; `last` is empty while the
version lives. Names and directories are stored once for all repositories of a store, and names are
searched by a trigram index (FTS5); `places` leads from a name to its paths, whatever the number of their
versions. Names are bytes: whatever Linux allows survives. See decision 0012.
"""

import json
import re
import stat
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlcipher3.dbapi2 as sqlite

SCHEMA = """
CREATE TABLE IF NOT EXISTS repositories(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS archives(
    repository INTEGER NOT NULL, number INTEGER NOT NULL, borg_id TEXT NOT NULL, started REAL NOT NULL,
    gone INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY(repository, number), UNIQUE(repository, borg_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS directories(id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS names(id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, name BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS names_by_hash ON names(hash);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(name, tokenize='trigram', content='', columnsize=0);
CREATE TABLE IF NOT EXISTS entries(
    repository INTEGER NOT NULL, directory INTEGER NOT NULL, name INTEGER NOT NULL, first INTEGER NOT NULL,
    last INTEGER, size INTEGER NOT NULL, mtime INTEGER NOT NULL, mode INTEGER NOT NULL,
    PRIMARY KEY(repository, directory, name, first)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS places(
    name INTEGER NOT NULL, repository INTEGER NOT NULL, directory INTEGER NOT NULL,
    PRIMARY KEY(name, repository, directory)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals(
    repository INTEGER NOT NULL, directory INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER,
    files INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY(repository, directory, first)) WITHOUT ROWID;
"""
OLD = "SELECT 1 FROM sqlite_master WHERE type='index' AND name='entries_by_name'"
UPGRADE = """
CREATE TABLE IF NOT EXISTS places(
    name INTEGER NOT NULL, repository INTEGER NOT NULL, directory INTEGER NOT NULL,
    PRIMARY KEY(name, repository, directory)) WITHOUT ROWID;
INSERT OR IGNORE INTO places SELECT name, repository, directory FROM entries;
DROP INDEX entries_by_name;
ALTER TABLE names RENAME TO old_names;
CREATE TABLE names(id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, name BLOB NOT NULL);
INSERT INTO names SELECT id, hash_of(name), name FROM old_names;
DROP TABLE old_names;
"""  # earlier stores had an index with a row for every version, and each name twice
INCOMING = """
CREATE TEMP TABLE IF NOT EXISTS incoming(
    directory INTEGER NOT NULL, name INTEGER NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
    mode INTEGER NOT NULL, PRIMARY KEY(directory, name)) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS missing(
    directory INTEGER NOT NULL, name INTEGER NOT NULL, PRIMARY KEY(directory, name)) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS closing(
    directory INTEGER NOT NULL, name INTEGER NOT NULL, first INTEGER NOT NULL,
    PRIMARY KEY(directory, name)) WITHOUT ROWID;
"""
T = TypeVar("T")
ROOT = b"/"
LOCK_SECONDS = 30.0  # that a writer waits for another
IMPLIED = (
    stat.S_IFDIR
)  # mode of a directory above a source: Borg stores the source, and nothing of what it is in
TRIGRAM = 3  # characters that the index of names needs
LIVES = "e.first <= :number AND (e.last IS NULL OR e.last >= :number)"

HELD = (
    "a.repository={0}.repository AND NOT a.gone"
    " AND a.number >= {0}.first AND a.number <= coalesce({0}.last, a.number)"
)


class Item(NamedTuple):
    """One path of an archive: absolute, without a slash at its end. `mtime` in seconds, `mode` as st_mode."""

    path: bytes
    size: int
    mtime: int
    mode: int


@dataclass(frozen=True)
class Entry:
    """One version of a path. `files` and `bytes` are a listed directory's, with all below it."""

    path: bytes
    size: int
    mtime: int
    mode: int
    first: int
    last: int | None
    files: int | None = None
    bytes: int = 0
    changed: str = ""  # new | changed, against the archive before

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True)
class Indexed:
    """What one archive added to the catalogue."""

    number: int
    added: int
    ended: int


class Incomplete(Exception):
    """A listing of changes that does not explain how many files the archive has: all must be listed."""


@dataclass(frozen=True)
class Wanted:
    """What a search looks for: parts of a name, a part of its folder, a pattern of the whole path.

    `folder` ends with a slash; with one in front the path begins so. `glob` is what names must fit, for
    SQLite's GLOB, in lower case; it only spares work where there is a pattern. `size` in bytes and `mtime`
    in seconds are (from, to), either of them open.
    """

    words: Sequence[str] = ()
    folder: str = ""
    pattern: re.Pattern[str] | None = None
    glob: str = ""
    repositories: Collection[str] | None = None
    size: tuple[int | None, int | None] = (None, None)
    mtime: tuple[int | None, int | None] = (None, None)

    def fits(self, path: bytes) -> bool:
        """Whether a path fits the pattern."""
        return self.pattern is None or bool(self.pattern.fullmatch(path.decode(errors="surrogateescape")))


class Found(NamedTuple):
    """A version that a search found: its repository, the newest archive that holds it, and itself.

    `lives` says whether the newest archive has the path, in this version or another one.
    """

    repository: str
    borg_id: str
    entry: Entry
    lives: bool


class Difference(NamedTuple):
    """A path that differs: added, removed or changed; the version that tells of it, the size before."""

    kind: str
    entry: Entry
    old_size: int | None


class OutOfTime(Exception):
    """A search that looks at too much to end in the time it was given."""


class OutOfOrder(Exception):
    """An archive older than the newest one that is indexed: its repository's part must be built anew."""


class Store:
    """One store, opened. Not for several threads at once; several processes may open the same file."""

    def __init__(self, path: Path, key: bytes, *, cache_mib: int = 64) -> None:
        """Open or make the store at `path` with a 32-byte key. Raises sqlite.DatabaseError on a wrong one."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._key = f"PRAGMA key = \"x'{key.hex()}'\""
        self._connection = sqlite.connect(str(path), isolation_level=None, timeout=LOCK_SECONDS)
        self._run(self._key)
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",  # it can be built anew, so a power cut may cost the last archive
            f"cache_size=-{cache_mib * 1024}",
            "temp_store=MEMORY",
        ):
            self._run(f"PRAGMA {pragma}")
        if self._one(OLD):
            self._upgrade()
        self._connection.executescript(SCHEMA + INCOMING)
        path.chmod(0o600)

    def _upgrade(self) -> None:
        self._connection.create_function("hash_of", 1, hash_of)
        with self._writing():
            for statement in UPGRADE.split(";") if self._one(OLD) else ():
                self._run(statement)

    def copy_to(self, target: Path) -> None:
        """Write a consistent copy under the same key, without holding up who writes here."""
        copy = sqlite.connect(str(target), isolation_level=None)
        try:
            copy.execute(self._key)
            self._connection.backup(copy, pages=2000, sleep=0.01)
            copy.execute("PRAGMA journal_mode=DELETE")
        finally:
            copy.close()
        target.chmod(0o600)

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- writing

    def index(
        self,
        repository: str,
        borg_id: str,
        started: float,
        items: Iterable[Item],
        *,
        complete: bool,
        missing: Iterable[bytes] = (),
        names: Mapping[bytes, Collection[bytes]] | None = None,
        grown: int | None = None,
    ) -> Indexed | None:
        """Take over an archive: all its items, or with `complete` false what changed since the one before.

        `missing` are paths that are gone, `names` by directory all names that are left in it; both may be
        filled while `items` is read. `grown` is by how many files the archive is larger than the one
        before, where that is known. None when the archive is known. All in one transaction.
        Raises OutOfOrder for one that is older than the newest known, Incomplete when more is gone.
        """
        with self._writing():
            owner = self._repository(repository)
            if self._one("SELECT 1 FROM archives WHERE repository=? AND borg_id=?", owner, borg_id):
                return None
            newest = self._one(
                "SELECT number, started FROM archives WHERE repository=? ORDER BY number DESC LIMIT 1", owner
            )
            if newest and started < newest[1]:
                raise OutOfOrder
            number = newest[0] + 1 if newest else 1
            for table in ("incoming", "missing", "closing"):
                self._run(f"DELETE FROM {table}")
            self._take(items, missing, complete=complete)
            self._miss(owner, names or {})
            if not complete and grown is not None and self._grows(owner) != grown:
                raise Incomplete
            outcome = self._apply(owner, number, complete=complete)
            self._run("INSERT INTO archives VALUES(?, ?, ?, ?, 0)", owner, number, borg_id, started)
        self._run("PRAGMA wal_checkpoint(TRUNCATE)")  # a first listing may have made it as large as the store
        return outcome

    def rename_archive(self, repository: str, borg_id: str, new: str) -> None:
        """Note that Borg knows an archive by another id now; its content is what it was."""
        with self._writing():
            owner = self._repository(repository)
            if not self._one("SELECT 1 FROM archives WHERE repository=? AND borg_id=?", owner, new):
                self._run("UPDATE archives SET borg_id=? WHERE repository=? AND borg_id=?", new, owner, borg_id)

    def forget_archives(self, repository: str, living: Iterable[str]) -> int:
        """Drop versions that lived only in archives that are gone; `living` are the ids of those there are.

        Returns how many versions were dropped.
        """
        with self._writing():
            owner = self._repository(repository)
            keep = set(living)
            known = self._all("SELECT number, borg_id FROM archives WHERE repository=? AND NOT gone", owner)
            ended = [(owner, number) for number, borg_id in known if borg_id not in keep]
            self._connection.executemany("UPDATE archives SET gone=1 WHERE repository=? AND number=?", ended)
            unheld = (
                "DELETE FROM {0} WHERE repository=:owner AND NOT EXISTS ("
                "SELECT 1 FROM archives a WHERE a.repository=:owner AND NOT a.gone"
                " AND a.number >= {0}.first AND ({0}.last IS NULL OR a.number <= {0}.last))"
                " AND {0}.last IS NOT NULL"
            )
            self._run(unheld.format("totals"), {"owner": owner})
            dropped = self._all(f"{unheld.format('entries')} RETURNING name, directory", {"owner": owner})
            self._connection.executemany(
                "DELETE FROM places WHERE name=?1 AND repository=?2 AND directory=?3 AND NOT EXISTS ("
                "SELECT 1 FROM entries WHERE repository=?2 AND directory=?3 AND name=?1)",
                ((name, owner, directory) for name, directory in set(dropped)),
            )
            self._forget_names({name for name, _ in dropped})
            self._connection.executemany(
                "DELETE FROM directories WHERE id=?1 AND NOT EXISTS (SELECT 1 FROM repositories r WHERE"
                " EXISTS (SELECT 1 FROM entries e WHERE e.repository=r.id AND e.directory=?1)"
                " OR EXISTS (SELECT 1 FROM totals t WHERE t.repository=r.id AND t.directory=?1))",
                ((directory,) for directory in {directory for _, directory in dropped}),
            )
        return len(dropped)

    def _forget_names(self, names: Iterable[int]) -> None:
        """Drop those of some names that no path has any more, from the index too: it is told what it held."""
        for number in names:
            if not self._one("SELECT 1 FROM places WHERE name=?", number):
                name = self._one("DELETE FROM names WHERE id=? RETURNING name", number)[0]
                held = name.decode(errors="replace")
                self._run("INSERT INTO words(words, rowid, name) VALUES('delete', ?, ?)", number, held)

    def drop(self, repository: str, *, names: bool = False) -> None:
        """Drop a repository's part; what other repositories share stays.

        Names and folders stay for the next listing, which mostly has them again; with `names` those that no
        repository has go too, which looks at all of the store.
        """
        with self._writing():
            owner = self._repository(repository)
            self._run(
                "DELETE FROM places WHERE (name, repository, directory) IN ("
                "SELECT name, repository, directory FROM entries WHERE repository=?)",
                owner,
            )
            for table in ("entries", "totals", "archives"):
                self._run(f"DELETE FROM {table} WHERE repository=?", owner)
            if names:
                unused = "SELECT id FROM names n WHERE NOT EXISTS (SELECT 1 FROM places WHERE name=n.id)"
                self._forget_names([number for (number,) in self._all(unused)])
                self._run(
                    "DELETE FROM directories WHERE id NOT IN (SELECT directory FROM places)"
                    " AND id NOT IN (SELECT directory FROM totals)"
                )
        if names:
            self._run("PRAGMA wal_checkpoint(TRUNCATE)")  # it still held what is gone

    def _take(self, items: Iterable[Item], missing: Iterable[bytes], *, complete: bool) -> None:
        places = _Places(self)
        put = "INSERT OR REPLACE INTO incoming VALUES(?, ?, ?, ?, ?)"
        self._connection.executemany(
            put, ((*places.of(item.path), item.size, item.mtime, item.mode) for item in items)
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO missing VALUES(?, ?)", (places.of(path) for path in missing)
        )
        if complete:  # else they are known already: other sources are listed in full
            self._connection.executemany(
                "INSERT OR IGNORE INTO incoming VALUES(?, ?, 0, 0, ?)",
                ((*places.of(path), IMPLIED) for path in places.above()),
            )

    def _miss(self, owner: int, names: Mapping[bytes, Collection[bytes]]) -> None:
        """Note what is gone from directories of which all names are known, with all below it."""
        for path, left in names.items():
            living = self._all(
                "SELECT e.directory, e.name, n.name, e.mode, i.mode FROM entries e JOIN names n ON n.id=e.name"
                " LEFT JOIN incoming i ON i.directory=e.directory AND i.name=e.name"
                " WHERE e.repository=? AND e.directory=(SELECT id FROM directories WHERE path=?)"
                " AND e.last IS NULL",
                owner,
                path,
            )
            for directory, number, name, mode, now in living:
                gone = name not in left
                if gone:
                    self._run("INSERT OR REPLACE INTO missing VALUES(?, ?)", directory, number)
                if stat.S_ISDIR(mode) and (gone or (now is not None and not stat.S_ISDIR(now))):
                    inside = join(path, name)
                    self._run(
                        "INSERT OR REPLACE INTO missing SELECT e.directory, e.name FROM directories d"
                        " CROSS JOIN entries e ON e.repository=? AND e.directory=d.id AND e.last IS NULL"
                        " WHERE d.path=? OR (d.path > ? AND d.path < ?)",
                        owner,
                        inside,
                        inside + b"/",
                        inside + b"0",  # the byte after the slash
                    )

    def _grows(self, owner: int) -> int:
        """Return how many files what was taken adds. Borg counts neither directories nor further hard links."""
        regular = "{0}.mode & 0xF000 = 0x8000"
        new = self._one(
            "SELECT count(*) FROM incoming i LEFT JOIN entries e ON e.repository=? AND e.directory=i.directory"
            f" AND e.name=i.name AND e.last IS NULL AND {regular.format('e')}"
            f" WHERE e.name IS NULL AND {regular.format('i')}",
            owner,
        )[0]
        gone = self._one(
            "SELECT count(*) FROM missing m CROSS JOIN entries e ON e.repository=? AND e.directory=m.directory"
            f" AND e.name=m.name AND e.last IS NULL AND {regular.format('e')}",
            owner,
        )[0]
        return int(new) - int(gone)

    def _apply(self, owner: int, number: int, *, complete: bool) -> Indexed:
        """Close the versions that ended, open those that began, and carry the directories' totals on."""
        values = {"owner": owner, "number": number}
        differs = "i.size IS NOT e.size OR i.mtime IS NOT e.mtime OR i.mode IS NOT e.mode"
        if complete:
            ended = self._run(
                "INSERT INTO closing SELECT e.directory, e.name, e.first FROM entries e"
                " LEFT JOIN incoming i ON i.directory=e.directory AND i.name=e.name"
                f" WHERE e.repository=:owner AND e.last IS NULL AND (i.name IS NULL OR {differs})",
                values,
            ).rowcount
        else:
            ended = self._run(
                "INSERT INTO closing SELECT e.directory, e.name, e.first FROM incoming i CROSS JOIN entries e"
                " ON e.repository=:owner AND e.directory=i.directory AND e.name=i.name AND e.last IS NULL"
                f" WHERE {differs}"
                " UNION SELECT e.directory, e.name, e.first FROM missing m CROSS JOIN entries e"
                " ON e.repository=:owner AND e.directory=m.directory AND e.name=m.name AND e.last IS NULL",
                values,
            ).rowcount
        sums = self._sums(
            "SELECT e.directory, -count(*), -sum(e.size) FROM closing c CROSS JOIN entries e"
            " ON e.repository=:owner AND e.directory=c.directory AND e.name=c.name AND e.first=c.first"
            " WHERE e.mode & 0xF000 != 0x4000 GROUP BY e.directory",
            values,
        )
        self._run(
            "UPDATE entries SET last=:number - 1 WHERE repository=:owner AND last IS NULL"
            " AND (directory, name) IN (SELECT directory, name FROM closing)",
            values,
        )
        fresh = (
            " FROM incoming i LEFT JOIN entries e ON e.repository=:owner AND e.directory=i.directory"
            " AND e.name=i.name AND e.last IS NULL WHERE e.name IS NULL"
        )
        more = self._sums(
            f"SELECT i.directory, count(*), sum(i.size) {fresh} AND i.mode & 0xF000 != 0x4000"
            " GROUP BY i.directory",
            values,
        )
        added = self._run(
            "INSERT INTO entries SELECT :owner, i.directory, i.name, :number, NULL, i.size, i.mtime, i.mode"
            + fresh,
            values,
        ).rowcount
        self._run(
            "INSERT OR IGNORE INTO places SELECT e.name, e.repository, e.directory FROM incoming i CROSS JOIN"
            " entries e ON e.repository=:owner AND e.directory=i.directory AND e.name=i.name"
            " AND e.first=:number",
            values,
        )
        for directory, (files, size) in more.items():
            before = sums.get(directory, (0, 0))
            sums[directory] = (before[0] + files, before[1] + size)
        self._carry_totals(owner, number, sums)
        return Indexed(number, added, ended)

    def _sums(self, statement: str, values: dict[str, int]) -> dict[int, tuple[int, int]]:
        return {row[0]: (row[1], row[2]) for row in self._all(statement, values)}

    def _carry_totals(self, owner: int, number: int, sums: dict[int, tuple[int, int]]) -> None:
        """Add each directory's change to its own total and to those above it."""
        below: dict[bytes, list[int]] = {}
        for directory, (files, size) in sums.items():
            if not files and not size:
                continue
            path = self._one("SELECT path FROM directories WHERE id=?", directory)[0]
            while True:
                total = below.setdefault(path, [0, 0])
                total[0] += files
                total[1] += size
                if path == ROOT:
                    break
                path = parent(path)
        for path, (files, size) in below.items():
            if not files and not size:
                continue
            directory = self._directory(path)
            old = self._one(
                "SELECT first, files, bytes FROM totals WHERE repository=? AND directory=? AND last IS NULL",
                owner,
                directory,
            )
            if old:
                self._run(
                    "UPDATE totals SET last=? WHERE repository=? AND directory=? AND first=?",
                    number - 1,
                    owner,
                    directory,
                    old[0],
                )
            now_files, now_size = files + (old[1] if old else 0), size + (old[2] if old else 0)
            if now_files:
                put = "INSERT INTO totals VALUES(?, ?, ?, NULL, ?, ?)"
                self._run(put, owner, directory, number, now_files, now_size)

    # ---- reading

    def numbers(self, repository: str) -> dict[str, int]:
        """Return the indexed archives of a repository that are not gone: {Borg's id: number}."""
        rows = self._all(
            "SELECT a.borg_id, a.number FROM archives a JOIN repositories r ON r.id=a.repository"
            " WHERE r.uuid=? AND NOT a.gone ORDER BY a.number",
            repository,
        )
        return dict(rows)

    def list_directory(
        self, repository: str, number: int, path: bytes, *, after: bytes = b"", limit: int = 200
    ) -> list[Entry]:
        """Return up to `limit` entries of a directory in an archive after the name `after`, by name."""
        before = (
            "SELECT max(a.number) FROM archives a WHERE a.repository=r.id AND NOT a.gone AND a.number < :number"
        )
        rows = self._all(
            f"WITH r AS (SELECT r.id, coalesce(({before}), 0) AS before FROM repositories r WHERE r.uuid=:uuid)"
            ", shown AS (SELECT n.name, n.id, e.repository, e.directory, e.size, e.mtime, e.mode, e.first,"
            " e.last, r.before FROM r CROSS JOIN entries e ON e.repository=r.id"
            f" AND e.directory=(SELECT id FROM directories WHERE path=:path) AND {LIVES}"
            " CROSS JOIN names n ON n.id=e.name WHERE n.name > :after ORDER BY n.name LIMIT :limit)"
            " SELECT s.name, s.size, s.mtime, s.mode, s.first, s.last,"
            " CASE WHEN s.mode & 0xF000 = 0x4000 THEN coalesce(e.files, 0) END, coalesce(e.bytes, 0),"
            " CASE WHEN s.before=0 OR s.first <= s.before THEN ''"
            " WHEN EXISTS (SELECT 1 FROM entries o WHERE o.repository=s.repository AND o.directory=s.directory"
            " AND o.name=s.id AND o.first <= s.before AND o.last >= s.before) THEN 'changed'"
            " ELSE 'new' END FROM shown s"
            " LEFT JOIN directories d ON s.mode & 0xF000 = 0x4000 AND d.path=CAST(:prefix || s.name AS BLOB)"
            f" LEFT JOIN totals e ON e.repository=s.repository AND e.directory=d.id AND {LIVES}"
            " ORDER BY s.name",
            {
                "uuid": repository,
                "number": number,
                "path": path,
                "prefix": join(path, b""),
                "after": after,
                "limit": limit,
            },
        )
        return [Entry(join(path, name), *rest) for name, *rest in rows]

    def holds_directory(self, repository: str, number: int, path: bytes) -> bool:
        """Whether an archive holds a directory of this path."""
        if path == ROOT:
            return True
        return any(
            entry.is_directory and entry.first <= number <= (number if entry.last is None else entry.last)
            for entry in self.versions(repository, path)
        )

    def total(self, repository: str, number: int, path: bytes = ROOT) -> tuple[int, int]:
        """Return how many files, and how many bytes, an archive holds below a directory."""
        return self._total(repository, number, path)

    def versions(self, repository: str, path: bytes) -> list[Entry]:
        """Return all versions of one path, newest first."""
        rows = self._all(
            "SELECT e.size, e.mtime, e.mode, e.first, e.last FROM entries e"
            " WHERE e.repository=(SELECT id FROM repositories WHERE uuid=?)"
            " AND e.directory=(SELECT id FROM directories WHERE path=?)"
            " AND e.name=(SELECT id FROM names WHERE hash=? AND name=?) ORDER BY e.first DESC",
            repository,
            parent(path),
            hash_of(base(path)),
            base(path),
        )
        return [Entry(path, *row) for row in rows]

    def compare(
        self, repository: str, old: int, new: int, *, below: bytes = ROOT, after: bytes = b"", limit: int = 200
    ) -> list[Difference]:
        """Return up to `limit` paths that differ between two archives, by path."""
        prefix = below.rstrip(b"/") + b"/"
        rows = self._all(
            "WITH d AS (SELECT e.*, CASE WHEN e.first <= :old THEN 0 ELSE 1 END AS side FROM entries e"
            " WHERE e.repository=(SELECT id FROM repositories WHERE uuid=:uuid) AND ("
            " (e.first <= :old AND e.last >= :old AND e.last < :new)"
            " OR (e.first > :old AND e.first <= :new AND (e.last IS NULL OR e.last >= :new))))"
            ", f AS (SELECT"
            " CAST((CASE p.path WHEN x'2F' THEN x'2F' ELSE p.path || x'2F' END) || n.name AS BLOB) AS path,"
            " max(d.side) AS side, count(*) AS sides,"  # the columns below are of the row with the most
            " sum(d.size * (d.side=0)) AS old_size,"
            " sum(d.mtime * (d.side=0)) AS old_mtime, sum(d.mode * (d.side=0)) AS old_mode,"
            " d.size, d.mtime, d.mode, d.first, d.last"
            " FROM d JOIN directories p ON p.id=d.directory JOIN names n ON n.id=d.name"
            " GROUP BY d.directory, d.name)"
            " SELECT path, side, sides, old_size, size, mtime, mode, first, last FROM f"
            " WHERE path > :after AND substr(path, 1, :length) = :prefix"
            " AND NOT (sides=2 AND old_size=size AND old_mtime=mtime AND old_mode=mode)"
            " ORDER BY path LIMIT :limit",
            {
                "uuid": repository,
                "old": old,
                "new": new,
                "after": after,
                "prefix": prefix,
                "length": len(prefix),
                "limit": limit,
            },
        )
        kinds = {(1, 1): "added", (0, 1): "removed", (1, 2): "changed"}
        return [
            Difference(kinds[side, sides], Entry(path, *rest), None if (side, sides) == (1, 1) else old_size)
            for path, side, sides, old_size, *rest in rows
        ]

    def search(self, wanted: "Wanted", *, limit: int = 200, deadline: float | None = None) -> list["Found"]:
        """Return up to `limit` paths that fit, each by its newest version that fits and that an archive holds.

        Names that are just what was sought come first, the others in no special order. Rows are read until
        there are enough of them, so that a name which all hosts have costs no more. Raises OutOfTime at the
        `deadline`, a moment of time.monotonic.
        """
        found = []
        with self._until(deadline):
            statement, values = _searching(wanted, by_folder=self._folder_leads(wanted))
            for uuid, borg_id, path, name, lives, *rest in self._run(statement, values):
                if not wanted.fits(join(path, name)):
                    continue
                found.append(Found(uuid, borg_id, Entry(join(path, name), *rest), bool(lives)))
                if len(found) == limit:
                    break
        return found

    # ---- inside

    def _folder_leads(self, wanted: Wanted) -> bool:
        """Whether looking into each folder that fits costs less than looking at each name."""
        if not wanted.folder or any(len(word) >= TRIGRAM for word in wanted.words):
            return False
        if not wanted.words:
            return True
        values: dict[str, Any] = {}
        folders = f"SELECT count(*) FROM directories p WHERE {_place(wanted, values)}"
        found, owners, names = self._one(
            f"SELECT ({folders}), (SELECT count(*) FROM repositories), (SELECT max(id) FROM names)", values
        )
        owners = owners if wanted.repositories is None else len(wanted.repositories)
        return bool(found * owners * 10 < (names or 0))

    def _total(self, repository: str, number: int, path: bytes) -> tuple[int, int]:
        row = self._one(
            "SELECT e.files, e.bytes FROM totals e"
            " WHERE e.repository=(SELECT id FROM repositories WHERE uuid=:uuid)"
            f" AND e.directory=(SELECT id FROM directories WHERE path=:path) AND {LIVES}",
            {"uuid": repository, "path": path, "number": number},
        )
        return (row[0], row[1]) if row else (0, 0)

    def _repository(self, repository: str) -> int:
        self._run("INSERT OR IGNORE INTO repositories(uuid) VALUES(?)", repository)
        return int(self._one("SELECT id FROM repositories WHERE uuid=?", repository)[0])

    def _directory(self, path: bytes) -> int:
        row = self._one("SELECT id FROM directories WHERE path=?", path)
        return int(row[0] if row else self._run("INSERT INTO directories(path) VALUES(?)", path).lastrowid)

    def _name(self, name: bytes) -> int:
        row = self._one("SELECT id FROM names WHERE hash=? AND name=?", hash_of(name), name)
        if row:
            return int(row[0])
        number = int(self._run("INSERT INTO names(hash, name) VALUES(?, ?)", hash_of(name), name).lastrowid)
        self._run("INSERT INTO words(rowid, name) VALUES(?, ?)", number, name.decode(errors="replace"))
        return number

    @contextmanager
    def _until(self, deadline: float | None) -> Iterator[None]:
        if deadline is not None:
            self._connection.set_progress_handler(lambda: time.monotonic() > deadline, 20_000)
        try:
            yield
        except sqlite.OperationalError as error:
            if "interrupted" in str(error):
                raise OutOfTime from error
            raise
        finally:
            self._connection.set_progress_handler(None, 0)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._run("ROLLBACK")
            raise
        self._run("COMMIT")

    def _run(self, statement: str, *values: Any) -> Any:
        bound = values[0] if len(values) == 1 and isinstance(values[0], dict) else values
        return self._connection.execute(statement, bound)

    def _one(self, statement: str, *values: Any) -> Any:
        return self._run(statement, *values).fetchone()

    def _all(self, statement: str, *values: Any) -> list[Any]:
        found: list[Any] = self._run(statement, *values).fetchall()
        return found


def _searching(wanted: Wanted, *, by_folder: bool) -> tuple[str, dict[str, Any]]:
    """Return the statement of a search, and its values.

    Names of three letters or more are led to by the index; else a folder leads, or every name is looked at.
    """
    values: dict[str, Any] = {}
    named, tests = _named(wanted, values)
    where, fits = _conditions(wanted, values)
    versions = "SELECT {0} FROM entries v WHERE v.repository={1}.repository AND v.directory={1}.directory"
    versions += " AND v.name={1}.name AND {2}"
    newest = f"e.first=({versions.format('max(v.first)', '{0}', ' AND '.join(fits))})"
    if by_folder:
        tables = (
            "directories p CROSS JOIN repositories r CROSS JOIN entries e ON e.repository=r.id"
            " AND e.directory=p.id CROSS JOIN names n ON n.id=e.name"
        )
        where.append(newest.format("e"))
    else:
        entry = " CROSS JOIN entries e ON e.repository=k.repository AND e.directory=k.directory"
        entry += f" AND e.name=k.name AND {newest.format('k')}"
        folder = " CROSS JOIN directories p ON p.id=k.directory"
        tables = f"{named or 'names n'} CROSS JOIN places k ON k.name=n.id"
        tables += " CROSS JOIN repositories r ON r.id=k.repository"
        tables += folder + entry if wanted.folder else entry + folder
    holder = f"SELECT a.borg_id FROM archives a WHERE {HELD.format('e')} ORDER BY a.number DESC LIMIT 1"
    statement = (
        f"SELECT r.uuid, ({holder}), p.path, n.name, EXISTS ({versions.format('1', 'e', 'v.last IS NULL')}),"
        " e.size, e.mtime, e.mode, e.first, e.last"
        f" FROM {tables} WHERE {' AND '.join([*tests, *where])}"
    )
    return statement, values


def _named(wanted: Wanted, values: dict[str, Any]) -> tuple[str, list[str]]:
    """Return what leads to the names that fit ("" where the index cannot), and tests of names."""
    long = [word for word in wanted.words if len(word) >= TRIGRAM]
    tests = []
    if wanted.glob:
        tests.append("lower(CAST(n.name AS TEXT)) GLOB :glob")
        values["glob"] = wanted.glob
    if not long:
        for at, word in enumerate(wanted.words):
            tests.append(f"instr(lower(CAST(n.name AS TEXT)), lower(:word{at}))")
            values[f"word{at}"] = word
        return "", tests
    values["long"] = " AND ".join('"' + word.replace('"', '""') + '"' for word in long)
    values |= {"hash": hash_of(long[0].encode()), "exact": long[0].encode()}
    exact = "SELECT id FROM names WHERE hash=:hash AND name=:exact"
    ids = f"{exact} UNION ALL SELECT rowid FROM words WHERE words MATCH :long AND rowid NOT IN ({exact})"
    return f"({ids}) h CROSS JOIN names n ON n.id=h.id", tests


def _conditions(wanted: Wanted, values: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return conditions of a path (its repository r, its folder p), and of a version v of it."""
    where, fits = ["1"], [f"EXISTS (SELECT 1 FROM archives a WHERE {HELD.format('v')})"]
    if wanted.repositories is not None:
        where.append("r.uuid IN (SELECT value FROM json_each(:repositories))")
        values["repositories"] = json.dumps(list(wanted.repositories))
    if wanted.folder:
        where.append(_place(wanted, values))
    for column, low, high in (("size", *wanted.size), ("mtime", *wanted.mtime)):
        for sign, name, bound in ((">=", "from", low), ("<=", "to", high)):
            if bound is not None:
                fits.append(f"v.{column} {sign} :{column}_{name}")
                values[f"{column}_{name}"] = bound
    return where, fits


def _place(wanted: Wanted, values: dict[str, Any]) -> str:
    """Return the condition of a folder p."""
    rooted = wanted.folder.startswith("/")
    values["folder"] = wanted.folder if rooted else f"/{wanted.folder}"
    return f"instr(lower(CAST(p.path AS TEXT) || '/'), lower(:folder)) {'= 1' if rooted else '> 0'}"


class _Places:
    """Numbers of directories and names while one archive is taken over."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._directories: dict[bytes, int] = {}
        self._names: dict[bytes, int] = {}

    def of(self, path: bytes) -> tuple[int, int]:
        """Return the numbers of a path's directory and name."""
        above, name = parent(path), base(path)
        directory = self._directories.get(above)
        if directory is None:
            directory = self._directories[above] = self._store._directory(above)
        number = self._names.get(name)
        if number is None:
            if len(self._names) >= 200_000:
                self._names.clear()
            number = self._names[name] = self._store._name(name)
        return directory, number

    def above(self) -> set[bytes]:
        """Return the directories of all paths so far, and those above them, without the root."""
        found: set[bytes] = set()
        for path in tuple(self._directories):
            part = path
            while part != ROOT and part not in found:
                found.add(part)
                part = parent(part)
        return found


def ask_all(stores: Collection[T], limit: int, ask: Callable[[T, int], list["Found"]]) -> list["Found"]:
    """Ask several stores for hits, `ask(store, most)`; return `limit` or more of them, where there are as many.

    Each is asked for its share at first: names that all hosts have are in all stores. Where that does not do,
    those that may have more are asked again.
    """
    share = -(-2 * limit // max(1, len(stores)))
    found = {store: ask(store, min(limit, share)) for store in stores}
    if sum(map(len, found.values())) < limit:
        found |= {store: ask(store, limit) for store in stores if limit > len(found[store]) >= share}
    return [hit for hits in found.values() for hit in hits]


def hash_of(name: bytes) -> int:
    """Return what names are looked up by: 32 bits, signed, so that SQLite needs four bytes for them."""
    return zlib.crc32(name) - 2**31


def parent(path: bytes) -> bytes:
    """Return the directory of an absolute path."""
    return path.rpartition(b"/")[0] or ROOT


def base(path: bytes) -> bytes:
    """Return the last part of a path."""
    return path.rpartition(b"/")[2]


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory."""
    return directory.rstrip(b"/") + b"/" + name
