# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Databases brought back from their dumps in an archive: as a copy, or in place of the present one.

A dump is loaded into a scratch server first where it holds more than the one database, so nothing else of it
reaches the live server; a broken one touches nothing. What is replaced is dumped into a file before, which
undoes it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import secrets
import stat
import subprocess
from pathlib import Path
from typing import Any, Optional

from saveos_agent.borg import resolve_archive
from saveos_agent.directories import open_directory, opened
from saveos_agent.dumps import (
    COUNT_POSTGRESQL,
    DumpBroken,
    Untested,
    connection_word,
    give_to,
    server_programs,
    which_server,
)
from saveos_agent.errors import AgentError, refused, usage
from saveos_agent.files import read_json, write_json
from saveos_agent.samples import DUMP
from saveos_agent.scratch_servers import ScratchServers
from saveos_agent.settings import Repository, Settings
from saveos_agent.sources import configuration
from saveos_agent.times import utc

KINDS = ("postgresql", "mariadb", "mysql", "sqlite")
LOCAL = ("localhost", "127.0.0.1", "::1")
SYSTEM = ("postgres", "template0", "template1", "mysql", "sys", "information_schema", "performance_schema")
SAFETY_KEEP = 20
BY_HAND = "Extract the dump with saveos-agent restore --path borgmatic, and load it by hand."


class Loading(ScratchServers):
    """One database out of an archive and into a live server."""

    def __init__(self, settings: Settings, repository: Repository) -> None:
        super().__init__(settings)
        self.repository = repository
        self.kind, self.name = "", ""
        self.single: Optional[Path] = None  # the dump of the one database, made by a scratch server

    # ---- which dump

    def find(self, archive: str, kind: str, name: str) -> tuple[str, list[Any]]:
        """The dump of a database: its path in the archive, and its files. Raises AgentError."""
        dumps = self._choose(self.repository, archive, seed=0, size=1).dumps
        fitting = []
        for path in sorted(dumps):
            told, title = str(DUMP.match(path)[1]), path.rpartition("/")[2]  # type: ignore[index]
            if kind in ("", told) and title == name:
                fitting.append(path)
        whole = [path for path in sorted(dumps) if path.endswith("/all") and kind in ("", _kind(path))]
        fitting = fitting or [path for path in whole if _kind(path) != "sqlite"]
        if not fitting:
            known = ", ".join(f"{_kind(path)} {path.rpartition('/')[2]}" for path in sorted(dumps)) or "none"
            raise AgentError(
                "dump_missing", f"{archive} has no dump of {name!r}.", f"It has dumps of: {known}."
            )
        if len(fitting) > 1:
            kinds = ", ".join(sorted({_kind(path) for path in fitting}))
            raise usage(f"Several dumps fit {name!r}: {kinds}.", "Say of which kind: --kind.")
        server = fitting[0].split("/")[2].partition(":")[0]
        if _kind(fitting[0]) not in (*KINDS,) or (server not in LOCAL and _kind(fitting[0]) != "sqlite"):
            raise AgentError("not_local", f"{name} is on the server {server}, not on this host.", BY_HAND)
        self.kind, self.name = _kind(fitting[0]), name
        return fitting[0], dumps[fitting[0]]

    def prepare(self, archive: str, path: str, items: list[Any]) -> Path:
        """The dump of the one database as a file for its loader; a whole dump goes by a scratch server."""
        self._room(4 * sum(item.size for item in items))
        where, reasons = self._restore(self.repository, archive, items)
        if reasons:
            raise DumpBroken(next(iter(reasons.values())))
        dump = where / path
        if self.kind in ("mariadb", "mysql"):
            self._mysql(dump)
        elif self.kind == "postgresql" and dump.name == "all" and self.name != "all":
            self._postgresql(dump)
        elif self.kind == "postgresql":
            return dump
        else:
            self._sqlite(dump)  # whether it loads
            return dump
        if self.single is None:
            raise DumpBroken(f"it holds no database {self.name}")
        return self.single

    def _loaded(self, at: list[str], user: str) -> None:
        """Take the one database out of the scratch server that holds the dump."""
        target = self.scratch / f"single-{secrets.token_hex(4)}"
        if self.kind == "postgresql":
            folder = server_programs("pg_dump")
            argv = [f"{folder}/pg_dump", *at, "-Fc", "-d", f"dbname={connection_word(self.name)}"]
        else:
            argv = [
                which_server("mariadb-dump", "mysqldump"),
                "--no-defaults",
                *_mysql_dump(at),
                "--",
                self.name,
            ]
        status, errors = self._dump_to(argv, user, target)
        if status == 0:
            self.single = target
        elif not re.search(r"does not exist|Unknown database", errors):
            raise DumpBroken(errors.strip()[-200:])

    def _dump_to(self, argv: list[str], user: str, target: Path) -> tuple[int, str]:
        """Run a program whose output is a database, into a file of ours alone; its status and errors."""
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            try:
                done = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.PIPE,
                    timeout=self._left(),
                    check=False,
                    **self._as(user),
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise Untested(f"{Path(argv[0]).name}: {error}") from None
        return done.returncode, done.stderr.decode("utf-8", "replace")

    # ---- the live server

    def copy(self, dump: Path, into: str) -> list[int]:
        """Load a dump under a new name; takes away what it made where that fails. Raises AgentError."""
        if self.kind == "sqlite":
            self._copy_sqlite(dump, Path(into))
            return self._count(into)
        if self._exists(into):
            raise refused(f"There is a database {into} already.", "Choose another name with --copy-name.")
        self._create(into, self.name)
        try:
            self._fill(dump, into)
            return self._count(into)
        except BaseException:
            self._drop(into)
            raise

    def replace(self, dump: Path) -> list[int]:
        """Load a dump in place of the present database. It is whole under another name before that goes."""
        if self.kind == "sqlite":
            self._overwrite_sqlite(dump)
            return self._count(self.name)
        fresh = f"{self.name[:40]}_saveos_{secrets.token_hex(4)}"
        self._create(fresh, self.name)
        try:
            self._fill(dump, fresh)
            counts = self._count(fresh)
            if self.kind == "postgresql":
                self._swap(fresh)
                return counts
        except BaseException:
            self._drop(fresh)
            raise
        self._drop(fresh)  # it loads: MySQL cannot rename a database
        self._drop(self.name)
        self._create(self.name, "")
        self._fill(dump, self.name)
        return self._count(self.name)

    def keep(self, folder: Path) -> str:
        """Dump the present database into a file of root's; "" where there is none."""
        if not self._exists(self.name):
            return ""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stem = f"{utc().replace(':', '')[:17]}-{self.kind}-{re.sub(r'[^A-Za-z0-9_.-]', '_', self.name)[-80:]}"
        path = folder / f"{stem}-{secrets.token_hex(3)}.dump"
        if self.kind == "postgresql":
            argv = [
                f"{server_programs('pg_dump')}/pg_dump",
                "-Fc",
                "-d",
                f"dbname={connection_word(self.name)}",
            ]
            status, errors = self._dump_to(argv, _live_user("postgres"), path)
        elif self.kind == "sqlite":
            status, errors = self._keep_sqlite(path), ""
        else:
            program = which_server("mariadb-dump", "mysqldump")
            argv = [program, "--no-defaults", *_mysql_dump(["--user=root"]), "--", self.name]
            status, errors = self._dump_to(argv, "", path)
        if status != 0 or not path.stat().st_size:
            raise AgentError(
                "safety_failed",
                f"The present {self.name} could not be dumped, so it was not replaced: {errors.strip()[-300:]}",
                "See that its server runs, and that there is room in the agent's state directory.",
            )
        write_json(path.with_suffix(".json"), {"kind": self.kind, "name": self.name, "at": utc()})
        for old in sorted(folder.glob("*.dump"))[:-SAFETY_KEEP]:
            old.unlink()
            old.with_suffix(".json").unlink()
        return str(path)

    # ---- PostgreSQL and MySQL

    def _sql(self, text: str, database: str = "") -> str:
        """What the live server answers to a statement; fails as Untested does."""
        if self.kind == "postgresql":
            argv = [f"{server_programs('psql')}/psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1"]
            argv += ["-d", f"dbname={connection_word(database or 'postgres')}"]
            user = _live_user("postgres")
        else:
            argv = [which_server("mariadb", "mysql"), "--no-defaults", "--user=root", "--batch"]
            argv += ["--skip-column-names", *([f"--database={database}"] if database else [])]
            user = ""
        return self._must_run(argv, user, text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")

    def _exists(self, name: str) -> bool:
        if self.kind == "sqlite":
            return os.path.lexists(name)
        if self.kind == "postgresql":
            return bool(self._sql(f"SELECT 1 FROM pg_database WHERE datname = {_literal(name)};").strip())
        query = f"SELECT 1 FROM information_schema.schemata WHERE schema_name = {_literal(name)};"
        return bool(self._sql(query).strip())

    def _create(self, name: str, like: str) -> None:
        """Make an empty database; of PostgreSQL with the owner and locale of one that is there."""
        if self.kind != "postgresql":
            self._sql(f"CREATE DATABASE {_backticks(name)};")
            return
        columns = "pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype"
        told = self._sql(
            f"SELECT json_build_array({columns}) FROM pg_database WHERE datname = {_literal(like)};"
        )
        options = "TEMPLATE template0"
        if told.strip():
            owner, encoding, collate, ctype = json.loads(told)
            options += f" OWNER {_quoted(owner)} ENCODING {_literal(encoding)}"
            options += f" LC_COLLATE {_literal(collate)} LC_CTYPE {_literal(ctype)}"
        self._sql(f"CREATE DATABASE {_quoted(name)} {options};")

    def _drop(self, name: str) -> None:
        quoted = _quoted(name) if self.kind == "postgresql" else _backticks(name)
        self._sql(f"DROP DATABASE IF EXISTS {quoted};")

    def _fill(self, dump: Path, name: str) -> None:
        """Load a dump into an empty database of the live server. Raises DumpBroken."""
        if self.kind != "postgresql":
            argv = [which_server("mariadb", "mysql"), "--no-defaults", "--user=root", f"--database={name}"]
            with dump.open("rb") as file:
                self._must_run(argv, "", file, broken=True)
            return
        folder, user = server_programs("psql", "pg_restore"), _live_user("postgres")
        at = ["-d", f"dbname={connection_word(name)}"]
        if dump.is_dir():
            whole = self.scratch / f"dump-{secrets.token_hex(4)}"
            for path in (dump, *dump.rglob("*")):
                give_to(path, user)
            os.replace(dump, whole)
            self._must_run([f"{folder}/pg_restore", *at, "--exit-on-error", str(whole)], user, broken=True)
            return
        with dump.open("rb", buffering=0) as file:
            custom = file.read(5) == b"PGDMP"
            file.seek(0)
            argv = [f"{folder}/pg_restore", *at, "--exit-on-error"]
            if not custom:
                argv = [f"{folder}/psql", *at, "-X", "-q", "-v", "ON_ERROR_STOP=1"]
            self._must_run(argv, user, file, broken=True)

    def _swap(self, fresh: str) -> None:
        """Put a whole database in the present one's place; its sessions end."""
        former = f"{self.name[:40]}_former_{secrets.token_hex(4)}"
        gone = not self._exists(self.name)
        if not gone:
            self._sql(f"ALTER DATABASE {_quoted(self.name)} ALLOW_CONNECTIONS false;")
            self._sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                f" AND datname = {_literal(self.name)};"
            )
        try:
            if not gone:
                self._sql(f"ALTER DATABASE {_quoted(self.name)} RENAME TO {_quoted(former)};")
            try:
                self._sql(f"ALTER DATABASE {_quoted(fresh)} RENAME TO {_quoted(self.name)};")
            except Untested:
                if not gone:
                    self._sql(f"ALTER DATABASE {_quoted(former)} RENAME TO {_quoted(self.name)};")
                raise
        except Untested:
            if not gone:
                self._sql(f"ALTER DATABASE {_quoted(self.name)} ALLOW_CONNECTIONS true;")
            raise
        self._drop(former)

    def _count(self, name: str) -> list[int]:
        """Rows by table."""
        if self.kind == "postgresql":
            told = self._sql(COUNT_POSTGRESQL.decode(), name)
        elif self.kind == "sqlite":
            with contextlib.closing(_sqlite3().connect(f"file:{_uri(name)}?mode=ro", uri=True)) as base:
                query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
                tables = [each.replace('"', '""') for (each,) in base.execute(query)]
                return [base.execute(f'SELECT count(*) FROM "{each}"').fetchone()[0] for each in tables]
        else:
            queries = self._sql(
                "SELECT CONCAT('SELECT COUNT(*) FROM `', REPLACE(TABLE_SCHEMA, '`', '``'), '`.`',"
                " REPLACE(TABLE_NAME, '`', '``'), '`;') FROM information_schema.TABLES"
                f" WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA = {_literal(name)};"
            )
            told = self._sql(queries) if queries.strip() else ""
        return [int(line) for line in told.split()]

    # ---- SQLite: `name` is the file's path from here on

    def _copy_sqlite(self, dump: Path, path: Path) -> None:
        if not path.is_absolute() or ".." in path.parts:
            raise usage("The copy of an SQLite database is a new file.", "Give its absolute path: --copy-name.")
        made = self._sqlite_file(dump)
        status = Path(self.name).stat() if os.path.exists(self.name) else None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with opened(open_directory(str(path.parent))) as directory:  # no link of a user leads it elsewhere
            try:
                handle = os.open(path.name, flags, 0o600, dir_fd=directory)
            except FileExistsError:
                raise refused(f"{path} is there already.", "Name a file that is not.") from None
        with open(handle, "wb") as target, made.open("rb") as source:
            while chunk := source.read(1 << 20):
                target.write(chunk)
            if status is not None:
                os.fchown(target.fileno(), status.st_uid, status.st_gid)
                os.fchmod(target.fileno(), stat.S_IMODE(status.st_mode))

    def _overwrite_sqlite(self, dump: Path) -> None:
        """Overwrite the live file by SQLite's own backup: in one transaction, whoever has it open."""
        sqlite3 = _sqlite3()
        made = self._sqlite_file(dump)
        if not os.path.lexists(self.name):
            self._copy_sqlite(dump, Path(self.name))
            return
        if not stat.S_ISREG(os.lstat(self.name).st_mode):
            raise refused(f"{self.name} is no regular file.", "Put the database back by hand.")
        with contextlib.closing(sqlite3.connect(str(made))) as source:
            with contextlib.closing(sqlite3.connect(self.name, timeout=60)) as target:
                source.backup(target)

    def _keep_sqlite(self, path: Path) -> int:
        sqlite3 = _sqlite3()
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(sqlite3.connect(f"file:{_uri(self.name)}?mode=ro", uri=True)) as source:
            with contextlib.closing(sqlite3.connect(str(path))) as target:
                source.backup(target)
        return 0

    def _sqlite_file(self, dump: Path) -> Path:
        """A dump as a database's file: of an archive it is text, of a safety dump it is one already."""
        with dump.open("rb") as file:
            if file.read(16) == b"SQLite format 3\0":
                return dump
        before = set(self.scratch.glob("*.db"))
        self._sqlite(dump)
        return (set(self.scratch.glob("*.db")) - before).pop()


def bring_back(settings: Settings, repository: Repository, options: Any) -> dict[str, Any]:
    """Do what the verb's options say. The caller holds the lock. Raises AgentError."""
    work = Loading(settings, repository)
    try:
        with work.opened():
            return undo(work, options) if options.undo else _bring_back(work, options)
    except (DumpBroken, Untested) as error:
        said = work.redactor.clean(str(error))[:400]
        code = "dump_broken" if isinstance(error, DumpBroken) else "database_failed"
        raise AgentError(
            code, f"{options.name or options.undo} was not brought back: {said}.", BY_HAND
        ) from None


def _bring_back(work: Loading, options: Any) -> dict[str, Any]:
    began = datetime.datetime.now(datetime.timezone.utc)
    archive, _ = resolve_archive(work.settings, work.repository, options.archive)
    path, items = work.find(archive, options.kind, options.name)
    replaces = getattr(options, "as") == "replace"
    if options.name in SYSTEM and replaces:
        raise refused(f"{options.name} belongs to the server itself.", "Bring it back as a copy, or by hand.")
    if work.kind == "sqlite":
        work.name = sqlite_path(work, options.name)
    into = work.name if replaces else options.copy_name or f"{work.name}_{began:%Y%m%d_%H%M%S}"
    told: dict[str, Any] = {"kind": work.kind, "name": options.name, "archive": archive, "into": into}
    told.update(repository_id=work.repository.id, changed=not options.check, safety="", tables=0, rows=0)
    told["as"] = "replace" if replaces else "copy"
    if options.check:
        return {**told, "bytes": sum(item.size for item in items), "changed": True}
    dump = work.prepare(archive, path, items)
    if replaces:
        told["safety"] = work.keep(work.settings.state / "safety")
    counts = work.replace(dump) if replaces else work.copy(dump, into)
    return {**told, "tables": len(counts), "rows": sum(counts)}


def undo(work: Loading, options: Any) -> dict[str, Any]:
    """Put back what a safety dump holds; what is there by then is dumped before, too."""
    path = Path(options.undo)
    known = read_json(path.with_suffix(".json"))
    if not isinstance(known, dict) or not path.is_file():
        raise usage(f"{path} is no safety dump.", "Name one of those below the agent's state directory.")
    work.kind, work.name = str(known["kind"]), str(known["name"])
    told = {"kind": work.kind, "name": work.name, "into": work.name, "as": "replace", "archive": str(path)}
    if options.check:
        return {**told, "changed": True, "safety": "", "tables": 0, "rows": 0}
    safety = work.keep(work.settings.state / "safety")
    counts = work.replace(path)
    return {**told, "changed": True, "safety": safety, "tables": len(counts), "rows": sum(counts)}


def sqlite_path(work: Loading, name: str) -> str:
    """Where the configuration says that an SQLite database is."""
    for each in configuration(work.settings, work.repository).get("sqlite_databases") or []:
        if isinstance(each, dict) and each.get("name") == name:
            return str(each["path"])
    raise AgentError("not_configured", f"The configuration knows no SQLite database {name}.", BY_HAND)


def _kind(path: str) -> str:
    return path.split("/")[1].replace("_databases", "")


def _live_user(name: str) -> str:
    return "" if os.geteuid() else name


def _mysql_dump(at: list[str]) -> list[str]:
    return [*at, "--single-transaction", "--routines", "--triggers", "--events", "--hex-blob"]


def _sqlite3() -> Any:
    try:
        import sqlite3  # noqa: PLC0415 - not every Python has it
    except ImportError:
        raise Untested("this host's Python has no sqlite3") from None
    return sqlite3


def _uri(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _backticks(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _literal(text: str) -> str:
    if "\\" in text or "\0" in text:
        raise usage(f"{text!r} is no name that can be asked for.", BY_HAND)
    return "'" + text.replace("'", "''") + "'"
