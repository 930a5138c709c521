"""Searching: the paths that fit, in all archives of a store, and in several stores."""

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import sqlcipher3.dbapi2 as sqlite

from saveos.archives.store.entries import Entry, join
from saveos.archives.store.file import File, hash_of

T = TypeVar("T")
TRIGRAM = 3  # characters that the index of names needs
HELD = (
    "a.repository={0}.repository AND NOT a.gone"
    " AND a.number >= {0}.first AND a.number <= coalesce({0}.last, a.number)"
)


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


class OutOfTime(Exception):
    """A search that looks at too much to end in the time it was given."""


class Searching(File):
    """The part of a store that is searched."""

    def search(self, wanted: Wanted, *, limit: int = 200, deadline: float | None = None) -> list[Found]:
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


def ask_all(stores: Collection[T], limit: int, ask: Callable[[T, int], list[Found]]) -> list[Found]:
    """Ask several stores for hits, `ask(store, most)`; return `limit` or more of them, where there are as many.

    Each is asked for its share at first: names that all hosts have are in all stores. Where that does not do,
    those that may have more are asked again.
    """
    share = -(-2 * limit // max(1, len(stores)))
    found = {store: ask(store, min(limit, share)) for store in stores}
    if sum(map(len, found.values())) < limit:
        found |= {store: ask(store, limit) for store in stores if limit > len(found[store]) >= share}
    return [hit for hits in found.values() for hit in hits]
