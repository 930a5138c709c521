"""The ledger's chain, and what the policy lets go."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.guarded import load

guard = load()
DAY = 86_400
NOON = 1_900_000_800.0  # some day, at 12:00 UTC


def entry(ledger, number, at, seen=None, **more):
    """Enter an archive; returns its id."""
    name = f"{number:064x}"
    values = {"segment": number, "grown": 10, "files": 10, "size": 10_000_000, "adopted": False, **more}
    ledger.add(
        "archive",
        at,
        id=name,
        name=f"a{number}",
        at=at,
        told_at=at,
        seen=at if seen is None else seen,
        **values,
    )
    return name


@pytest.fixture
def ledger(tmp_path):
    return guard.Ledger(str(tmp_path / "ledger.jsonl"))


def lines(ledger):
    """Its lines."""
    return Path(ledger.path).read_bytes().splitlines(keepends=True)


def test_it_is_read_as_it_was_written(ledger):
    first = entry(ledger, 1, NOON)
    ledger.add("gone", NOON + 10, id=first, after=NOON)
    again = guard.Ledger(ledger.path)
    assert (again.broken, again.head, again.length) == ("", ledger.head, 2)
    assert again.archives[first].status == "gone" and again.archives[first].gone_at == NOON + 10


@given(st.data())
def test_no_line_can_be_changed_dropped_or_moved(tmp_path_factory, data):
    ledger = guard.Ledger(str(tmp_path_factory.mktemp("ledger") / "ledger.jsonl"))
    for number in range(5):
        entry(ledger, number, NOON + number)
    content = lines(ledger)
    which = data.draw(st.integers(0, 3))
    how = data.draw(st.sampled_from(["change", "drop", "swap"]))
    if how == "change":
        changed = json.loads(content[which])
        changed["size"] = 1
        content[which] = json.dumps(changed).encode() + b"\n"
    elif how == "drop":
        del content[which]
    else:
        content[which], content[which + 1] = content[which + 1], content[which]
    Path(ledger.path).write_bytes(b"".join(content))
    assert guard.Ledger(ledger.path).broken


def test_a_line_that_was_cut_off_was_never_acknowledged(ledger):
    entry(ledger, 1, NOON)
    entry(ledger, 2, NOON + 1)
    whole = b"".join(lines(ledger))
    Path(ledger.path).write_bytes(whole[:-20])
    again = guard.Ledger(ledger.path)
    assert (again.broken, again.length) == ("", 1)
    entry(again, 3, NOON + 2)
    assert guard.Ledger(ledger.path).length == 2


def go(ledger, name, after, at):
    """Have an archive be gone."""
    ledger.add("gone", at, id=name, after=after)


def policy(ledger, at, **rules):
    """Tell a policy."""
    ledger.add("policy", at, rules=rules, zone="UTC")


def judged(ledger, now, hold=14 * DAY, protected=()):
    """Numbers of the archives that were to go."""
    found = guard.gone_by_policy(ledger, set(protected), ledger.active_policies(now, hold))
    return {int(each, 16) for each in found}


def test_what_the_policy_drops_may_go_and_what_it_keeps_may_not(ledger):
    policy(ledger, NOON - 100 * DAY, keep_daily=3)
    names = [entry(ledger, number, NOON + number * DAY) for number in range(5)]
    now = NOON + 4 * DAY + 600
    for name in (names[0], names[3]):
        go(ledger, name, now - 1200, now)
    assert judged(ledger, now) == {0}


def test_archives_from_the_future_push_nothing_out(ledger):
    policy(ledger, NOON - 100 * DAY, keep_daily=3)
    names = [entry(ledger, number, NOON + number * DAY) for number in range(3)]
    now = NOON + 2 * DAY + 600
    for number in range(10, 17):
        entry(ledger, number, NOON + number * DAY, seen=now - 60)
    assert guard.odd_times(ledger) == {f"{number:064x}": "future" for number in range(10, 17)}
    for name in names:
        go(ledger, name, now - 600, now)
    assert judged(ledger, now) == set()


def test_back_dated_archives_push_nothing_out(ledger):
    policy(ledger, NOON - 100 * DAY, keep_daily=3)
    names = [entry(ledger, number, NOON + number * DAY) for number in range(5)]
    now = NOON + 4 * DAY + 600
    for number in range(3):
        entry(ledger, 20 + number, NOON + number * DAY + 3600, seen=now - 60)
    assert guard.odd_times(ledger) == {f"{20 + number:064x}": "unexpected" for number in range(3)}
    go(ledger, names[2], now - 600, now)
    assert judged(ledger, now) == set()


def test_a_long_first_backup_is_nothing_odd(ledger):
    entry(ledger, 1, NOON, seen=NOON + 9 * DAY)
    assert guard.odd_times(ledger) == {}


def test_a_shortened_policy_counts_after_the_hold(ledger):
    policy(ledger, NOON - 100 * DAY, keep_daily=30)
    names = [entry(ledger, number, NOON + number * DAY) for number in range(5)]
    now = NOON + 4 * DAY + 600
    policy(ledger, now - 60, keep_daily=1)
    go(ledger, names[0], now - 1200, now)
    assert judged(ledger, now) == set()
    assert judged(ledger, now + 15 * DAY) == {0}


def test_protected_archives_never_go(ledger):
    policy(ledger, NOON - 100 * DAY, keep_daily=1)
    names = [entry(ledger, number, NOON + number * DAY) for number in range(3)]
    now = NOON + 2 * DAY + 60
    go(ledger, names[0], now - 60, now)
    assert judged(ledger, now) == {0}
    assert judged(ledger, now, protected=[names[0]]) == set()


def test_without_a_policy_nothing_may_go(ledger):
    name = entry(ledger, 1, NOON)
    go(ledger, name, NOON + 1, NOON + 2)
    assert judged(ledger, NOON + 2) == set()


@given(
    st.lists(st.integers(0, 200 * 24), min_size=1, max_size=40, unique=True),
    st.fixed_dictionaries(
        {},
        optional={
            "keep_within": st.sampled_from(["1d", "36H", "2w"]),
            "keep_hourly": st.integers(0, 30),
            "keep_daily": st.integers(0, 20),
            "keep_weekly": st.integers(0, 10),
            "keep_monthly": st.integers(0, 6),
            "keep_yearly": st.integers(0, 2),
        },
    ),
)
def test_the_guard_and_the_controller_keep_the_same(hours, retention):
    """Two implementations of Borg's rules, written apart, agree."""
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    from saveos.policies.retention import kept_now

    at = NOON + 200 * DAY
    archives = {str(number): NOON + hour * 3600 for number, hour in enumerate(hours)}
    rules = guard.rules_of(retention)
    mine = guard.kept([(when, name) for name, when in archives.items()], rules, at, ZoneInfo("UTC"))
    times = {name: datetime.fromtimestamp(when, UTC) for name, when in archives.items()}
    theirs = kept_now(times, retention, "UTC", datetime.fromtimestamp(at, UTC))
    assert mine == (set(theirs) if rules else set(archives))


def test_an_archive_that_shrank_is_seen_until_it_is_accepted(ledger):
    for number in range(4):
        entry(ledger, number, NOON + number * DAY)
    assert guard.shrunk(ledger, 0.5) is None
    small = entry(ledger, 4, NOON + 4 * DAY, size=3_000_000)
    assert guard.shrunk(ledger, 0.5).id == small
    ledger.add("accept", NOON + 5 * DAY, approval="x", code="shrunk", ids=[small])
    assert guard.shrunk(ledger, 0.5) is None
    entry(ledger, 5, NOON + 5 * DAY, size=3_000_000)
    assert guard.shrunk(ledger, 0.5) is None
