# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Rotations of all kinds: what this host holds, what is open, and finishing that."""

from __future__ import annotations

import argparse
import subprocess
from typing import Any

from saveos_agent.errors import AgentError
from saveos_agent.identity import KeyRotation, TokenRotation
from saveos_agent.passphrase import PassphraseRotation
from saveos_agent.secret_files import about
from saveos_agent.settings import Settings
from saveos_agent.state import Lock


def settle_rotations(settings: Settings) -> list[str]:
    """With the lock held: finish what interrupted rotations left. What cannot be now, waits; its reasons."""
    waiting = []
    rotations: list[PassphraseRotation | TokenRotation] = [
        PassphraseRotation(settings, each) for each in settings.repositories
    ]
    for open_ in (*rotations, TokenRotation(settings)):
        try:
            open_.settle()
        except (AgentError, OSError, subprocess.SubprocessError) as error:
            waiting.append(error.message if isinstance(error, AgentError) else str(error))
    return waiting


def settle_when_free(settings: Settings) -> None:
    """Finish interrupted rotations unless a run is at work."""
    rotations = [PassphraseRotation(settings, each) for each in settings.repositories]
    if any(each.is_open() for each in rotations) or TokenRotation(settings).is_open():
        with Lock(settings) as lock:
            if lock.acquire(0):
                settle_rotations(settings)


def held_secrets(settings: Settings) -> list[dict[str, Any]]:
    """What this host holds: kind, subject, when made, who may read it, what is open; never a value."""
    found = []
    for repository in settings.repositories:
        rotation = PassphraseRotation(settings, repository)
        found.append(about("passphrase", repository.id, rotation.current, rotation.is_open()))
        found.append(about("escrow", repository.id, rotation.home / "sealed", False))
    key, token = KeyRotation(settings), TokenRotation(settings)
    found.append(about("ssh-key", "", key.current, key.fresh.exists() or key.former.exists()))
    found.append(about("agent-token", "", token.current, token.is_open()))
    return found


def rotate(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """The verb's work, with the lock held."""
    done: dict[str, Any] = {"kind": options.kind, "rotated": [], "settled": []}
    if options.kind == "passphrase":
        chosen = (
            [settings.repository(options.repository)] if options.repository else list(settings.repositories)
        )
        for repository in chosen:
            PassphraseRotation(settings, repository).begin(options.recovery_key, options.seal)
            done["rotated"].append(repository.id)
    elif options.kind == "agent-token":
        TokenRotation(settings).begin()
        done["rotated"].append("")
    elif options.kind == "ssh-key":
        done["identity"] = getattr(KeyRotation(settings), options.phase)()
        if options.phase == "prove":
            done["rotated"].append("")
    else:
        done["waiting"] = settle_rotations(settings)
    return done
