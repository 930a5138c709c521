"""Ordinary life: days of backups, prune and compaction free what retention says, and nothing is held falsely.

Real Borg under libfaketime. SAVEOS_TEST_DAYS=200 lives as long as the issue asks for (about a second a day).
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from saveos.policies.retention import kept_now

from tests.guarded import FAKETIME, REPOSITORY, Storage

DAYS = int(os.environ.get("SAVEOS_TEST_DAYS", "16"))
START = datetime(2030, 1, 1, 2, tzinfo=UTC)
HOLD = 3 if DAYS < 60 else 14
EVERY = 2 if DAYS < 60 else 7  # days between two compactions
RETENTION = {"keep_within": "2d", "keep_daily": 4, "keep_weekly": 2, "keep_monthly": 2}
SIZE = 60_000


def live_through(storage: Storage, day: int, contents: dict[str, dict[str, int]]) -> None:
    """One day on the host: files come, change and go; one comes back as it was; a backup and the policy."""
    for number in (day, day - 6):
        file = storage.source / f"day{number}"
        if number == day:
            storage.write(file.name, 1000 + day, SIZE)
        else:
            file.unlink(missing_ok=True)
    storage.write("always-other", 5000 + day, SIZE)
    (storage.source / "comes-back").unlink(missing_ok=True)
    if day % 9 < 3:
        storage.write("comes-back", 7, SIZE)
    storage.back_up(f"day{day}")
    contents[f"day{day}"] = {
        str(hash(file.read_bytes())): file.stat().st_size for file in storage.source.iterdir() if file.is_file()
    }
    storage.now += 3600  # so that no archive is just as old as a rule's edge
    storage.prune()


def unique(names: set[str], contents: dict[str, dict[str, int]]) -> int:
    """Bytes that some archives hold together."""
    return sum({key: size for name in names for key, size in contents[name].items()}.values())


def used(path: Path) -> int:
    """Bytes of files below a directory, each inode once."""
    found = {file.stat().st_ino: file.stat().st_size for file in path.rglob("*") if file.is_file()}
    return sum(found.values())


def test_days_of_backups_free_what_the_policy_lets_go(tmp_path: Path, programs: tuple[str, str]) -> None:
    """Every day what lives is what the controller's simulator said; space follows; no reason ever holds."""
    if not FAKETIME.exists():
        sentence = "time cannot be simulated: apt-get install libfaketime"
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
    storage = Storage(
        tmp_path, programs[0], hold_days=HOLD, compact_every_hours=24 * EVERY - 1, check_seconds=5
    )
    storage.retention = RETENTION
    contents: dict[str, dict[str, int]] = {}
    history: list[set[str]] = []
    compacted = 0
    for day in range(DAYS):
        moment = START + timedelta(days=day)
        storage.now = moment.timestamp()
        live_through(storage, day, contents)
        storage.now += 3600
        report = storage.told_and_run()
        assert report["state"] in ("ok", "compacted"), (day, report)
        assert not report["reasons"], (day, report["reasons"])
        compacted += report["state"] == "compacted"
        times = {each["name"]: datetime.fromisoformat(each["at"]) for each in storage.archives}
        alive = {
            name: when for name, when in times.items() if day == 0 or name in history[-1] or name == f"day{day}"
        }
        said = set(kept_now(alive, RETENTION, "UTC", moment + timedelta(hours=1)))
        history.append(said)
        if day % 10 == 9 or day == DAYS - 1:
            assert storage.names() == said, day
        keyless = storage.guard.Ledger(str(storage.state / REPOSITORY / "ledger.jsonl")).of("live")
        assert {entry.name for entry in keyless} == said, day
    live, total, expected = (
        used(storage.path / "data"),
        used(storage.base / "root"),
        unique(history[-1], contents),
    )
    print(f"{DAYS} days, {compacted} compactions: {unique(set(contents), contents)} bytes were written")
    print(f"{expected} bytes live by the simulator, {live} on the disk, {total} with what is held")
    assert compacted >= (DAYS - 6) // (2 * EVERY)
    # segments less than a tenth freeable are left as they are, and so is what was pruned since the last time
    since = unique(set().union(*history[-EVERY - 1 :]), contents)
    assert expected <= live <= since * 1.2 + 200_000, (expected, since, live)
    storage.now += (HOLD + 2) * 86_400
    storage.tell()
    assert storage.run(compact=False)["state"] == "ok"
    freed = used(storage.base / "root")
    print(f"{freed} bytes after the hold")
    assert freed <= live * 1.1 + 300_000, (freed, live)
    storage.client("check", "--verify-data", storage.url)
    restored = storage.restore(f"day{DAYS - 1}")
    assert {name: len(data) for name, data in restored.items()} == {
        file.name: file.stat().st_size for file in storage.source.iterdir()
    }
