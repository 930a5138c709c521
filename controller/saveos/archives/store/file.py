"""The store's file: its tables, opening it, older ones brought up to date, statements and transactions."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

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
LOCK_SECONDS = 30.0  # that a writer waits for another


class File:
    """An opened store, without its verbs."""

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repository(self, repository: str) -> int:
        self._run("INSERT OR IGNORE INTO repositories(uuid) VALUES(?)", repository)
        return int(self._one("SELECT id FROM repositories WHERE uuid=?", repository)[0])

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


def hash_of(name: bytes) -> int:
    """Return what names are looked up by: 32 bits, signed, so that SQLite needs four bytes for them."""
    return zlib.crc32(name) - 2**31
