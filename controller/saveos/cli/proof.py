"""Prove that an archive restores: a sample of live files is brought back elsewhere and compared by hash.

The sample is drawn from what is on the disk, not from the archive, so a file that the backup missed
is found too. Files that changed since the archive began are left out.
"""

import hashlib
import os
import random
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from saveos.cli import output
from saveos.cli.client import Client
from saveos.cli.errors import CommandError
from saveos.cli.installation import Installation
from saveos.cli.jobs import follow, require_success
from saveos.cli.progress import FAULTS

SAMPLE = 20
LOOK_AT = 20_000  # files; enough for a sample, whatever the size of the tree
LARGEST = 4_000_000  # bytes of one sampled file


def prove(
    client: Client, here: Installation, host: dict[str, Any], policy: dict[str, Any], archive: dict[str, Any]
) -> int:
    """Restore a sample of `archive` beside, compare and remove it; return the number of files.

    Raises CommandError when a file is missing or differs.
    """
    chosen = sample(policy, datetime.fromisoformat(archive["started_at"]).timestamp())
    if not chosen:
        output.say("There is no unchanged file to compare: nothing was restored.")
        return 0
    output.say(f"Restoring {len(chosen)} files to compare them")
    staging = here.home / "proof"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        body = {"archive": archive["id"], "paths": [str(path) for path in chosen], "destination": str(staging)}
        made = client.post("/restores", body, once=True)
        require_success(client, follow(client, made["job"]["id"], FAULTS))
        wrong = [path for path in chosen if not _same(path, staging / path.relative_to("/"))]
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if wrong:
        names = ", ".join(output.clean(path) for path in wrong[:5])
        raise CommandError(
            f"{len(wrong)} of {len(chosen)} restored files are not what is on the disk: {names}. "
            f"Look at the archive with: saveos archives show {archive['id']}"
        )
    output.say(f"All {len(chosen)} restored files of {host['name']} are equal to the live ones.")
    return len(chosen)


def sample(policy: dict[str, Any], before: float) -> list[Path]:
    """Return up to SAMPLE unchanged regular files of a policy's sources, drawn over all of them."""
    # Where a person's own borgmatic settings decide, we cannot know what they leave out.
    excluded = ["/"] if policy.get("overrides") else list(policy.get("excludes") or [])
    found: list[Path] = []
    for source in policy["sources"]:
        candidates = list(_unchanged(Path(source), excluded, before))
        found += random.sample(candidates, min(len(candidates), SAMPLE))
    random.shuffle(found)
    return sorted(found[:SAMPLE])


def _unchanged(source: Path, excluded: list[str], before: float) -> Iterator[Path]:
    """Yield regular files below `source` that the archive must hold and that did not change since `before`."""
    left = LOOK_AT
    for directory, names, files in os.walk(source):
        if "CACHEDIR.TAG" in files:
            names.clear()
            continue
        names[:] = [name for name in names if not _is_excluded(Path(directory, name), excluded)]
        for name in files:
            left -= 1
            if left < 0:
                return
            path = Path(directory, name)
            if _is_excluded(path, excluded) or not str(path).isprintable():
                continue
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                if status.st_size <= LARGEST and max(status.st_mtime, status.st_ctime) < before:
                    yield path


def _is_excluded(path: Path, patterns: list[str]) -> bool:
    """Whether a pattern could leave this path out; a pattern that is no plain path counts for every path."""
    return any(
        not pattern.startswith("/") or "*" in pattern or path.is_relative_to(pattern) for pattern in patterns
    )


def _same(live: Path, restored: Path) -> bool:
    try:
        return _digest(live) == _digest(restored)
    except OSError:
        return False


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
