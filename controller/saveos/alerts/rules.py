"""The rules: what is judged from facts on hosts, in one SQL expression, and the sentences about it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from sqlalchemy import ColumnElement, Subquery, and_, case, null, or_, select

from saveos.hosts.models import Host
from saveos.hosts.service import protection_sql

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[str, ...] = ("critical", "warning", "info")

ENROL_WITHIN = timedelta(hours=1)
FIRST_BACKUP_WITHIN = timedelta(days=1)


class Facts(Protocol):
    """What a sentence may use of a judged host."""

    name: str
    created_at: datetime
    seen_at: datetime | None
    due_at: datetime | None
    last_run_at: datetime | None
    last_backup_at: datetime | None


@dataclass(frozen=True)
class Rule:
    """How grave a cause is, its name for people, and for host rules: since when, and the sentence."""

    severity: Severity
    title: str
    since: Callable[[Facts], datetime | None] = lambda facts: None
    sentence: Callable[[Facts], str] = lambda facts: ""


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "never"


def _overdue(facts: Facts) -> str:
    return (
        f"{facts.name} has no backup since {_time(facts.last_backup_at)}; one was due by {_time(facts.due_at)}."
    )


def _silent(facts: Facts) -> str:
    seen = f"was last heard of at {_time(facts.seen_at)}" if facts.seen_at else "was never heard of"
    return f"{facts.name} {seen}; a backup was due by {_time(facts.due_at)}. Is it running and connected?"


def _failed(facts: Facts) -> str:
    at, last = _time(facts.last_run_at), _time(facts.last_backup_at)
    return f"The backup of {facts.name} failed at {at}. Last good backup: {last}."


def _never_enrolled(facts: Facts) -> str:
    return f"{facts.name} is in the inventory since {_time(facts.created_at)} but was never provisioned."


def _never_backed_up(facts: Facts) -> str:
    return f"{facts.name} is in care since {_time(facts.created_at)} and has no backup yet."


RULES: dict[str, Rule] = {
    "overdue": Rule("warning", "backup overdue", lambda facts: facts.due_at, _overdue),
    "silent": Rule("critical", "agent silent", lambda facts: facts.due_at, _silent),
    "failed": Rule("critical", "backup failed", lambda facts: facts.last_run_at, _failed),
    "never_enrolled": Rule("warning", "never enrolled", lambda facts: facts.created_at, _never_enrolled),
    "never_backed_up": Rule("warning", "never backed up", lambda facts: facts.created_at, _never_backed_up),
    "channel_failing": Rule("warning", "channel does not deliver"),
    "schedule_failed": Rule("warning", "schedule could not start its job"),
}
HOST_RULES = ("overdue", "silent", "failed", "never_enrolled", "never_backed_up")


def title(rule: str) -> str:
    """Return a rule's name for people; a later feature may open alerts of rules that are not listed here."""
    return RULES[rule].title if rule in RULES else rule.replace("_", " ")


def one_line(sentence: str) -> str:
    """Return a sentence on one line, without control characters, bounded."""
    if not sentence.isprintable():
        sentence = "".join(each if each.isprintable() else " " for each in sentence)
    return sentence[:500]


def cause(at: datetime) -> ColumnElement[str | None]:
    """Return the one rule that holds for a host at a time, as SQL over Host; null when all is well.

    It follows the host's protection, so alerts and lists never contradict each other: a host that
    falls silent is no longer merely overdue.
    """
    protection = protection_sql(at)
    waited = or_(Host.created_at < at - FIRST_BACKUP_WITHIN, Host.due_at < at)
    return case(
        (Host.state.not_in(("pending", "enrolled")), null()),
        (and_(Host.state == "pending", Host.created_at < at - ENROL_WITHIN), "never_enrolled"),
        (protection == "silent", "silent"),
        (protection == "failing", "failed"),
        (protection == "late", "overdue"),
        (and_(protection == "never", waited), "never_backed_up"),
    )


def judged(at: datetime) -> Subquery:
    """Return hosts with their facts and the `rule` that holds for them at a time."""
    return select(
        Host.id,
        Host.tenant_id,
        Host.name,
        Host.state,
        Host.created_at,
        Host.seen_at,
        Host.due_at,
        Host.last_run_at,
        Host.last_backup_at,
        cause(at).label("rule"),
    ).subquery("judged")
