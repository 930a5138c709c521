"""The rules: what is judged from facts, in SQL, and the sentences about it.

A family judges one kind of object in one statement; of its rules at most one holds for an object at
a time. The families of hosts are here; a feature that stands higher on the ladder brings its own
(`repositories.rules`), whose sentences are here with all others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, case, func, null, or_, select

from saveos.hosts.models import Host
from saveos.hosts.service import PROVEN_FOR, proof_ended, protection_sql

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[str, ...] = ("critical", "warning", "info")

ENROL_WITHIN = timedelta(hours=1)
FIRST_BACKUP_WITHIN = timedelta(days=1)
PAUSED_WITHOUT = timedelta(days=30)  # a backup: then somebody forgot that the host is paused
DISK_FULL, DISK_LOW = 0.05, 0.10  # of a file system's space or inodes, free
DISK_SLACK = 0.01  # so much must be free beyond that before an alert ends, so that it does not flutter
CLOCK_OFF, CLOCK_SLACK = 60.0, 20.0  # seconds

Facts = Any  # a row of the family's `judged`


@dataclass(frozen=True)
class Rule:
    """How grave a cause is and its name; for judged rules since when, the sentence, and how it ended."""

    severity: Severity
    title: str
    since: Callable[[Facts], datetime | None] = lambda facts: None
    sentence: Callable[[Facts], str] = lambda facts: ""
    ended: Callable[[Facts], str] = lambda facts: f"{facts.name} is well again."


@dataclass(frozen=True)
class Family:
    """Rules of one kind of object ("host", "repository") that exclude each other.

    `judged` selects, for a time, id, tenant_id, host_id, name, state (the host's), what the sentences
    use, and `rule`: the one that holds, or null. `held` is the same with some slack: an alert stays
    while either names its rule.
    """

    kind: str
    rules: tuple[str, ...]
    judged: Callable[[datetime], Select[Any]]


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "never"


def _share(share: float | None) -> str:
    return f"{max(0.0, share or 0.0) * 100:.1f} %"


def _overdue(facts: Facts) -> str:
    return (
        f"{facts.name} has no backup since {_time(facts.last_backup_at)}; one was due by {_time(facts.due_at)}."
    )


def _silent(facts: Facts) -> str:
    seen = f"was last heard of at {_time(facts.seen_at)}" if facts.seen_at else "was never heard of"
    due = f"; its next backup is due by {_time(facts.due_at)}" if facts.due_at else ""
    return f"{facts.name} {seen}{due}. Is it running and connected?"


def _failed(facts: Facts) -> str:
    at, last = _time(facts.last_run_at), _time(facts.last_backup_at)
    return f"The backup of {facts.name} failed at {at}. Last good backup: {last}."


def _incomplete(facts: Facts) -> str:
    return (
        f"The backup of {facts.name} at {_time(facts.last_run_at)} lacks something: paths that could not be "
        "read, or most of what there was. Its run says what, on the host's page."
    )


def _paused_long(facts: Facts) -> str:
    last = f"since {_time(facts.last_backup_at)}" if facts.last_backup_at else "at all"
    return f"{facts.name} is paused, so nobody watches it, and has no backup {last}: resume it, or take it out."


def _policy_waits(facts: Facts) -> str:
    return (
        f"{facts.name} backs up without what changed in the policy {facts.policy} at "
        f"{_time(facts.changed_at)}: saveos maintenance provision {facts.name}"
    )


def _never_enrolled(facts: Facts) -> str:
    return f"{facts.name} is in the inventory since {_time(facts.created_at)} but was never provisioned."


def _never_backed_up(facts: Facts) -> str:
    return f"{facts.name} is in care since {_time(facts.created_at)} and has no backup yet."


def _backed_up(facts: Facts) -> str:
    last = _time(facts.last_backup_at) if facts.last_backup_at else "none yet"
    return f"{facts.name} is well again. Last backup: {last}."


def _disk(facts: Facts) -> str:
    stored, own = facts.storage_free_share, facts.disk_free_share
    if stored is not None and (own is None or stored <= own):
        return (
            f"The file system of the repositories on {facts.name} has {_share(stored)} left: "
            "give it more space, or backups to it will fail."
        )
    return f"A file system of {facts.name} has {_share(own)} left: free some, or its backups can fail."


def _disk_ended(facts: Facts) -> str:
    shares = [share for share in (facts.disk_free_share, facts.storage_free_share) if share is not None]
    return f"{facts.name} has space again: {_share(min(shares, default=None))} left."


def _clock(facts: Facts) -> str:
    seconds = abs(facts.clock_skew)
    span = f"{seconds:.0f} seconds" if seconds < 600 else f"{seconds / 60:.0f} minutes"
    way = "ahead" if facts.clock_skew > 0 else "behind"
    return f"The clock of {facts.name} is {span} {way}: let chrony or systemd-timesyncd set it."


def _quota(facts: Facts) -> str:
    used = f"{facts.size / facts.quota_bytes * 100:.0f} %" if facts.quota_bytes else "all"
    return (
        f"The repository of {facts.name} uses {used} of its quota {facts.quota}: raise it "
        f"(saveos repositories set {facts.id}), or backups to it will fail."
    )


def _mismatch(facts: Facts) -> str:
    last = f"its last commit is of {_time(facts.last_commit_at)}" if facts.last_commit_at else "it has none"
    return (
        f"{facts.name} says it made an archive at {_time(facts.claimed_at)}, but its storage server "
        f"{facts.server} never saw it: {last}. Find out where that backup went."
    )


def _left_out(facts: Facts) -> str:
    return (
        f"{facts.name} backs up, but {_place(facts)} got no archive since {_time(facts.served_at)}: "
        f"saveos maintenance provision {facts.name}"
    )


def _place(facts: Facts) -> str:
    return f"its repository on {facts.server}" if facts.server else "the repository on its own disk"


def _damaged(facts: Facts) -> str:
    return f"The repository of {facts.name} on {facts.server} is not in order: {facts.fault}."


def _quota_near(facts: Facts) -> str:
    used = f"{facts.size / facts.quota_bytes * 100:.0f} %" if facts.quota_bytes else "much"
    return (
        f"The repository of {facts.name} uses {used} of its quota {facts.quota}: see how it grows on the page "
        "Storage, and raise the quota in time."
    )


def _guard_held(facts: Facts) -> str:
    return (
        f"The guard of {facts.server} holds the repository of {facts.name} and frees nothing: {facts.detail}. "
        f"See what would be destroyed: saveos repositories guard {facts.id}"
    )


def _guard_silent(facts: Facts) -> str:
    if facts.reported_at is None:
        return (
            f"The storage server {facts.name} was never guarded: provision it, then "
            f"saveos maintenance guard {facts.name}"
        )
    return (
        f"The guard of {facts.name} has not reported since {_time(facts.reported_at)}: is the server running, "
        "and the schedule of the operation guard switched on?"
    )


def _guard_refused(facts: Facts) -> str:
    return f"The guard of {facts.name} refused to hold copies for less time: {facts.refused}. Who asked for it?"


def _check_failed(facts: Facts) -> str:
    return f"A check of the repository of {facts.name} found something: {facts.check_detail or 'it failed'}."


def _check_late(facts: Facts) -> str:
    return (
        f"The repository of {facts.name} was not checked in time (on its server: {_time(facts.keyless_at)}, "
        f"with its data: {_time(facts.data_at)}): saveos maintenance check {facts.name}"
    )


def _checked(facts: Facts) -> str:
    return f"The checks of the repository of {facts.name} are in order again."


def _drill_failed(facts: Facts) -> str:
    return f"Archives of {facts.name} cannot all be restored: {facts.drill_error}"


def _not_proven(facts: Facts) -> str:
    last = f"was last at {_time(facts.last_proven_at)}" if facts.last_proven_at else "never was"
    return f"That the archives of {facts.name} can be restored {last} proven: saveos drills run {facts.name}."


def _proven(facts: Facts) -> str:
    return f"A drill restored the newest archives of {facts.name} at {_time(facts.last_proven_at)}."


def _drifted(facts: Facts) -> str:
    return (
        f"{facts.name} differs from what provisioning would make of it, at least since "
        f"{_time(facts.drifted_since)}: saveos maintenance drift {facts.name} --last"
    )


def _found(facts: Facts) -> str:
    others = f" (and {facts.critical - 1} more)" if facts.critical > 1 else ""
    return f"{facts.operation} found on {facts.name}: {facts.worst}{others}"


RULES: dict[str, Rule] = {
    "overdue": Rule("warning", "backup overdue", lambda facts: facts.due_at, _overdue, _backed_up),
    "silent": Rule("critical", "agent silent", lambda facts: facts.silent_since, _silent, _backed_up),
    "failed": Rule("critical", "backup failed", lambda facts: facts.last_run_at, _failed, _backed_up),
    "incomplete": Rule(
        "warning", "backup incomplete", lambda facts: facts.last_run_at, _incomplete, _backed_up
    ),
    "never_enrolled": Rule(
        "warning",
        "never enrolled",
        lambda facts: facts.created_at,
        _never_enrolled,
        lambda facts: f"{facts.name} is provisioned.",
    ),
    "never_backed_up": Rule(
        "warning", "never backed up", lambda facts: facts.created_at, _never_backed_up, _backed_up
    ),
    "disk_full": Rule("critical", "disk nearly full", sentence=_disk, ended=_disk_ended),
    "disk_low": Rule("warning", "disk filling up", sentence=_disk, ended=_disk_ended),
    "paused_long": Rule(
        "warning",
        "paused and forgotten",
        lambda facts: facts.last_backup_at,
        _paused_long,
        lambda facts: f"{facts.name} is no longer paused.",
    ),
    "clock": Rule(
        "warning",
        "clock is wrong",
        sentence=_clock,
        ended=lambda facts: f"The clock of {facts.name} is right again.",
    ),
    "drill_failed": Rule(
        "critical", "restore drill failed", lambda facts: facts.last_drill_at, _drill_failed, _proven
    ),
    "not_proven": Rule("warning", "restore not proven", sentence=_not_proven, ended=_proven),
    "quota": Rule(
        "warning",
        "quota nearly used up",
        sentence=_quota,
        ended=lambda facts: f"The repository of {facts.name} is well below its quota again.",
    ),
    "mismatch": Rule(
        "critical",
        "backup never reached its server",
        lambda facts: facts.missing_since,
        _mismatch,
        lambda facts: f"The storage server of {facts.name} has what the host tells of.",
    ),
    "left_out": Rule(
        "warning",
        "repository left out",
        lambda facts: facts.served_at,
        _left_out,
        lambda facts: f"All repositories of {facts.name} get archives again.",
    ),
    "repository_damaged": Rule(
        "critical",
        "repository not in order",
        sentence=_damaged,
        ended=lambda facts: f"The repository of {facts.name} is in order again.",
    ),
    "finding": Rule(
        "critical",
        "critical finding",
        lambda facts: facts.critical_since,
        _found,
        lambda facts: f"{facts.operation} finds nothing critical on {facts.name} any more.",
    ),
    "quota_near": Rule(
        "info",
        "quota filling up",
        sentence=_quota_near,
        ended=lambda facts: f"The repository of {facts.name} is below its quota again.",
    ),
    "guard_held": Rule(
        "critical",
        "guard holds a repository",
        lambda facts: facts.held_since,
        _guard_held,
        lambda facts: f"The guard holds the repository of {facts.name} no more.",
    ),
    "guard_silent": Rule(
        "warning",
        "guard silent",
        lambda facts: facts.reported_at,
        _guard_silent,
        lambda facts: f"The guard of {facts.name} reports again.",
    ),
    "guard_refused": Rule(
        "warning",
        "guard refused a shorter hold",
        sentence=_guard_refused,
        ended=lambda facts: f"The guard of {facts.name} is no longer asked to hold copies for less time.",
    ),
    "check_failed": Rule("critical", "check failed", sentence=_check_failed, ended=_checked),
    "check_late": Rule("warning", "check overdue", sentence=_check_late, ended=_checked),
    "drifted": Rule(
        "warning",
        "host drifted",
        lambda facts: facts.drifted_since,
        _drifted,
        lambda facts: f"{facts.name} is as provisioning makes it again.",
    ),
    "policy_waits": Rule(
        "warning",
        "policy not in place",
        lambda facts: facts.changed_at,
        _policy_waits,
        lambda facts: f"{facts.name} has its policy as it is now.",
    ),
    "certificate": Rule("critical", "certificate near its end"),
    "own_backup": Rule("critical", "controller not backed up"),
    "channel_failing": Rule("warning", "channel does not deliver"),
    "schedule_failed": Rule("warning", "schedule did not start"),
}


def title(rule: str) -> str:
    """Return a rule's name for people; a later feature may open alerts of rules that are not listed here."""
    return RULES[rule].title if rule in RULES else rule.replace("_", " ")


def one_line(sentence: str) -> str:
    """Return a sentence on one line, without control characters, bounded."""
    if not sentence.isprintable():
        sentence = "".join(each if each.isprintable() else " " for each in sentence)
    return sentence[:500]


def watched() -> ColumnElement[bool]:
    """Whether a host is looked after, as SQL over Host."""
    return Host.state.in_(("pending", "enrolled"))


def cause(at: datetime) -> ColumnElement[str | None]:
    """Return the one rule about backups that holds for a host at a time, as SQL; null when all is well.

    It follows the host's protection, so alerts and lists never contradict each other: a host that
    falls silent is no longer merely overdue.
    """
    protection = protection_sql(at)
    waited = or_(Host.created_at < at - FIRST_BACKUP_WITHIN, Host.due_at < at)
    return case(
        (~watched(), null()),
        (and_(Host.state == "pending", Host.created_at < at - ENROL_WITHIN), "never_enrolled"),
        (protection == "silent", "silent"),
        (protection == "failing", "failed"),
        (protection == "late", "overdue"),
        (and_(protection == "never", waited), "never_backed_up"),
        (and_(protection == "protected", Host.last_run_state == "incomplete"), "incomplete"),
    )


def _of_hosts(*facts: Any, rule: ColumnElement[Any], held: ColumnElement[Any]) -> Select[Any]:
    return select(
        Host.id,
        Host.tenant_id,
        Host.id.label("host_id"),
        Host.name,
        Host.state,
        *facts,
        rule.label("rule"),
        held.label("held"),
    )


def _protection(at: datetime) -> Select[Any]:
    holds = cause(at)
    times = (Host.created_at, Host.seen_at, Host.due_at, Host.last_run_at, Host.last_backup_at)
    silent_since = func.coalesce(Host.heartbeat_at, Host.due_at).label("silent_since")
    return _of_hosts(*times, silent_since, rule=holds, held=holds)


def _disks(at: datetime) -> Select[Any]:
    def below(limit: float) -> ColumnElement[bool]:
        return or_(Host.disk_free_share < limit, Host.storage_free_share < limit)

    def judge(slack: float) -> ColumnElement[Any]:
        return case(
            (~watched(), null()),
            (below(DISK_FULL + slack), "disk_full"),
            (below(DISK_LOW + slack), "disk_low"),
        )

    return _of_hosts(Host.disk_free_share, Host.storage_free_share, rule=judge(0), held=judge(DISK_SLACK))


def _clocks(at: datetime) -> Select[Any]:
    def judge(limit: float) -> ColumnElement[Any]:
        return case((and_(watched(), func.abs(Host.clock_skew) > limit), "clock"))

    return _of_hosts(Host.clock_skew, rule=judge(CLOCK_OFF), held=judge(CLOCK_OFF - CLOCK_SLACK))


def _drills(at: datetime) -> Select[Any]:
    """Judge only hosts that back up: of the others their own rules tell."""
    old = at - PROVEN_FOR
    never = and_(Host.last_proven_at.is_(None), Host.created_at < old)
    due = and_(or_(proof_ended(at), never), Host.last_backup_at >= old)
    holds = case(
        (or_(~Host.is_agent, Host.state != "enrolled"), null()),
        (Host.last_drill_state == "failed", "drill_failed"),
        (due, "not_proven"),
    )
    return _of_hosts(Host.last_proven_at, Host.last_drill_at, Host.drill_error, rule=holds, held=holds)


def _pauses(at: datetime) -> Select[Any]:
    """Judge paused agents, which no other rule does: that nobody watches them is for a while."""
    old = func.coalesce(Host.last_backup_at, Host.created_at) < at - PAUSED_WITHOUT
    holds = case((and_(Host.state == "paused", Host.is_agent, old), "paused_long"))
    return _of_hosts(Host.last_backup_at, rule=holds, held=holds)


def _drifts(at: datetime) -> Select[Any]:
    holds = case((and_(watched(), Host.drifted_since.is_not(None)), "drifted"))
    return _of_hosts(Host.drifted_since, rule=holds, held=holds)


FAMILIES = (
    Family(
        "host",
        ("overdue", "silent", "failed", "incomplete", "never_enrolled", "never_backed_up"),
        _protection,
    ),
    Family("host", ("paused_long",), _pauses),
    Family("host", ("disk_full", "disk_low"), _disks),
    Family("host", ("clock",), _clocks),
    Family("host", ("drill_failed", "not_proven"), _drills),
    Family("host", ("drifted",), _drifts),
)
