# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Objects that are marked deleted or were written over, and which of them were judged."""

from __future__ import annotations

import struct
from typing import Any

from saveos_guard.borg_files import Index
from saveos_guard.files import write
from saveos_guard.repository import Repository
from saveos_guard.view import View


def accepted(repository: Repository) -> dict[bytes, tuple[int, int] | None]:
    """Objects whose deletion was judged, and where each lived then."""
    try:
        with open(f"{repository.place}/accepted", "rb") as file:
            content = file.read()
    except OSError:
        return {}
    found: dict[bytes, tuple[int, int] | None] = {}
    for key, segment, offset in struct.iter_unpack("<32sII", content[: len(content) // 40 * 40]):
        found[key] = None if segment == Index.EMPTY else (segment, offset)
    return found


def accept_objects(repository: Repository, more: dict[str, Any], anew: bool = False) -> None:
    """Add objects to those judged (hex id → where it lives)."""
    known = {} if anew else accepted(repository)
    known.update({bytes.fromhex(key): tuple(where) if where else None for key, where in more.items()})
    packed = (struct.pack("<32sII", key, *(where or (Index.EMPTY, 0))) for key, where in sorted(known.items()))
    write(f"{repository.place}/accepted", b"".join(packed))


def marked(repository: Repository, view: View) -> tuple[dict[str, Any], dict[str, Any]]:
    """(deleted, written over): objects marked so since the last judgement; hex id → where it lives."""
    known = accepted(repository)
    deleted: dict[str, Any] = {}
    over: dict[str, Any] = {}
    for key, where in view.shadowed().items():
        if where is None and (key not in known or known[key] is not None):
            deleted[key.hex()] = None
        elif where is not None and (key not in known or known[key] not in (None, where)):
            over[key.hex()] = list(where)
    return deleted, over


def accept_all(repository: Repository, view: View) -> None:
    """All that is marked now was judged; what was marked before and is no more, is forgotten."""
    accept_objects(repository, {key.hex(): where for key, where in view.shadowed().items()}, anew=True)


def settle(repository: Repository, view: View) -> None:
    """All that is marked deleted was judged and is in order: the next run judges only what comes after."""
    accept_all(repository, view)
    spent = max(0, view.freeable_bytes - repository.baseline)
    repository.state["spent"] = min(repository.brought(), int(repository.state.get("spent") or 0) + spent)
    repository.state["baseline"] = view.freeable_bytes
    repository.save()
