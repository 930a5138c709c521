"""Trying a retention on real archives: what a policy's tab shows, and the question before a shorter one."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from saveos.archives.retention import simulate
from saveos.archives.schemas import SimulationIn
from saveos.core.errors import Invalid, Problem
from saveos.core.i18n import gettext, ngettext, number
from saveos.core.pagination import decode_text, split
from saveos.dashboard import forms, words
from saveos.dashboard.policy_form import KEEPS
from saveos.dashboard.rendering import View, url
from saveos.policies.models import Policy

HOSTS, MOST_HOSTS = 20, 200
Short = Annotated[str, Field(max_length=100)]


class Tried(BaseModel):
    """The fields of the tab; as typed."""

    keep_within: Short = ""
    keep_hourly: Short = ""
    keep_daily: Short = ""
    keep_weekly: Short = ""
    keep_monthly: Short = ""
    keep_yearly: Short = ""
    days: Short = ""
    cursor: Annotated[str, Field(max_length=1000)] = ""


def tried(page: View, policy: Policy, asked: Tried) -> dict[str, Any]:
    """Return what the tab shows: the rules as typed, else the policy's own, and what becomes of archives."""
    typed = {name: getattr(asked, name).strip() for name in KEEPS}
    if not any(typed.values()):
        typed = {name: str(policy.retention.get(name) or "") for name in KEEPS}
    shown: dict[str, Any] = {"form": typed | {"days": asked.days}, "found": None, "error": "", "next_page": ""}
    try:
        request = SimulationIn.model_validate(
            {"retention": {name: text for name, text in typed.items() if text}, "days": asked.days.strip() or 0}
        )
        found, hosts = simulate(page.session, policy, request, decode_text(asked.cursor or None), HOSTS)
    except (ValidationError, Problem) as error:
        problems, sentence = forms.problems(error, {*KEEPS, "days"})
        return shown | {"error": " ".join([*problems.values(), sentence]).strip()}
    following = split(hosts, HOSTS, lambda host: [host.name])[1]
    here = f"/policies/{policy.id}/retention"
    return shown | {
        "found": found,
        "kept_by": kept_by,
        "first_page": url(here, **typed, days=asked.days) if asked.cursor else "",
        "next_page": url(here, **typed, days=asked.days, cursor=following) if following else "",
    }


def kept_by(rule: str) -> str:
    """Return the shown name of what keeps an archive: a rule and the archive's place in it, or protection."""
    name, _, place = rule.partition(" ")
    shown = gettext(words.keepers.get(name, name))
    return f"{shown} {place}".strip()


def prunes_more(page: View, policy: Policy, given: dict[str, Any]) -> str:
    """Return a sentence when a retention prunes archives that the policy as it is keeps; else nothing.

    Of the first hosts: enough to ask before it happens.
    """
    try:
        asked = SimulationIn.model_validate({"retention": given})
        found, hosts = simulate(page.session, policy, asked, None, MOST_HOSTS)
    except (ValidationError, Invalid):
        return ""  # what is wrong with it is said where it is kept
    count = found.totals.newly_pruned
    if not count:
        return ""
    said = ngettext(
        "%(num)s archive that is kept now would be pruned with the next backups.",
        "%(num)s archives that are kept now would be pruned with the next backups.",
        count,
    ) % {"num": number(count)}
    more = gettext("There are more hosts than were looked at.") if len(hosts) > MOST_HOSTS else ""
    return f"{said} {more}".strip()
