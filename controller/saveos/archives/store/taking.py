"""Taking an archive over: versions that ended are closed, new ones opened, directories' totals carried on."""

import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from saveos.archives.store.entries import ROOT, Item, base, join, parent
from saveos.archives.store.file import File, hash_of

IMPLIED = (
    stat.S_IFDIR
)  # mode of a directory above a source: Borg stores the source, and nothing of what it is in


@dataclass(frozen=True)
class Indexed:
    """What one archive added to the catalogue."""

    number: int
    added: int
    ended: int


class Incomplete(Exception):
    """A listing of changes that does not explain how many files the archive has: all must be listed."""


class OutOfOrder(Exception):
    """An archive older than the newest one that is indexed: its repository's part must be built anew."""


class Taking(File):
    """The part of a store that takes archives over."""

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


class _Places:
    """Numbers of directories and names while one archive is taken over."""

    def __init__(self, store: Taking) -> None:
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
