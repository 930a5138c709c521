"""Forgetting: archives that are gone, archives of another name, whole repositories."""

from collections.abc import Iterable

from saveos.archives.store.file import File


class Forgetting(File):
    """The part of a store that drops what no archive holds any more."""

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
