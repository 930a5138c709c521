"""Retention: what the simulator says is what the real `borg prune` does; and looking ahead."""

import os
import random
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from saveos.policies import retention
from saveos.policies.schemas import Retention

CHECKOUT = Path(__file__).parents[3]
POOL, REPOSITORIES = 36, 2  # archives in a repository; each is filled by a process of its own
ROUNDS = int(os.environ.get("SAVEOS_TEST_RETENTION_ROUNDS", "24"))  # more of them: more seeds, 0.7 s each
ZONES = ["UTC", "Europe/Zurich", "America/St_Johns", "Pacific/Kiritimati", "Pacific/Pago_Pago"]
LABELS = 6  # letters that a pattern chooses subsets by


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> list[SimpleNamespace]:
    """Repositories of empty archives over four years, at borders of periods too, named by random letters."""
    base = tmp_path_factory.mktemp("prune")
    borg = _borg(base)
    with ThreadPoolExecutor(REPOSITORIES) as threads:
        return list(threads.map(lambda seed: _fill(base, borg, seed), range(REPOSITORIES)))


def _borg(base: Path) -> str:
    directory = os.environ.get("SAVEOS_TEST_BORG")
    bundle = CHECKOUT / ".build/bundle" / f"saveos-bundle-{os.uname().machine}.tar.gz"
    if directory is None and bundle.exists():
        subprocess.run(["tar", "-xzf", bundle, "-C", base], check=True)
        directory = str(base)
    if directory is None:
        sentence = "no agent bundle in .build/bundle: build it with scripts/bundle.py"
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
    return f"{directory}/borg"


def _fill(base: Path, borg: str, seed: int) -> SimpleNamespace:
    draw = random.Random(seed)
    home = base / f"home{seed}"
    env = {"PATH": os.environ["PATH"], "BORG_BASE_DIR": str(home), "BORG_REPO": str(base / f"repo{seed}")}
    env |= {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "LC_ALL": "C.UTF-8"}
    home.mkdir()
    (empty := base / f"empty{seed}").touch()
    subprocess.run([borg, "init", "-e", "none"], env=env, check=True)
    archives: dict[str, datetime] = {}
    for at in _times(draw):
        name = "".join(draw.choice("ab") for _ in range(LABELS)) + f"-{len(archives)}"
        stamp = at.strftime("%Y-%m-%dT%H:%M:%S")
        subprocess.run([borg, "create", "--timestamp", stamp, f"::{name}", str(empty)], env=env, check=True)
        archives[name] = at
    return SimpleNamespace(borg=borg, env=env, archives=archives)


def _times(draw: random.Random) -> list[datetime]:
    at = datetime.now(UTC).replace(microsecond=0)
    near = {at - timedelta(minutes=draw.randint(5, 60 * 24 * 9)) for _ in range(POOL // 3)}
    far = {at - timedelta(days=draw.expovariate(1 / 200)) for _ in range(POOL // 3)}
    borders = set()
    while len(borders) < POOL - len(near) - len(far):
        year = draw.choice([at.year - 3, at.year - 2, at.year - 1])
        day = draw.choice([(1, 1), (12, 31), (12, 28), (3, 1), (10, 27), (10, 28), (3, 31)])
        local = datetime(
            year, *day, draw.choice([0, 1, 2, 23]), draw.randint(0, 59), tzinfo=ZoneInfo(draw.choice(ZONES))
        )
        borders.add(local.astimezone(UTC))
    return [each.replace(microsecond=0) for each in sorted(near | far | borders)]


def _drawn(draw: random.Random) -> dict[str, Any]:
    counts = [name for name in Retention.model_fields if name != "keep_within"]
    chosen = draw.sample(counts, draw.randint(1, len(counts)))
    found: dict[str, Any] = {name: draw.randint(0, 8) for name in chosen}
    if draw.random() < 0.6 or not any(found.values()):
        found["keep_within"] = draw.choice(["36H", "2d", "7d", "3w", "2m", "1y"])
    return found


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_the_real_prune_keeps_what_the_simulator_says(pools: list[SimpleNamespace], seed: int) -> None:
    draw = random.Random(1000 + seed)
    pool = draw.choice(pools)
    place, letter = draw.randrange(LABELS), draw.choice("ab*")
    pattern = "*" if letter == "*" else "?" * place + letter + "*"
    chosen = {name: at for name, at in pool.archives.items() if letter == "*" or name[place] == letter}
    asked, zone = _drawn(draw), draw.choice(ZONES)
    options = [f"--{key.replace('_', '-')}={value}" for key, value in asked.items()]
    ran = subprocess.run(
        [pool.borg, "prune", "--dry-run", "--list", "-a", pattern, *options],
        env=pool.env | {"TZ": zone},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = re.findall(r"^(?:Keeping archive \(rule: (.+?)\)|Would prune):\s+(\S+)", ran.stderr, re.MULTILINE)
    said = {
        name: rule.partition("[oldest]")[0] + " oldest" if "oldest" in rule else rule for rule, name in lines
    }
    found = retention.kept_now(chosen, asked, zone, datetime.now(UTC))
    assert {name: rule.replace("#", "") for name, rule in said.items()} == {
        name: found.get(name, "") for name in chosen
    }, f"{asked} in {zone}"


def test_no_retention_keeps_all() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    archives = {day: at - timedelta(days=day) for day in range(400)}
    assert retention.kept_now(archives, {}, "UTC", at) == dict.fromkeys(archives, "all")
    assert retention.expiries(archives, {}, "UTC", at, [at + timedelta(days=n) for n in range(9)]) == {}


def test_archives_expire_when_a_prune_after_a_later_archive_takes_them() -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    archives = {day: at - timedelta(days=day, hours=10) for day in range(5)}
    runs = [at + timedelta(days=n, hours=14) for n in range(20)]
    found = retention.expiries(archives, {"keep_within": "1d", "keep_daily": 3}, "UTC", at, runs)
    standing = retention.kept_now(archives, {"keep_within": "1d", "keep_daily": 3}, "UTC", at)
    for day, expires in found.items():
        assert (expires == at) == (day not in standing)
    assert found[0] == max(found.values())  # the newest goes last
    assert set(found) == set(archives)


def test_looking_ahead_is_what_happens_step_by_step() -> None:
    draw = random.Random(7)
    at = datetime(2026, 10, 20, 3, tzinfo=UTC)
    archives = {n: at - timedelta(hours=7 * n + draw.random()) for n in range(60)}
    asked = {"keep_within": "2d", "keep_daily": 7, "keep_weekly": 4, "keep_monthly": 2}
    runs = [at + timedelta(days=n + 1) for n in range(120)]
    said = retention.expiries(archives, asked, "Europe/Zurich", at, runs)
    living: dict[Any, datetime] = dict(archives)
    for step, moment in enumerate([at, *runs]):
        if step:
            living[f"new{step}"] = moment
        kept = retention.kept_now(living, asked, "Europe/Zurich", moment)
        for gone in [key for key in living if key not in kept]:
            del living[gone]
            assert isinstance(gone, str) or said[gone] == moment
    assert {key for key in living if isinstance(key, int)} == archives.keys() - said.keys()


def test_borg_knows_no_minutes() -> None:
    with pytest.raises(ValueError, match="unit S"):
        retention.Rules({"keep_within": "7S"})


def test_a_policy_takes_no_unit_that_borg_does_not_know():
    with pytest.raises(ValueError, match="Borg knows no unit M"):
        Retention(keep_within="30M")
