"""What `borg prune` keeps, computed: of archives there are, and of those that a schedule will make.

The rules are Borg's own (1.4): `keep_within` first, then the newest archive of each period that no
rule kept yet, from the smallest period on; a rule that finds fewer than it may keep also keeps the
oldest archive. Periods are those of the zone of the host that prunes. A property test compares with
the real `borg prune --dry-run --list`.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

HOURS = {"H": 1, "d": 24, "w": 24 * 7, "m": 24 * 31, "y": 24 * 365}  # as Borg reckons keep_within
PERIODS: dict[str, Callable[[datetime], Any]] = {
    "hourly": lambda at: (at.year, at.month, at.day, at.hour),
    "daily": lambda at: (at.year, at.month, at.day),
    "weekly": lambda at: at.isocalendar()[:2],
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: at.year,
}
MOST_STEPS = 20_000  # prunes in one look ahead

Key = TypeVar("Key", bound=Hashable)


class Moment(NamedTuple, Generic[Key]):
    """An archive as retention sees it: its id, when it began, and its period for each rule in use."""

    key: Key
    at: datetime
    periods: tuple[Any, ...]


class Rules:
    """A policy's retention in a zone. Raises ValueError for a `keep_within` that Borg does not know."""

    def __init__(self, retention: Mapping[str, Any], zone: str = "UTC") -> None:
        within = retention.get("keep_within") or ""
        if within and within[-1] not in HOURS:
            raise ValueError(f"Borg knows no unit {within[-1]}: use one of {', '.join(HOURS)}")
        self.within = timedelta(hours=int(within[:-1]) * HOURS[within[-1]]) if within else None
        self.counts = [
            (name, count) for name in PERIODS if (count := retention.get(f"keep_{name}")) is not None and count
        ]
        self._zone = ZoneInfo(zone)

    @property
    def keeps_all(self) -> bool:
        """Whether there is no retention: then nothing is pruned."""
        return self.within is None and not self.counts

    def moment(self, key: Key, at: datetime) -> Moment[Key]:
        """Return an archive that began at `at` with its periods."""
        local = at.astimezone(self._zone)
        return Moment(key, at, tuple(PERIODS[name](local) for name, _ in self.counts))

    def kept(self, newest_first: Sequence[Moment[Key]], at: datetime) -> dict[Key, str]:
        """Return which archives a prune at `at` keeps, each with the rule ("daily 3") that does."""
        if self.keeps_all:
            return {each.key: "all" for each in newest_first}
        kept: dict[Key, str] = {}
        if self.within is not None:
            limit = at - self.within
            for each in newest_first:
                if each.at <= limit:
                    break
                kept[each.key] = f"within {len(kept) + 1}"
        for place, (name, count) in enumerate(self.counts):
            _split(newest_first, place, name, count, kept)
        return kept


def _split(
    newest_first: Sequence[Moment[Key]], place: int, name: str, count: int, kept: dict[Key, str]
) -> None:
    """Keep the newest archive of each of `count` periods, of those that no rule kept before."""
    last: Any = None
    found = 0
    for each in newest_first:
        period = each.periods[place]
        if period != last:
            last = period
            if each.key not in kept:
                found += 1
                kept[each.key] = f"{name} {found}"
                if found == count:
                    return
    if newest_first and newest_first[-1].key not in kept:
        kept[newest_first[-1].key] = f"{name} oldest"


def kept_now(
    archives: Mapping[Key, datetime], retention: Mapping[str, Any], zone: str, at: datetime
) -> dict[Key, str]:
    """Return which archives a prune at `at` keeps, and by which rule."""
    rules = Rules(retention, zone)
    moments = sorted((rules.moment(key, began) for key, began in archives.items()), key=_began, reverse=True)
    return rules.kept(moments, at)


def expiries(
    archives: Mapping[Key, datetime],
    retention: Mapping[str, Any],
    zone: str,
    at: datetime,
    runs: Iterable[datetime],
) -> dict[Key, datetime]:
    """Return when archives fall out of retention, were there a further archive and a prune at each of `runs`.

    An archive that outlives the runs is not named. `runs` are in order; the first MOST_STEPS count.
    """
    rules = Rules(retention, zone)
    moments: list[Moment[Any]] = [rules.moment(key, began) for key, began in archives.items()]
    standing = sorted(moments, key=_began, reverse=True)
    real, dropped = set(archives), dict[Any, datetime]()
    standing = _prune(rules, standing, at, dropped)
    for step, run in enumerate(runs):
        if step >= MOST_STEPS or len(real & dropped.keys()) == len(real):
            break
        standing = _prune(rules, [rules.moment(("run", step), run), *standing], run, dropped)
    return {key: moment for key, moment in dropped.items() if key in real}


def _prune(
    rules: Rules, standing: list[Moment[Any]], at: datetime, dropped: dict[Any, datetime]
) -> list[Moment[Any]]:
    kept = rules.kept(standing, at)
    if len(kept) == len(standing):
        return standing
    for each in standing:
        if each.key not in kept:
            dropped[each.key] = at
    return [each for each in standing if each.key in kept]


def _began(moment: Moment[Any]) -> datetime:
    return moment.at


def utc(moment: datetime) -> str:
    """Return a time as it travels to playbooks."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
