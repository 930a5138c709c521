# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Drill: proof that the newest archives can be restored."""

from __future__ import annotations

import shutil
import stat
import time
from pathlib import Path
from typing import Any, Iterator, Optional

from saveos_agent.answers import printable
from saveos_agent.borg import list_archives
from saveos_agent.canary import canary_file, file_hash
from saveos_agent.dumps import DumpBroken, Untested
from saveos_agent.errors import AgentError, usage
from saveos_agent.files import remove_tree
from saveos_agent.health import RUN_BACKUP
from saveos_agent.mover import Failures
from saveos_agent.packing import pack
from saveos_agent.processes import end_processes
from saveos_agent.rotation import settle_rotations
from saveos_agent.runs import turn
from saveos_agent.samples import Archived, Sample
from saveos_agent.scratch import DRILL_ROOM
from saveos_agent.scratch_servers import ScratchServers
from saveos_agent.settings import Repository, Settings
from saveos_agent.state import load
from saveos_agent.times import borg_time, parse_utc, utc
from saveos_agent.transfer import upload_to_host
from saveos_agent.trial import tree_digest

DRILL_SAMPLE = 20
SENT = "sent"  # below the scratch directory: what goes to a sandbox, by repository


class Drill(ScratchServers):
    """One drill: restores into a scratch directory, compares by hash, loads dumps, leaves nothing behind.

    With `transfer` what was restored, and is as it must be, goes to a sandbox host, too, which tells whether
    all of it arrived.
    """

    def __init__(self, settings: Settings, seed: int, size: int, transfer: str = "") -> None:
        super().__init__(settings)
        self.seed, self.size, self.transfer = seed, size, transfer

    def conduct(self) -> dict[str, Any]:
        """Drill every repository's newest archive. The caller holds the lock. Raises AgentError, OSError."""
        began, at = time.monotonic(), utc()
        with self.opened():
            told = [self._repository(each) for each in self.settings.repositories]
            state = verdict(told)
            sent = self._send() if self.transfer and state != "failed" else None
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
            sample = self._choose(repository, archive["name"], self.seed, self.size)
            self._files(repository, archive, sample, result)
            for name, items in sample.dumps.items():
                result["databases"].append(self._dump(repository, archive["name"], name, items))
        except AgentError as error:
            if error.code == "canceled":
                raise
            result["error"] = error.as_dict()
        return result

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
