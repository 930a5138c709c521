# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Drill: proof that the newest archives can be restored."""

from __future__ import annotations

import contextlib
import datetime
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional

from saveos_agent.answers import printable
from saveos_agent.borg import LOCK_WAIT, borg_error, borg_status, list_archives, list_paths
from saveos_agent.canary import canary_file, file_hash
from saveos_agent.changes import Names
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
from saveos_agent.errors import EXIT_FAILED, AgentError, usage
from saveos_agent.files import remove_tree
from saveos_agent.health import RUN_BACKUP
from saveos_agent.mover import Failures
from saveos_agent.output import Output
from saveos_agent.packing import pack
from saveos_agent.processes import LIBC, PR_SET_PDEATHSIG, child_environment, end_processes
from saveos_agent.redaction import Redactor
from saveos_agent.rotation import settle_rotations
from saveos_agent.runs import remove_drill, turn
from saveos_agent.settings import Repository, Settings
from saveos_agent.state import load, store
from saveos_agent.times import borg_time, new_run_id, parse_utc, utc
from saveos_agent.transfer import upload_to_host
from saveos_agent.trial import tree_digest

DRILL_SECONDS = 2 * 3600
DRILL_SAMPLE = 20
DRILL_FILE_BYTES, DRILL_BYTES = 64 * 1024 * 1024, 512 * 1024 * 1024  # of a sampled file, and of a sample
DRILL_ROOM = 256 * 1024 * 1024  # bytes that must stay free beyond what is restored
SENT = "sent"  # below the scratch directory: what goes to a sandbox, by repository
DUMP = re.compile(r"borgmatic/(postgresql|mariadb|mysql|sqlite|mongodb)_databases/[^/]+/[^/]+")


@dataclass(frozen=True)
class Archived:
    """A regular file as an archive holds it; times are POSIX seconds."""

    path: str  # without the leading slash
    size: int
    mtime: float


class Sample:
    """Chooses files of a listing: a reservoir with a seed, so that the same seed draws the same files."""

    def __init__(self, seed: int, size: int, canary: str) -> None:
        self._random = random.Random(seed)
        self._size, self._canary = size, canary
        self._rest = b""
        self._seen = 0
        self.files: list[Archived] = []
        self.dumps: dict[str, list[Archived]] = {}
        self.canary: Optional[Archived] = None
        self.holds_files = False  # of the host's own, whether a sample can take them or not

    def __call__(self, chunk: bytes) -> None:
        *records, self._rest = (self._rest + chunk).split(b"\0")
        for record in records:
            mode, size, moment, path = record.split(b" ", 3)
            if mode.startswith(b"-"):
                at = datetime.datetime.fromisoformat(moment.decode())
                at = at if at.tzinfo else at.replace(tzinfo=datetime.timezone.utc)
                self._take(Archived(os.fsdecode(path.strip(b"/")), int(size), at.timestamp()))

    def _take(self, item: Archived) -> None:
        dump = DUMP.match(item.path)
        if dump:
            self.dumps.setdefault(dump[0], []).append(item)
            return
        if item.path == self._canary:
            self.canary = item
            return
        if item.path.startswith("borgmatic/"):
            return
        self.holds_files = True
        if item.size <= DRILL_FILE_BYTES and self._exact(item):
            self._seen += 1
            if len(self.files) < self._size:
                self.files.append(item)
            elif (place := self._random.randrange(self._seen)) < self._size:
                self.files[place] = item

    @staticmethod
    def _exact(item: Archived) -> bool:
        """Whether the path is surely the archive's: Borg prints ? for bytes that are no text."""
        return "?" not in item.path or os.path.lexists(f"/{item.path}")

    def bounded(self) -> list[Archived]:
        """The chosen files, as many as fit in the bytes of a sample."""
        total, kept = 0, []
        for item in self.files:
            total += item.size
            if total <= DRILL_BYTES:
                kept.append(item)
        return kept


class Drill:
    """One drill: restores into a scratch directory, compares by hash, loads dumps, leaves nothing behind.

    With `transfer` what was restored, and is as it must be, goes to a sandbox host, too, which tells whether
    all of it arrived.
    """

    def __init__(self, settings: Settings, seed: int, size: int, transfer: str = "") -> None:
        self.settings, self.seed, self.size, self.transfer = settings, seed, size, transfer
        self.run_id = new_run_id()
        self.redactor = Redactor.for_host(settings)
        self.deadline = time.monotonic() + DRILL_SECONDS
        self.scratch = Path()

    def conduct(self) -> dict[str, Any]:
        """Drill every repository's newest archive. The caller holds the lock. Raises AgentError, OSError."""
        began, at = time.monotonic(), utc()
        base = Path("/var/tmp" if os.path.isdir("/var/tmp") else "/tmp")
        self.scratch = base / f"saveos-drill-{secrets.token_hex(8)}"
        store(self.settings, "drill.json", {"scratch": str(self.scratch), "run_id": self.run_id})
        self.scratch.mkdir(mode=0o711)
        os.chmod(self.scratch, 0o711)  # database servers do not run as root and must get in
        try:
            told = [self._repository(each) for each in self.settings.repositories]
            state = verdict(told)
            sent = self._send() if self.transfer and state != "failed" else None
        finally:
            remove_drill(self.settings)
        return {
            "state": state,
            "at": at,
            "sent": sent,
            "seed": self.seed,
            "sampled": sum(each["sampled"] for each in told),
            "compared": sum(each["compared"] for each in told),
            "seconds": round(time.monotonic() - began, 1),
            "repositories": told,
        }

    def _send(self) -> dict[str, Any]:
        """Send what was restored to the sandbox; returns what must arrive there. Raises AgentError."""
        tree = self.scratch / SENT
        upload = upload_to_host(self.settings, self.transfer, self._left())
        try:
            pack(tree, upload.write, True, Failures(self.redactor))
            upload.finish()
        finally:
            upload.close()
        return tree_digest(tree)

    def _repository(self, repository: Repository) -> dict[str, Any]:
        """What holds of a repository's newest archive; what cannot even be read is its error."""
        result: dict[str, Any] = {"repository_id": repository.id, "archive": None, "archive_at": None}
        result.update(canary="absent", sampled=0, compared=0, bytes=0, failed=[], databases=[], error=None)
        try:
            newest = list_archives(self.settings, repository, "--last", "1")
            if not newest:
                raise AgentError("archive_missing", "The repository has no archive yet.", RUN_BACKUP)
            archive = newest[-1]
            result.update(archive=archive["name"], archive_at=borg_time(archive.get("start")))
            sample = self._choose(repository, archive["name"])
            self._files(repository, archive, sample, result)
            for name, items in sample.dumps.items():
                result["databases"].append(self._dump(repository, archive["name"], name, items))
        except AgentError as error:
            if error.code == "canceled":
                raise
            result["error"] = error.as_dict()
        return result

    def _choose(self, repository: Repository, archive: str) -> Sample:
        sample = Sample(self.seed, self.size, str(canary_file(self.settings)).strip("/"))
        seconds = self._left()
        list_paths(self.settings, repository, archive, Names(sample), run_id=self.run_id, seconds=seconds)
        return sample

    def _left(self) -> float:
        return max(1.0, self.deadline - time.monotonic())

    def _files(
        self, repository: Repository, archive: dict[str, Any], sample: Sample, result: dict[str, Any]
    ) -> None:
        """Restore the canary and the sample; count what could be compared, and name what failed."""
        known = (load(self.settings, "canaries.json") or {}).get(archive["id"])
        chosen = sample.bounded()
        failed = result["failed"]
        wanted = chosen + ([sample.canary] if sample.canary else [])
        where, reasons = self._restore(repository, archive["name"], wanted)
        started = parse_utc(result["archive_at"])
        for item in chosen:
            result["sampled"] += 1
            reason = reasons.get(item.path) or self._differs(where / item.path, item, started, result)
            if reason:
                failed.append({"path": f"/{printable(item.path)}", "reason": reason})
        if sample.canary:
            reason = reasons.get(sample.canary.path, "")
            if not reason and known and file_hash(where / sample.canary.path) != known:
                reason = "the canary has not the content that it had at that backup"
            result["canary"] = "failed" if reason else "proven" if known else "unknown"
        else:
            reason = "the canary is not in the archive" if self._canary_is_due(repository, known) else ""
            result["canary"] = "failed" if reason else "absent"
        if reason:
            failed.append({"path": str(canary_file(self.settings)), "reason": reason})
        if not sample.holds_files and not sample.dumps:
            failed.append({"path": "/", "reason": "the archive holds no file of the host's sources"})
        if self.transfer:
            (self.scratch / SENT).mkdir(mode=0o700, exist_ok=True)
            where.rename(self.scratch / SENT / repository.id)
        else:
            remove_tree(where)

    def _canary_is_due(self, repository: Repository, known: Optional[str]) -> bool:
        """Whether this backup was to take the canary along: policies older than drills know none."""
        try:
            return bool(known) and str(canary_file(self.settings).parent) in repository.config.read_text()
        except OSError:
            return False

    def _restore(
        self, repository: Repository, archive: str, items: list[Archived]
    ) -> tuple[Path, dict[str, str]]:
        """Extract files into the scratch directory; returns where, and why some are not there.

        Borg ends at the first chunk that is not what it was, so what is missing then is tried by itself.
        """
        where = self.scratch / f"files-{secrets.token_hex(4)}"
        where.mkdir(mode=0o700)
        self._room(sum(item.size for item in items))
        if items:
            self._extract(repository, archive, where, [f"pf:{item.path}" for item in items])
        reasons = {}
        for item in items:
            if self._whole(where, item):
                continue
            reason = self._extract(repository, archive, where, [f"pf:{item.path}"])
            if reason or not self._whole(where, item):
                reasons[item.path] = reason or "Borg did not restore it"
        return where, reasons

    @staticmethod
    def _whole(where: Path, item: Archived) -> bool:
        try:
            return (where / item.path).lstat().st_size == item.size
        except OSError:
            return False

    def _extract(self, repository: Repository, archive: str, where: Path, patterns: list[str]) -> str:
        """Why borg extract failed; "" when it did not."""
        output = Output(self.redactor)
        arguments = ["extract", "--log-json", "--sparse", *LOCK_WAIT, f"::{archive}", *patterns]
        status = borg_status(
            self.settings,
            repository,
            self.run_id,
            output,
            *arguments,
            directory=str(where),
            seconds=self._left(),
        )
        if status == 0 and not output.failed_files:
            return ""
        if output.failed_files:
            return output.failed_files[0]["message"][:300]
        return borg_error(self.settings, repository, output).message[:300]

    def _room(self, size: int) -> None:
        free = shutil.disk_usage(self.scratch).free
        if free < size + DRILL_ROOM:
            raise AgentError(
                "disk_full",
                f"A drill needs {size + DRILL_ROOM} bytes below {self.scratch.parent}, and {free} are free.",
                "Free some space there.",
            )

    @staticmethod
    def _differs(restored: Path, item: Archived, started: float, result: dict[str, Any]) -> str:
        """Why a restored file is not the live one; "" when it is, or when that has changed since the backup.

        A file whose live copy changed is proven by Borg's own verification of every chunk alone.
        """
        live = Path(f"/{item.path}")
        result["bytes"] += item.size
        try:
            found = live.lstat()
            same = stat.S_ISREG(found.st_mode) and found.st_size == item.size
            same = same and abs(found.st_mtime - item.mtime) < 0.0001 and found.st_ctime < started
            if not same:
                return ""
            equal = file_hash(live) == file_hash(restored)
            again = live.lstat()
        except OSError:
            return ""
        if (again.st_mtime_ns, again.st_ctime_ns) != (found.st_mtime_ns, found.st_ctime_ns):
            return ""
        result["compared"] += 1
        return "" if equal else "its content is not that of the live file, which has not changed since"

    # ---- dumps ------------------------------------------------------------------------------------------

    def _dump(self, repository: Repository, archive: str, name: str, items: list[Archived]) -> dict[str, Any]:
        """Load one dump into a scratch server and count its rows."""
        kind, title = name.split("/")[1].removesuffix("_databases"), name.rpartition("/")[2]
        told: dict[str, Any] = {
            "kind": kind,
            "name": title,
            "state": "proven",
            "tables": 0,
            "rows": 0,
            "error": "",
        }
        load_dump = {"postgresql": self._postgresql, "sqlite": self._sqlite}.get(kind, self._mysql)
        try:
            if kind == "mongodb":
                raise Untested("drills cannot load dumps of MongoDB")
            size = sum(item.size for item in items)
            free = shutil.disk_usage(self.scratch).free
            if free < 4 * size + DRILL_ROOM:
                raise Untested(f"there is no room to load {size} bytes: {free} are free")
            where, reasons = self._restore(repository, archive, items)
            if reasons:
                raise DumpBroken(next(iter(reasons.values())))
            counts = load_dump(where / name)
            told.update(tables=len(counts), rows=sum(counts))
            remove_tree(where)
        except Untested as error:
            told.update(state="skipped", error=str(error)[:300])
        except DumpBroken as error:
            told.update(state="failed", error=self.redactor.clean(str(error))[:300])
        finally:
            end_processes(self.run_id)
        return told

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
        parent = os.getpid()

        def die_with_parent() -> None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(EXIT_FAILED)

        options: dict[str, Any] = {
            "env": child_environment(self.run_id),
            "cwd": "/",
            "preexec_fn": die_with_parent,
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


def verdict(told: list[dict[str, Any]]) -> str:
    """What a drill's repositories come to: proven, partial (a dump could not be tried) or failed."""
    databases = [each for repository in told for each in repository["databases"]]
    failed = not told or any(each["failed"] or each["error"] for each in told)
    if failed or any(each["state"] == "failed" for each in databases):
        return "failed"
    return "partial" if any(each["state"] == "skipped" for each in databases) else "proven"


def drill(settings: Settings, seed: int, size: int, seconds: float, transfer: str = "") -> dict[str, Any]:
    """Wait for the turn, and drill. Backups wait meanwhile, as behind a restore. Raises AgentError."""
    if not settings.repositories:
        raise AgentError(
            "not_configured", "This host has no repository.", "Provision it with a storage server."
        )
    if not 1 <= size <= 1000:
        raise usage("A sample has 1 to 1000 files.")

    with turn(settings, seconds, "drill"):
        settle_rotations(settings)
        return Drill(settings, seed, size, transfer).conduct()


def drill_lines(data: dict[str, Any]) -> Iterator[str]:
    """A drill's outcome for people."""
    for each in data["repositories"]:
        yield (
            f"{each['repository_id']}: archive {each['archive'] or 'none'}, {each['sampled']} files restored, "
            f"{each['compared']} of them compared with the live file, canary {each['canary']}"
        )
        if each["error"]:
            yield f"  FAILED: {each['error']['message']} {each['error']['fix']}"
        yield from (f"  FAILED: {printable(file['path'])}: {file['reason']}" for file in each["failed"])
        for base in each["databases"]:
            said = (
                f": {base['error']}" if base["error"] else f", {base['rows']} rows in {base['tables']} tables"
            )
            yield f"  {base['kind']} {printable(base['name'])}: {base['state']}{said}"
    yield f"{data['state']} in {data['seconds']} seconds, seed {data['seed']}"
