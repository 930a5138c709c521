# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Scratch servers: database servers that run for one dump, load it, and are gone."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

from saveos_agent.dumps import (
    COUNT_POSTGRESQL,
    DRILL_USER,
    OWNERLESS,
    TABLES_MYSQL,
    DumpBroken,
    Untested,
    connection_word,
    give_to,
    last_bytes,
    server_programs,
    which_server,
    without_values,
)
from saveos_agent.processes import child_environment, die_with_parent, end_processes
from saveos_agent.scratch import DRILL_SECONDS, Scratch


class ScratchServers(Scratch):
    """Loads dumps that were restored. Raises DumpBroken, and Untested where nothing can be said of one."""

    def _sqlite(self, dump: Path) -> list[int]:
        """Rows by table. Borgmatic's dump is the text of .dump, which ends with COMMIT."""
        try:
            import sqlite3  # noqa: PLC0415 - not every Python has it
        except ImportError:
            raise Untested("this host's Python has no sqlite3") from None
        base = sqlite3.connect(str(self.scratch / f"{secrets.token_hex(4)}.db"), isolation_level=None)
        try:
            with contextlib.closing(base), dump.open(encoding="utf-8", errors="surrogateescape") as file:
                waiting = ""
                for line in file:
                    waiting += line
                    if line.rstrip().endswith(";") and sqlite3.complete_statement(waiting):
                        base.execute(waiting)
                        waiting = ""
                if waiting.strip() or base.in_transaction:
                    raise DumpBroken("the dump ends in the middle")
                tables = base.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
                ).fetchall()
                quoted = [name.replace('"', '""') for (name,) in tables]
                return [base.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in quoted]
        except (sqlite3.Error, UnicodeError, ValueError) as error:
            raise DumpBroken(without_values(str(error))) from None

    def _postgresql(self, dump: Path) -> list[int]:
        """Rows by table, over the databases of the dump."""
        folder = server_programs("initdb", "postgres", "psql", "pg_restore", "createdb")
        place, user = self._server_home("postgres")
        data, log = place / "data", place / "log"
        self._must_run(
            [f"{folder}/initdb", "-D", str(data), "-U", DRILL_USER, "-A", "trust", "-E", "UTF8", "-N"], user
        )
        quick = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "listen_addresses=")
        options = [part for each in (*quick, "max_wal_senders=0", "wal_level=minimal") for part in ("-c", each)]
        server = [f"{folder}/postgres", "-D", str(data), "-k", str(place), *options]
        at = ["-h", str(place), "-U", DRILL_USER]
        with self._server(server, user, log, [f"{folder}/psql", *at, "-d", "postgres", "-c", "SELECT 1"]):
            self._must_run([f"{folder}/createdb", *at, DRILL_USER], user)
            psql = [f"{folder}/psql", *at, "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1"]
            self._load_postgresql(folder, at, psql, dump, user)
            self._loaded(at, user)
            query = b"SELECT datname FROM pg_database WHERE NOT datistemplate AND datallowconn;"
            names = (
                self._must_run([*psql, "-d", DRILL_USER], user, query).decode("utf-8", "replace").split("\n")
            )
            counts = []
            for name in names:
                if name:
                    told = self._must_run(
                        [*psql, "-d", f"dbname={connection_word(name)}"], user, COUNT_POSTGRESQL
                    )
                    counts += [int(line) for line in told.split()]
            return counts

    def _load_postgresql(self, folder: str, at: list[str], psql: list[str], dump: Path, user: str) -> None:
        if dump.is_dir():
            for path in (dump, *dump.rglob("*")):
                give_to(path, user)
            whole = self.scratch / f"dump-{secrets.token_hex(4)}"
            os.replace(dump, whole)  # out of root's own directory
            self._must_run(
                [f"{folder}/pg_restore", *at, *OWNERLESS, "-d", DRILL_USER, str(whole)], user, broken=True
            )
            return
        with dump.open("rb", buffering=0) as file:  # the programs read on from where it really stands
            custom = file.read(5) == b"PGDMP"
            file.seek(0)
            if custom:
                argv = [f"{folder}/pg_restore", *at, *OWNERLESS, "-d", DRILL_USER]
                self._must_run(argv, user, file, broken=True)
                return
            if b"dump complete" not in last_bytes(dump):
                raise DumpBroken("the dump ends in the middle")
            if dump.name == "all":
                self._must_run([*psql, "-d", DRILL_USER], user, file, broken=True)
                return
            errors = self._ask([*psql[:-2], "-d", DRILL_USER], user, file)[2].splitlines()
            serious = [
                line for line in errors if "ERROR:" in line and not re.search(r"role .* does not exist", line)
            ]
            if serious:  # roles are not part of a single database's dump
                raise DumpBroken(without_values(serious[0]))

    def _mysql(self, dump: Path) -> list[int]:
        """Rows by table, over the databases of the dump."""
        if b"Dump completed" not in last_bytes(dump):
            raise DumpBroken("the dump ends in the middle")
        daemon = which_server("mariadbd", "mysqld")
        client = which_server("mariadb", "mysql")
        place, user = self._server_home("mysql")
        data, socket_ = place / "data", place / "socket"
        try:
            install = [
                which_server("mariadb-install-db", "mysql_install_db"),
                "--no-defaults",
                f"--datadir={data}",
            ]
            install += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        except Untested:
            install = [daemon, "--no-defaults", "--initialize-insecure", f"--datadir={data}"]
        self._must_run(install, user)
        server = [daemon, "--no-defaults", f"--datadir={data}", f"--socket={socket_}", "--skip-networking"]
        server += [f"--pid-file={place}/pid", "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin"]
        ask = [client, "--no-defaults", f"--socket={socket_}", "--user=root", "--batch", "--skip-column-names"]
        with self._server(server, user, place / "log", [*ask, "-e", "SELECT 1"]):
            self._must_run([*ask, "-e", f"CREATE DATABASE {DRILL_USER}"], user)
            with dump.open("rb") as file:
                self._must_run([*ask, DRILL_USER], user, file, broken=True)
            self._loaded(ask[2:4], user)
            queries = self._must_run([*ask, "--raw"], user, TABLES_MYSQL)
            return [int(line) for line in self._must_run(ask, user, queries).split()]

    def _loaded(self, at: list[str], user: str) -> None:
        """For who wants more of a loaded dump than its counts; `at` leads to the scratch server."""

    def _server_home(self, owner: str) -> tuple[Path, str]:
        """A directory for a scratch server, and the user it runs as ("": ours)."""
        place = self.scratch / f"server-{secrets.token_hex(4)}"
        place.mkdir(mode=0o700)
        user = ""
        if os.geteuid() == 0:
            try:
                user = pwd.getpwnam(owner).pw_name
            except KeyError:
                raise Untested(f"there is no user {owner} to run a scratch server as") from None
        give_to(place, user)
        return place, user

    @contextlib.contextmanager
    def _server(self, argv: list[str], user: str, log: Path, ready: list[str]) -> Iterator[None]:
        """A database server while the block runs. Raises Untested where it does not start."""
        with log.open("wb") as said:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, **self._as(user)
            )
        try:
            deadline = time.monotonic() + 120
            while self._ask(ready, user)[0] != 0:
                if process.poll() is not None or time.monotonic() > deadline:
                    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
                    raise Untested(f"the scratch server did not start: {self.redactor.clean(lines[-1])}")
                time.sleep(0.3)
            yield
        finally:
            process.kill()  # nothing in it is to be kept
            process.wait()
            end_processes(self.run_id, grace=1)

    def _as(self, user: str) -> dict[str, Any]:
        """How a program runs as another user, with our marker, and no longer than we live."""
        options: dict[str, Any] = {
            "env": child_environment(self.run_id),
            "cwd": "/",
            "preexec_fn": die_with_parent(signal.SIGKILL),
        }
        options["start_new_session"] = True
        if user:
            entry = pwd.getpwnam(user)
            options.update(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
            options["env"].update(HOME=entry.pw_dir)
        return options

    def _ask(self, argv: list[str], user: str, stdin: Any = None) -> tuple[int, bytes, str]:
        """Exit status, output and errors of a program; its input is bytes, an open file, or nothing."""
        feed: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"stdin": stdin}
        feed = {"input": stdin} if isinstance(stdin, bytes) else feed
        try:
            done = subprocess.run(
                argv, capture_output=True, timeout=self._left(), check=False, **feed, **self._as(user)
            )
        except subprocess.TimeoutExpired:
            raise Untested(f"it took longer than {DRILL_SECONDS // 3600} hours") from None
        except OSError as error:
            raise Untested(f"{argv[0]} cannot be started: {error.strerror}") from None
        return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace")

    def _must_run(self, argv: list[str], user: str, stdin: Any = None, broken: bool = False) -> bytes:
        """Output of a program. Where it fails, the dump is `broken`, or nothing can be said of it."""
        status, output, errors = self._ask(argv, user, stdin)
        if status == 0:
            return output
        lines = [line for line in errors.splitlines() if "rror" in line] or errors.splitlines()
        said = without_values(next(iter(lines), f"exit status {status}"))
        if broken:
            raise DumpBroken(said)
        raise Untested(f"{Path(argv[0]).name}: {said}")
