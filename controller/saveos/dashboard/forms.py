"""What pages with larger forms share: problems by field, text areas as lists and mappings, time zones."""

from collections.abc import Container
from functools import cache
from typing import Any
from zoneinfo import available_timezones

import yaml
from pydantic import ValidationError

from saveos.core.errors import Invalid, Problem
from saveos.core.i18n import gettext, mark
from saveos.dashboard.sentences import sentence

PATTERNS = {"keep_within": mark("Write a number and a unit, such as 7d, 4w, 6m or 1y.")}  # of fields
OTHER_PATTERN = mark("This does not have the form that is asked for.")
OLD_NAMES = ("posix/", "right/", "SystemV/", "US/", "Etc/")


def problems(error: ValidationError | Problem, fields: Container[str]) -> tuple[dict[str, str], str]:
    """Return the first sentence for each field of a form, and what belongs to none of them."""
    if isinstance(error, Problem):
        field = _place((error.field or "").split("."), fields)
        said = sentence(error.detail)
        return ({field: said}, "") if field else ({}, said)
    found: dict[str, str] = {}
    rest = ""
    for each in error.errors():
        field = _place([str(part) for part in each["loc"]], fields)
        said = sentence(str(each["msg"]).removeprefix("Value error, "))
        if each["type"] == "string_pattern_mismatch":  # nobody reads regular expressions
            said = gettext(PATTERNS.get(field, OTHER_PATTERN))
        if field:
            found.setdefault(field, said)
        else:
            rest = rest or f"{'.'.join(str(part) for part in each['loc'])}: {said}".removeprefix(": ")
    return found, rest


def _place(path: list[str], fields: Container[str]) -> str:
    """Return the field that a problem's place names: the outermost one that the form has.

    Of a retention it is the rule, which has a field of its own.
    """
    within = path[1:] if path[:1] == ["retention"] else []
    return next((part for part in (*within, *path) if part in fields), "")


def lines(text: str) -> list[str]:
    """Return the lines of a text area that hold something."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def mapping(text: str, field: str) -> dict[str, Any]:
    """Read a text area with YAML's `key: value`; empty is an empty mapping. Raises Invalid with the field."""
    found = anything(text, field)
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise Invalid(gettext("Write one `name: value` on each line."), field=field)
    return found


def anything(text: str, field: str) -> Any:
    """Read a text area with YAML of any shape. Raises Invalid with the field."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = gettext("line %(line)s") % {"line": mark.line + 1} if mark else "?"
        raise Invalid(gettext("This is no YAML: see %(place)s.") % {"place": place}, field=field) from error


def as_yaml(value: Any) -> str:
    """Return a value as YAML, in its own order; nothing for what is empty."""
    if not value:
        return ""
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False))


@cache
def zones() -> list[str]:
    """Return the names of time zones to choose from; UTC comes first."""
    named = (zone for zone in available_timezones() if "/" in zone and not zone.startswith(OLD_NAMES))
    return ["UTC", *sorted(named)]
