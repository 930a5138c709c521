# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Rotation of what this host is known by: its SSH key at the storage servers, its token at the controller.

Old and new are let in beside each other until the new one was used; then the old one goes.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
from pathlib import Path

from saveos_agent.delivery import ask_controller
from saveos_agent.direct_borg import borg_words, direct_borg
from saveos_agent.errors import AgentError, refused
from saveos_agent.files import remove, write_text
from saveos_agent.secret_files import put_in_force, read_text
from saveos_agent.settings import Repository, Settings


class KeyRotation:
    """The key by which this host reaches its storage servers; the play lets it in and the old one out."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.current = settings.etc / "ssh" / "id_ed25519"
        self.fresh = self.current.with_name("id_ed25519.next")
        self.former = self.current.with_name("id_ed25519.old")

    def offer(self) -> dict[str, str]:
        """Make a new key beside the one in force, once; both public halves."""
        if not public_half(self.fresh):
            remove(self.fresh)
            remove(self.fresh.with_name(self.fresh.name + ".pub"))
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"saveos:{self.settings.host}"]
            done = subprocess.run([*argv, "-f", str(self.fresh)], capture_output=True, timeout=60, check=False)
            if done.returncode:
                raise AgentError("rotation", "ssh-keygen cannot make a key.", "See that it is installed.")
        return {"public_key": self.own(), "next_public_key": public_half(self.fresh)}

    def own(self) -> str:
        return public_half(self.current) or " ".join(read_text(self.public).split()[:2])

    @property
    def public(self) -> Path:
        return self.current.with_name("id_ed25519.pub")

    def prove(self) -> dict[str, str]:
        """Use the new key at every server; only where all let it in is it put in force."""
        if self.fresh.exists():
            for repository in self.settings.repositories:
                self.use(repository, self.fresh)
            comment = f"saveos:{self.settings.host}"
            put_in_force(self.fresh, self.current, self.former)
            write_text(self.public, f"{public_half(self.current)} {comment}\n", 0o644)
            remove(self.fresh.with_name(self.fresh.name + ".pub"))
        return {"public_key": self.own()}

    def drop(self) -> dict[str, str]:
        """Once the servers let only the new key in: see that it is so, and forget the old one."""
        for repository in self.settings.repositories:
            self.use(repository, self.current)
        remove(self.former)
        return {"public_key": self.own()}

    def use(self, repository: Repository, key: Path) -> None:
        if not repository.url.startswith("ssh://"):
            return
        passphrase = self.settings.etc / "repositories" / repository.id / "passphrase"
        argv = ("list", "--last", "1", "--short", repository.url)
        status, _, said = direct_borg(self.settings, passphrase, key, "", *argv)
        if status:
            raise AgentError(
                "rotation",
                f"Repository {repository.id} cannot be reached with the key {key.name}: {borg_words(said)}",
                "The key before stays in force; converge the storage server, then rotate again.",
            )


def public_half(key: Path) -> str:
    """Type and base64 of a private key's public half; empty where there is no readable key."""
    if not key.exists():
        return ""
    done = subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", str(key)], capture_output=True, timeout=60, check=False
    )
    return "" if done.returncode else " ".join(done.stdout.decode().split()[:2])


class TokenRotation:
    """The token by which the controller knows this host: told to it, put in force, the one before ended."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.current = settings.etc / "token"
        self.fresh, self.former = settings.etc / "token.next", settings.etc / "token.old"

    def is_open(self) -> bool:
        return self.fresh.exists() or self.former.exists()

    def begin(self) -> None:
        if not self.settings.controller_url:
            raise refused("This host has no controller, so its token is used nowhere.", "Leave it.")
        self.settle()
        write_text(self.fresh, secrets.token_urlsafe(32) + "\n")
        self.settle()

    def settle(self) -> str:
        """Finish what is open; empty where nothing is."""
        if not self.is_open():
            return ""
        if self.fresh.exists():
            self.tell(self.fresh)
            put_in_force(self.fresh, self.current, self.former)
        self.tell(self.current)  # as itself: the others end
        remove(self.former)
        return "finished"

    def tell(self, token: Path) -> None:
        digest = hashlib.sha256(token.read_text().strip().encode()).hexdigest()
        body = json.dumps({"token_sha256": digest}).encode()
        status, answer = ask_controller(self.settings, "POST", "/agents/token", body, seconds=30)
        if not 200 <= status < 300:
            detail = str(answer.get("detail") or f"it answered {status}")[:300]
            raise AgentError(
                "rotation",
                f"The controller did not take the new token: {detail}.",
                "The one before stays in force.",
            )
