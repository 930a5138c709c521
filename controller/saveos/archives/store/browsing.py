"""Browsing: an archive's directories, a path's versions, how two archives differ."""

from typing import NamedTuple

from saveos.archives.store.entries import ROOT, Entry, base, join, parent
from saveos.archives.store.file import File, hash_of

LIVES = "e.first <= :number AND (e.last IS NULL OR e.last >= :number)"


class Difference(NamedTuple):
    """A path that differs: added, removed or changed; the version that tells of it, the size before."""

    kind: str
    entry: Entry
    old_size: int | None


class Browsing(File):
    """The part of a store that is looked at archive by archive."""

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
        row = self._one(
            "SELECT e.files, e.bytes FROM totals e"
            " WHERE e.repository=(SELECT id FROM repositories WHERE uuid=:uuid)"
            f" AND e.directory=(SELECT id FROM directories WHERE path=:path) AND {LIVES}",
            {"uuid": repository, "path": path, "number": number},
        )
        return (row[0], row[1]) if row else (0, 0)

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
