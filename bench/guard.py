"""The guard: how long a run takes for a repository, what its copies cost, and how long an undo takes."""

import argparse
import os
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench.common import Table, timed
from tests.guarded import CHECKOUT, Storage


def flags(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's flags."""
    parser.add_argument(
        "--guard-files", type=int, default=5_000, help="files of the repository's first archive"
    )
    parser.add_argument("--guard-megabytes", type=int, default=300, help="what they hold together")


def borg(folder: Path) -> str:
    """Return Borg of SAVEOS_TEST_BORG's directory, else of the built bundle."""
    if directory := os.environ.get("SAVEOS_TEST_BORG"):
        return f"{directory}/borg"
    bundle = next((CHECKOUT / ".build/bundle").glob(f"saveos-bundle-{os.uname().machine}.tar.gz"))
    subprocess.run(["tar", "-xzf", bundle, "-C", folder], check=True)
    return f"{folder}/borg"


def run(options: argparse.Namespace) -> Table:
    """Let a guard look after one repository through backups, a prune, a compact and an undo."""
    megabytes, files = options.guard_megabytes, options.guard_files
    table = Table(
        f"Guard of one repository of {megabytes} MB in {files} files (a tenth of it changes in each backup)",
        ("what", "seconds", "extra bytes of all copies"),
        "Random content, so nothing deduplicates or compresses.",
    )
    with tempfile.TemporaryDirectory(prefix="saveos-bench-") as name:
        folder = Path(name)
        (folder / "program").mkdir()
        storage = Storage(folder, borg(folder / "program"), check_seconds=3600)
        storage.retention = {"keep_daily": 1}
        dice, size = random.Random(1), megabytes * 1_000_000 // files

        def change(numbers: range) -> None:
            for number in numbers:
                (storage.source / f"f{number}").write_bytes(dice.randbytes(size))

        def row(what: str, act: Any) -> None:
            found: list[Any] = []
            seconds = timed(lambda: found.append(act()))
            held = found[0].get("held_bytes") if isinstance(found[0], dict) else None
            table.add(what, f"{seconds:.2f}", "" if held is None else f"{held:,}")

        def judged() -> Any:
            storage.tell()
            return storage.run()

        change(range(files))
        storage.back_up("a0")
        storage.wait()
        row("first run: copy, judge, check of every segment", judged)
        row("run with nothing new", judged)
        for number in range(1, 4):
            change(range(number, files, 10))
            storage.back_up(f"a{number}")
        storage.wait()
        row("run after three backups", judged)
        storage.prune()
        storage.wait()
        row("run after prune, with compact", judged)
        storage.client("delete", f"{storage.url}::a3")
        storage.wait()
        row("run that holds after all was deleted", judged)
        row("undo", storage.undo)
    return table
