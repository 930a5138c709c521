# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Rotation of a repository's passphrase.

It may be killed at any step. Old and new passphrase lie beside each other until the new one is proven to open
the repository and the controller has what was sealed of it; then the old one goes. What was interrupted is
finished by whoever comes next: a rotation, a backup, a drill or a heartbeat. Nothing prints a secret.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

from saveos_agent.delivery import ask_controller
from saveos_agent.direct_borg import borg_words, direct_borg
from saveos_agent.errors import AgentError
from saveos_agent.files import read_json, remove, write_json, write_text
from saveos_agent.processes import child_environment, end_processes
from saveos_agent.redaction import Redactor
from saveos_agent.secret_files import put_in_force, read_text
from saveos_agent.settings import Repository, Settings
from saveos_agent.times import UUID, new_run_id, utc


class PassphraseRotation:
    """One repository's passphrase: journal, new file, change at the repository, escrow, old file gone."""

    def __init__(self, settings: Settings, repository: Repository) -> None:
        self.settings, self.repository = settings, repository
        self.home = settings.etc / "repositories" / repository.id
        self.journal = self.home / "rotation.json"
        self.current = self.home / "passphrase"
        self.fresh = self.home / "passphrase.next"
        self.former = self.home / "passphrase.old"
        found = read_json(self.journal)
        self.told: dict[str, Any] = found if isinstance(found, dict) else {}

    def is_open(self) -> bool:
        """Whether an interrupted rotation waits to be finished."""
        return any(path.exists() for path in (self.journal, self.fresh, self.former))

    def begin(self, recovery_key: str, seal: str) -> None:
        """Rotate from the start to the end, after what is open. Raises AgentError; see `settle` for then."""
        self.settle()
        if not self.opens(self.current):
            raise AgentError(
                "passphrase_wrong",
                f"The passphrase of repository {self.repository.id} on this host does not open it.",
                "Put the right one in place first (recovery kit).",
            )
        known = read_json(self.home / "sealed")
        if recovery_key and isinstance(known, dict) and "sealed" in known:
            self.hand_in(known)  # the controller keeps what opens the repository now, or nothing begins
        self.told = {
            "schema": 1,
            "id": new_run_id(),
            "at": utc(),
            "recovery_key": recovery_key,
            "seal": seal,
        }
        self.mark("prepared")
        write_text(self.fresh, secrets.token_urlsafe(32) + "\n")
        self.go_on()

    def mark(self, step: str) -> None:
        """Note durably how far it is."""
        self.told["step"] = step
        write_json(self.journal, self.told)

    def settle(self) -> str:
        """Finish what an interrupted rotation began; what was done, empty where nothing was open.

        What the files and the repository say counts, not only the journal. Raises AgentError where it must
        wait: then old and new passphrase both stay where they are.
        """
        if not self.is_open():
            return ""
        if UUID.match(str(self.told.get("id"))):
            end_processes(self.told["id"], grace=2)
        if self.fresh.exists():
            if not self.fresh.read_bytes().strip():  # a disk that lost it: never used, it is written before
                remove(self.fresh)
                self.forget()
                return "rolled back"
            self.go_on()
            return "finished"
        if self.former.exists():
            self.hand_over()
            return "finished"
        self.forget()  # before the new passphrase was made, or after all was done
        return "rolled back" if self.told.get("step") == "prepared" else "finished"

    def go_on(self) -> None:
        """Have the repository open with the new passphrase, and put that in force."""
        if not self.opens(self.fresh):
            self.change()
            self.mark("changed")
            if not self.opens(self.fresh):
                raise AgentError(
                    "rotation",
                    f"Neither passphrase opens repository {self.repository.id}; both are kept in {self.home}.",
                    "Put the escrowed key back with `restore.sh import-key` of a recovery kit.",
                )
        put_in_force(self.fresh, self.current, self.former)
        self.mark("swapped")
        self.hand_over()

    def change(self) -> None:
        """Give the repository the new passphrase. Where borg refuses, nothing is left of the rotation."""
        new = self.fresh.read_text().rstrip("\n")
        status, _, said = self.borg(self.current, "key", "change-passphrase", self.repository.url, new=new)
        if status == 0:
            return
        if "PassphraseWrong" in said:
            raise AgentError(
                "rotation",
                f"Neither passphrase opens repository {self.repository.id}; both are kept in {self.home}.",
                "Put the escrowed key back with `restore.sh import-key` of a recovery kit.",
            )
        if status > 0 and self.opens(self.current):
            remove(self.fresh)
            self.forget()
        raise AgentError(
            "rotation",
            f"The passphrase of repository {self.repository.id} was not changed: {self.clean(said)}",
            "See that the storage server is reachable and has space, then rotate again.",
        )

    def hand_over(self) -> None:
        """Seal and hand in what opens the repository now; only then is the old passphrase forgotten."""
        status, export, said = self.borg(self.current, "key", "export", self.repository.url)
        if status != 0:
            raise AgentError(
                "rotation",
                f"The key of repository {self.repository.id} cannot be exported: {self.clean(said)}",
                "It is tried again with the next backup.",
            )
        write_text(self.home / "key-export", export)
        passphrase = read_text(self.current)
        digest = hashlib.sha256(passphrase.encode("utf-8", "surrogateescape")).hexdigest()
        write_text(self.home / "initialised", f"{self.repository.url} {digest}\n")
        if self.told.get("recovery_key"):
            sealed = self.sealed(str(self.told["recovery_key"]), str(self.told["seal"]))
            self.hand_in(sealed)
        self.mark("escrowed")
        remove(self.former)
        self.forget()

    def sealed(self, public_key: str, tool: str) -> dict[str, Any]:
        """What the role keeps as `sealed`: made anew where it is of another passphrase or key."""
        text = self.material()
        digest = hashlib.sha256(f"{public_key}\n{text}".encode()).hexdigest()
        known = read_json(self.home / "sealed")
        if isinstance(known, dict) and known.get("digest") == digest:
            return known
        try:
            done = subprocess.run(
                [tool, "seal", "--to", public_key],
                input=text.encode(),
                capture_output=True,
                timeout=60,
                check=False,
                env=child_environment(str(self.told.get("id"))),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise AgentError("rotation", f"{tool} cannot be run: {error}.", "Provision this host.") from None
        message = done.stdout.decode().strip()
        if done.returncode or not message:
            raise AgentError("rotation", "Sealing to the recovery key failed.", "Provision this host.")
        raw = base64.b64decode(public_key)
        known = {"digest": digest, "recovery_key": hashlib.sha256(raw).hexdigest(), "sealed": message}
        write_text(self.home / "sealed", json.dumps(known, indent=1) + "\n")
        return known

    def material(self) -> str:
        """What restoring needs, word for word as the module agent_seal writes it."""
        content = {
            "schema": 1,
            "host": self.settings.host,
            "repository_id": self.repository.id,
            "url": self.repository.url,
            "passphrase": read_text(self.current).rstrip("\n"),
            "key_export": read_text(self.home / "key-export"),
            "host_keys": self.pins(),
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def pins(self) -> list[str]:
        """The host keys that are pinned for the repository's server."""
        url = urllib.parse.urlsplit(self.repository.url)
        if url.scheme != "ssh" or not url.hostname:
            return []
        address = self.repository.url.partition("@")[2].partition("/")[0].rpartition(":")[0].strip("[]")
        port = url.port or 22
        name = address if port == 22 else f"[{address}]:{port}"
        lines = read_text(self.settings.etc / "ssh" / "known_hosts").splitlines()
        return [line.partition(" ")[2] for line in lines if line.partition(" ")[0] == name]

    def hand_in(self, sealed: dict[str, Any]) -> None:
        """Have the controller keep what was sealed. Raises AgentError where it does not say that it does."""
        if not self.settings.controller_url:
            return  # by hand: it stays beside the passphrase, and the play returns it
        told = {
            "repository_id": self.repository.id,
            "url": self.repository.url,
            "host_keys": self.pins(),
            "recovery_key": sealed["recovery_key"],
            "sealed": sealed["sealed"],
        }
        status, answer = ask_controller(
            self.settings, "POST", "/agents/escrow", json.dumps(told).encode(), seconds=30
        )
        digest = hashlib.sha256(base64.b64decode(sealed["sealed"])).hexdigest()
        if not 200 <= status < 300 or answer.get("digest") != digest:
            detail = str(answer.get("detail") or f"it answered {status}")[:300]
            raise AgentError(
                "rotation",
                f"The controller did not take the sealed passphrase: {detail}.",
                "Nothing is lost: old and new passphrase stay on the host until it does.",
            )

    def forget(self) -> None:
        remove(self.journal)
        self.told = {}

    def opens(self, passphrase: Path) -> bool:
        """Whether the repository opens with the passphrase in this file. Raises AgentError where borg
        cannot tell."""
        status, _, said = self.borg(passphrase, "list", "--last", "1", "--short", self.repository.url)
        if status == 0:
            return True
        if "PassphraseWrong" in said:
            return False
        raise AgentError(
            "rotation",
            f"Repository {self.repository.id} cannot be asked: {self.clean(said)}",
            "See that its storage server is reachable; what was begun goes on by itself.",
        )

    def borg(self, passphrase: Path, *arguments: str, new: str = "") -> tuple[int, str, str]:
        """Run borg: exit status, output, errors. The new passphrase is in its environment, root's alone."""
        key = self.settings.etc / "ssh" / "id_ed25519"
        return direct_borg(self.settings, passphrase, key, str(self.told.get("id") or ""), *arguments, new=new)

    def clean(self, said: str) -> str:
        words = [read_text(path).strip() for path in (self.current, self.fresh, self.former)]
        return Redactor(words).clean(borg_words(said))
