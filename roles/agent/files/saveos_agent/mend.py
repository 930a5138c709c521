# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""After a repository was put back on its server: forget what this host remembers of the newer one.

Borg refuses a repository older than what it saw, and its cache names objects that are gone. The nonce that
it remembers is kept: one that is used twice would give away what it encrypted.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from saveos_agent.direct_borg import borg_words, direct_borg
from saveos_agent.errors import AgentError
from saveos_agent.redaction import Redactor
from saveos_agent.settings import Repository, Settings
from saveos_agent.times import new_run_id

EXPORT = re.compile(r"BORG_KEY ([0-9a-f]{64})\s")
PASSPHRASE_WRONG = 52


class Mend:
    """One repository's mending. The caller holds the lock of runs; it can be done again at any time."""

    def __init__(self, settings: Settings, repository: Repository, export: str) -> None:
        self.settings, self.repository = settings, repository
        self.home = settings.etc / "repositories" / repository.id
        self.export = Path(export) if export else self.home / "key-export"
        self.borg_home = settings.state / "borg"

    def conduct(self, check: bool) -> dict[str, Any]:
        """Mend, or with `check` say what would be forgotten. Raises AgentError, OSError."""
        told = {"repository_id": self.repository.id, "forgets": [str(path) for path in self.remembered()]}
        if check:
            return {**told, "state": "planned", "changed": bool(told["forgets"])}
        self.forget()
        imported = False
        code, said, errors = self.borg("list", "--json", self.repository.url)
        if code == PASSPHRASE_WRONG:
            self.import_key()
            imported = True
            code, said, errors = self.borg("list", "--json", self.repository.url)
        if code > 1 or code < 0:
            raise self.failed("cannot be opened after it was put back", errors)
        archives = [str(item["id"]) for item in json.loads(said)["archives"]]
        return {**told, "state": "mended", "archives": archives, "key_imported": imported, "changed": True}

    def remembered(self) -> list[Path]:
        """What Borg remembers of the repository and must not: its cache, and how new its manifest was."""
        found = [self.borg_home / ".cache/borg" / name for name in self.borg_ids()]
        known = self.borg_home / ".config/borg/security"
        found += [known / name / "manifest-timestamp" for name in self.borg_ids()]
        return [path for path in found if path.exists()]

    def forget(self) -> None:
        for path in self.remembered():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def borg_ids(self) -> list[str]:
        """Borg's id of the repository, by the key's export; else every id that this host has only one of."""
        try:
            found = EXPORT.match(self.export.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            found = None
        if found:
            return [found.group(1)]
        known = self.borg_home / ".config/borg/security"
        names = [path.name for path in known.iterdir()] if known.is_dir() else []
        if len(self.settings.repositories) == 1 or not names:
            return names
        raise AgentError(
            "key_export_missing",
            f"There is no key export of repository {self.repository.id} at {self.export}.",
            "Take it from the recovery kit and name it with --key-export.",
        )

    def import_key(self) -> None:
        """Put the key back that this host's passphrase opens."""
        code, _, errors = self.borg("key", "import", self.repository.url, str(self.export))
        if code:
            raise self.failed("refuses the key of the export", errors)

    def borg(self, *words: str) -> tuple[int, str, str]:
        key = self.settings.etc / "ssh" / "id_ed25519"
        return direct_borg(self.settings, self.home / "passphrase", key, new_run_id(), *words)

    def failed(self, what: str, errors: str) -> AgentError:
        said = Redactor.for_host(self.settings).clean(borg_words(errors))
        message = f"Repository {self.repository.id} {what}: {said}"
        return AgentError("mend_failed", message, "Put the key of the recovery kit in place with --key-export.")
