# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Archive care: protect, rename, delete, export. Deleting only marks; the server's gate holds the space."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any, Optional

from saveos_agent.borg import LOCK_WAIT, borg_error, borg_output, borg_status, list_archives
from saveos_agent.changes import changes_path
from saveos_agent.directories import open_directory, opened
from saveos_agent.errors import AgentError, refused, usage
from saveos_agent.output import Output, json_object
from saveos_agent.redaction import Redactor
from saveos_agent.retention import tell_living
from saveos_agent.runs import remove_export
from saveos_agent.settings import Repository, Settings
from saveos_agent.state import discard, load, store
from saveos_agent.times import borg_time, new_run_id, utc

ACTIONS = ("protect", "unprotect", "rename", "delete", "export")
PROTECTED = "+"  # of a name that the configuration's match_archives leaves out of pruning
NAME = re.compile(r"[A-Za-z0-9_][\w.:@=,-]{0,199}", re.ASCII)
CHECKPOINT = re.compile(r"\.checkpoint(\.\d+)?$")  # Borg takes such a name for a backup that was cut off
MATCH = re.compile(r"^match_archives:\s*(.*?)\s*$", re.MULTILINE)
RENAMES_KEEP = 200
FILTERS = {".tar": "", ".tar.gz": "gzip", ".tgz": "gzip", ".tar.zst": "zstd"}


class Care:
    """One thing done to one archive. The caller holds the lock of runs."""

    def __init__(self, settings: Settings, repository: Repository, archive: str) -> None:
        self.settings, self.repository = settings, repository
        self.run_id = new_run_id()
        self.redactor = Redactor.for_host(settings)
        self.archives = list_archives(settings, repository)
        self.item = self._find(archive)

    def _find(self, archive: str) -> dict[str, Any]:
        for item in self.archives:
            if archive in (item["id"], item["name"]):
                return item
        former = _renames(self.settings).get(archive) or {}
        for item in self.archives:  # renamed before by a run that could not say so any more
            if former and former.get("name") == item["name"]:
                return item
        raise AgentError(
            "archive_missing",
            f"There is no archive {archive!r} in this repository.",
            "List them with: saveos-agent snapshots.",
        )

    @property
    def protected(self) -> bool:
        return str(self.item["name"]).startswith(PROTECTED)

    def conduct(self, action: str, name: str, destination: str, check: bool) -> dict[str, Any]:
        """Do it, or with `check` say what would be done. Raises AgentError, OSError."""
        before = {"id": self.item["id"], "name": self.item["name"]}
        told = {"action": action, "repository_id": self.repository.id, "archive": before, "changed": False}
        told["started_at"] = borg_time(self.item.get("start"))
        if action == "delete":
            told.update(self._delete(check))
        elif action == "export":
            told.update(self._export(destination, check))
        else:
            told.update(self._rename(self._new_name(action, name), check))
        return told

    # ---- names

    def _new_name(self, action: str, name: str) -> str:
        bare = str(self.item["name"]).lstrip(PROTECTED)
        if action == "rename":
            if (
                not NAME.fullmatch(name)
                or CHECKPOINT.search(name)
                or re.fullmatch(r"[0-9a-f]{64}|latest", name)
            ):
                raise usage(
                    f"{name!r} is no name for an archive.",
                    "Use letters, digits and . : @ = , _ - only, at most 200, and not the end .checkpoint.",
                )
            bare = name
        keep = action == "protect" or (action == "rename" and self.protected)
        return f"{PROTECTED}{bare}" if keep else bare

    def _rename(self, name: str, check: bool) -> dict[str, Any]:
        old = {"id": str(self.item["id"]), "name": str(self.item["name"])}
        if name.startswith(PROTECTED):
            check_left_out(self.repository, name)
        if name == old["name"]:
            return {"now": old}
        if any(item["name"] == name for item in self.archives):
            raise usage(f"There is an archive {name} already.", "Choose another name.")
        if check:
            return {"now": {"id": None, "name": name}, "changed": True}
        note_rename(self.settings, old["id"], "", name)
        self._borg("rename", f"::{old['name']}", name)
        known = list_archives(self.settings, self.repository)
        fresh = next((str(item["id"]) for item in known if item["name"] == name), "")
        note_rename(self.settings, old["id"], fresh, name)
        carry_over(self.settings, self.repository, old["id"], fresh)
        tell_living(self.settings, self.repository)
        return {"now": {"id": fresh, "name": name}, "changed": True}

    # ---- deleting

    def _delete(self, check: bool) -> dict[str, Any]:
        if self.protected:
            raise refused(
                f"The archive {self.item['name']} is protected.", "Take its protection away first: unprotect."
            )
        if check:
            return {"now": None, "changed": True, "frees": self._frees()}
        self._borg("delete", f"::{self.item['name']}")
        tell_living(self.settings, self.repository)
        return {"now": None, "changed": True}

    def _frees(self) -> Optional[int]:
        """Bytes that only this archive holds."""
        text = borg_output(
            self.settings, self.repository, self.run_id, "info", "--json", f"::{self.item['name']}"
        )
        stats = ((json_object(text) or {}).get("archives") or [{}])[0].get("stats") or {}
        return stats.get("deduplicated_size")

    # ---- exporting

    def _export(self, destination: str, check: bool) -> dict[str, Any]:
        path = Path(destination)
        suffix = next((each for each in FILTERS if path.name.endswith(each) and path.name != each), "")
        if not path.is_absolute() or ".." in path.parts or not suffix or "\0" in destination:
            raise usage(
                f"{destination!r} is no file to export to.",
                f"Give an absolute path that ends in {', '.join(FILTERS)}.",
            )
        if FILTERS[suffix] and not shutil.which(FILTERS[suffix]):
            raise AgentError(
                "tool_missing",
                f"This host has no {FILTERS[suffix]}.",
                f"Install it, or choose another of {', '.join(FILTERS)}.",
            )
        with opened(open_directory(str(path.parent))) as directory:
            with contextlib.suppress(FileNotFoundError):
                os.stat(path.name, dir_fd=directory, follow_symlinks=False)
                raise refused(f"{destination} is there already.", "Name a file that is not.")
            if check:
                free = os.fstatvfs(directory)
                return {"now": None, "file": destination, "free": free.f_bavail * free.f_frsize}
            return {"now": None, "file": destination, "changed": True, **self._write(directory, path, suffix)}

    def _write(self, directory: int, path: Path, suffix: str) -> dict[str, Any]:
        """Write the archive beside its place, then link it there: what is there by then is not overwritten."""
        partial = f".{path.name[:100]}.{secrets.token_hex(4)}.saveos-partial"
        where = os.readlink(f"/proc/self/fd/{directory}")
        store(self.settings, "export.json", {"partial": f"{where}/{partial}", "run_id": self.run_id})
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(partial, flags, 0o600, dir_fd=directory), "wb") as file:
                digest, size = self._stream(file, FILTERS[suffix])
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(partial, path.name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
            except FileExistsError:
                raise refused(f"{path} is there by now.", "Name a file that is not.") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=directory)
            discard(self.settings, "export.json")
        return {"bytes": size, "sha256": digest}

    def _stream(self, file: Any, program: str) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0

        def take(chunk: bytes) -> None:
            nonlocal size
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)

        output = Output(self.redactor)
        compress = [f"--tar-filter={program}"] if program else []
        arguments = ["export-tar", *LOCK_WAIT, *compress, f"::{self.item['name']}", "-"]
        if borg_status(self.settings, self.repository, self.run_id, output, *arguments, on_bytes=take) != 0:
            raise borg_error(self.settings, self.repository, output)
        return digest.hexdigest(), size

    def _borg(self, command: str, *arguments: str) -> None:
        output = Output(self.redactor)
        told = [command, "--log-json", *LOCK_WAIT, *arguments]
        if borg_status(self.settings, self.repository, self.run_id, output, *told) != 0:
            raise borg_error(self.settings, self.repository, output)


def care(settings: Settings, repository: Repository, options: Any) -> dict[str, Any]:
    """Take care of an archive as the verb's options say. The caller holds the lock. Raises AgentError."""
    remove_export(settings)
    found = Care(settings, repository, options.archive)
    return found.conduct(options.action, options.name, options.destination, options.check)


def check_left_out(repository: Repository, name: str) -> None:
    """Raise AgentError where the configuration would have retention look at this name, too."""
    text = repository.config.read_text()
    told = MATCH.search(text)
    pattern = re.sub(r"^sh:", "", told[1].strip("'\"")) if told else ""
    if "keep_" not in text or (pattern and ":" not in pattern and not fnmatch.fnmatchcase(name, pattern)):
        return
    raise AgentError(
        "not_protectable",
        "This host's configuration would prune protected archives as any other.",
        "Provision the host again; overrides of the policy may set no match_archives that fits +.",
    )


def note_rename(settings: Settings, old: str, new: str, name: str) -> None:
    """Keep what an archive is called now: before Borg does it, and again with the new id."""
    known = [(key, each) for key, each in _renames(settings).items() if key != old][-RENAMES_KEEP:]
    for _, each in known:  # the archive's earlier ids lead to the newest name, too
        if each["id"] == old:
            each["id"], each["name"] = new or old, name
    store(settings, "renames.json", {**dict(known), old: {"id": new, "name": name, "at": utc()}})


def _renames(settings: Settings) -> dict[str, dict[str, str]]:
    known = load(settings, "renames.json")
    return known if isinstance(known, dict) else {}


def carry_over(settings: Settings, repository: Repository, old: str, new: str) -> None:
    """Keep what is known of an archive by its id when it gets another: canary, catalogue's base, changes."""
    canaries = load(settings, "canaries.json")
    if isinstance(canaries, dict) and old in canaries:
        store(settings, "canaries.json", {**canaries, new: canaries[old]})
    catalogue = load(settings, "catalogue.json")
    if isinstance(catalogue, dict):
        base = catalogue.get(repository.id) or {}
        begun = catalogue.get("begun") or {}
        if base.get("archive") == old:
            catalogue[repository.id] = {**base, "archive": new}
        if old in (begun.get(repository.id) or {}):
            catalogue["begun"] = {**begun, repository.id: {new: begun[repository.id][old]}}
        store(settings, "catalogue.json", catalogue)
    with contextlib.suppress(FileNotFoundError):
        os.rename(changes_path(settings, repository, old), changes_path(settings, repository, new))


def care_lines(data: dict[str, Any], check: bool) -> list[str]:
    """What was done, for people."""
    name = data["archive"]["name"]
    if data["action"] == "delete":
        size = data.get("frees")
        held = f"; {size} bytes are held by it alone" if size is not None else ""
        verb = "would be deleted" if check else "is marked as deleted"
        return [f"{name} of {data['started_at']} {verb}{held}. The space stays until the server's gate opens."]
    if data["action"] == "export":
        if check:
            return [f"{name} would be written to {data['file']}, where {data['free']} bytes are free."]
        return [f"{name} is in {data['file']}: {data['bytes']} bytes, SHA-256 {data['sha256']}"]
    if not data["changed"]:
        return [f"{name} stays as it is."]
    return [f"{name} {'would be' if check else 'is now'} {data['now']['name']}"]
