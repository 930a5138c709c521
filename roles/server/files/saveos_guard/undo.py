# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Putting a repository back to a copy, by a journal."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from typing import Any

from saveos_guard.borg_files import SMALL, key_digest, numbers
from saveos_guard.copies import clean, duplicate, free_name
from saveos_guard.errors import Damaged, Trouble
from saveos_guard.files import read_json, sync_dir, write, write_json
from saveos_guard.objects import settle
from saveos_guard.repository import Repository
from saveos_guard.values import iso, seconds_of
from saveos_guard.view import META, View


def undo(repository: Repository, wanted: str, plan: bool = False) -> dict[str, Any]:
    """Put the repository back to a copy (its time, or latest-good); what it replaces becomes a copy."""
    resume(repository)
    clean(repository)
    copies = repository.copies()
    if wanted == "latest-good":
        chosen = next((each for each in reversed(copies) if each.get("good")), None)
    else:
        when = seconds_of(wanted)
        chosen = next((each for each in reversed(copies) if when and int(each["at"]) == int(when)), None)
    if not chosen:
        there = ", ".join(str(iso(each["at"])) for each in copies) or "none"
        raise Trouble(f"there is no copy {wanted} of repository {repository.id}; there are: {there}")
    told = {
        "repository_id": repository.id,
        "to": wanted,
        "copy_at": iso(chosen["at"]),
        "transaction": chosen["transaction"],
        "replaces": repository.transaction(),
        "bytes": View(f"{repository.hold}/{chosen['name']}").bytes,
    }
    if plan:
        return {**told, "state": "planned"}
    replaced = free_name(repository, repository.now, "u")
    journal = {"step": "build", "copy": chosen, "replaced": replaced, "at": repository.now}
    repository.save()  # whose it is, for while its directory is away
    write_json(f"{repository.place}/undo.json", journal)
    try:
        resume(repository)
    except OSError:
        if (read_json(f"{repository.place}/undo.json") or {}).get("step") == "build":  # nothing was touched yet
            shutil.rmtree(f"{repository.hold}/.undo", ignore_errors=True)
            os.unlink(f"{repository.place}/undo.json")
        raise
    return {**told, "state": "done", "replaced_at": iso(repository.now)}


def resume(repository: Repository) -> None:
    """End an undo that was begun; each step can be done again."""
    journal = read_json(f"{repository.place}/undo.json")
    if not journal:
        return
    built, replaced = f"{repository.hold}/.undo", f"{repository.hold}/{journal['replaced']}"
    copy = f"{repository.hold}/{journal['copy']['name']}"
    if journal["step"] == "build":
        if os.path.isdir(built):
            shutil.rmtree(built)
        duplicate(copy, built, journal["copy"]["transaction"], repository.owner)
        give_back(repository, built)
        journal["step"] = "swap"
        write_json(f"{repository.place}/undo.json", journal)
    if journal["step"] == "swap":
        end_serving(repository)
        if os.path.isdir(built):
            if os.path.isdir(repository.path) and not os.path.isdir(replaced):
                # before and after the move: a full disk shall stop it while all is in its place
                raise_nonce(repository, built, repository.path)
                os.rename(repository.path, replaced)
                sync_dir(repository.hold)
            raise_nonce(repository, built, replaced)
            os.rename(built, repository.path)
        sync_dir(os.path.dirname(repository.path))
        end_serving(repository)  # one that had opened the old one would write into the new
        if os.path.isdir(replaced):
            enclose(repository, replaced, journal)
        journal["step"] = "note"
        write_json(f"{repository.place}/undo.json", journal)
    view, ledger = View(copy), repository.ledger
    for entry in list(ledger.archives.values()):
        lives = view.index.get(bytes.fromhex(entry.id)) is not None
        if lives and entry.status != "live":
            ledger.add("back", repository.now, id=entry.id)
        elif not lives and entry.status != "ended":
            ledger.add("ended", repository.now, id=entry.id, why="undone")
    if ledger.keys and ledger.keys[-1] != view.key:
        ledger.add("key", repository.now, digest=view.key, why="undone")
    ledger.add(
        "undo",
        repository.now,
        transaction=view.transaction,
        copy=journal["copy"]["name"],
        replaced=journal["replaced"],
    )
    repository.state.update(compacting=False, ours=journal["replaced"], last_run=repository.now)
    settle(repository, view)
    repository.state["spent"] = repository.brought()
    repository.save()
    os.unlink(f"{repository.place}/undo.json")


def give_back(repository: Repository, built: str) -> None:
    """A built repository belongs to its user, but for what is shared with copies."""
    if os.geteuid() != 0:
        return
    for folder, _, names in os.walk(built):
        os.chown(folder, *repository.owner)
        for name in names:
            if name in SMALL:
                os.chown(f"{folder}/{name}", *repository.owner)


def raise_nonce(repository: Repository, built: str, replaced: str) -> None:
    """Never go back with the nonce: one that is used twice would give away what it encrypted."""
    values = []
    for folder in (built, replaced):
        try:
            handle = os.open(f"{folder}/nonce", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(handle) as file:
                values.append(int(file.read(16), 16))
        except (OSError, ValueError):
            values.append(0)
    old, new = values
    highest = max(old, new if new < old + (1 << 48) else old + (1 << 40))  # a host can claim any number
    if highest and highest != old:
        write(f"{built}/nonce", f"{highest:016x}".encode())
        if os.geteuid() == 0:
            os.chown(f"{built}/nonce", *repository.owner)


def enclose(repository: Repository, replaced: str, journal: dict[str, Any]) -> None:
    """Make what was replaced a copy that only root can enter."""
    if os.geteuid() == 0:
        os.chown(replaced, 0, 0)
    os.chmod(replaced, 0o700)
    if os.path.lexists(f"{replaced}/{META}") and not read_json(f"{replaced}/{META}"):
        os.unlink(f"{replaced}/{META}")
    try:
        key = key_digest(replaced)
    except Damaged:
        key = ""
    transaction = max(numbers(os.listdir(replaced), "index."), default=-1)
    meta = {"at": journal["at"], "transaction": transaction, "committed_at": journal["at"]}
    write_json(f"{replaced}/{META}", {**meta, "key": key, "why": "undo", "good": False})


def end_serving(repository: Repository) -> None:
    """Kill every `borg serve` of this repository; its client fails and comes again."""
    wanted = f"--restrict-to-repository {repository.path} ".encode()
    for _ in range(50):
        found = []
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().replace(b"\0", b" ")
                mine = os.stat(f"/proc/{pid}").st_uid == repository.owner[0]
                if mine and b" serve " in words and wanted in words + b" ":
                    found.append(pid)
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    raise Trouble(f"borg serve of {repository.id} does not end")
