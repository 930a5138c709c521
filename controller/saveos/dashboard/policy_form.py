"""The editor of policies: what is typed, what a policy looks like in it, and what the service takes."""

from itertools import zip_longest
from typing import Annotated, Any

from pydantic import BaseModel, Field

from saveos.core.errors import Invalid
from saveos.core.i18n import gettext
from saveos.dashboard import forms
from saveos.policies.models import Policy

Short = Annotated[str, Field(max_length=4096)]
Long = Annotated[str, Field(max_length=262_144)]
Column = Annotated[list[Short], Field(max_length=120)]
HOOKS = ("before", "after", "on_error")
KEEPS = ("keep_within", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
NUMBERS = (
    "jitter_minutes",
    "window_minutes",
    "grace_minutes",
    "upload_rate_limit",
    "drill_every_days",
    "drill_sample",
)
DATABASE = ("kind", "name", "path", "hostname", "port", "username", "password")
SPARE_ROWS = 2


class Form(BaseModel):
    """What the editor sends; text as typed, checked by PolicyIn. `db_…` are columns of the databases' table."""

    name: Short = ""
    sources: Long = ""
    excludes: Long = ""
    schedule: Short = ""
    zone: Short = ""
    jitter_minutes: Short = ""
    window_minutes: Short = ""
    grace_minutes: Short = ""
    drill_every_days: Short = ""
    drill_sample: Short = ""
    drill_sandbox: Short = ""
    keep_within: Short = ""
    keep_hourly: Short = ""
    keep_daily: Short = ""
    keep_weekly: Short = ""
    keep_monthly: Short = ""
    keep_yearly: Short = ""
    compression: Short = ""
    catalogue: Short = "full"
    upload_rate_limit: Short = ""
    servers: Column = []
    db_kind: Column = []
    db_name: Column = []
    db_path: Column = []
    db_hostname: Column = []
    db_port: Column = []
    db_username: Column = []
    db_password: Column = []
    before: Long = ""
    after: Long = ""
    on_error: Long = ""
    hooks_anew: Short = ""
    overrides: Long = ""
    is_default: Short = ""
    note: Short = ""
    shorter: Short = ""  # "yes" once a person has seen which archives a shorter retention prunes

    def rows(self) -> list[dict[str, str]]:
        """Return the databases that were typed; a row without a kind is none."""
        columns = [getattr(self, f"db_{name}") for name in DATABASE]
        rows = [dict(zip(DATABASE, row, strict=True)) for row in zip_longest(*columns, fillvalue="")]
        return [{key: value.strip() for key, value in row.items()} for row in rows if row["kind"].strip()]


FIELDS = {*Form.model_fields, "databases", "hooks", "retention"}


def shown(policy: Policy) -> dict[str, Any]:
    """Return a policy as the editor shows it. Hooks and passwords are never shown."""
    simple = ("name", "schedule", "zone", "compression", "catalogue", "drill_sandbox", *NUMBERS)
    form: dict[str, Any] = {name: str(getattr(policy, name)) for name in simple}
    form |= {name: str(policy.retention.get(name) or "") for name in KEEPS}
    form |= dict.fromkeys(HOOKS, "")
    return form | {
        "sources": "\n".join(policy.sources),
        "excludes": "\n".join(policy.excludes),
        "servers": policy.servers,
        "databases": [
            {name: "" if each.get(name) is None else str(each[name]) for name in DATABASE if name != "password"}
            | {"password": "", "has_password": each.get("has_password", False)}
            for each in policy.databases
        ],
        "overrides": forms.as_yaml(policy.overrides),
        "hooks_anew": "",
        "is_default": "true" if policy.is_default else "",
        "note": "",
        "shorter": "",
    }


def sent(form: Form) -> dict[str, Any]:
    """Return what was typed as the editor shows it again."""
    columns = {f"db_{name}" for name in DATABASE}
    # A password that was typed is not sent back: it is to be typed again
    rows = [row | {"password": "", "has_password": False} for row in form.rows()]
    return form.model_dump(exclude=columns) | {"databases": rows}


def values(form: Form, *, hooks: bool) -> dict[str, Any]:
    """Return what PolicyIn and PolicyPatch take; `hooks` says whether those that are there are replaced.

    Raises Invalid with the field on what is no number or no mapping.
    """
    found: dict[str, Any] = {
        "name": form.name.strip(),
        "sources": forms.lines(form.sources),
        "excludes": forms.lines(form.excludes),
        "schedule": form.schedule,
        "zone": form.zone.strip() or "UTC",
        "compression": form.compression.strip(),
        "catalogue": form.catalogue.strip() or "full",
        "retention": {name: _keep(form, name) for name in KEEPS if getattr(form, name).strip()},
        "drill_sandbox": form.drill_sandbox.strip(),
        "servers": form.servers,
        "databases": [_database(row) for row in form.rows()],
        "overrides": forms.mapping(form.overrides, "overrides"),
        "note": form.note.strip(),
    }
    found |= {name: _number(getattr(form, name), name) for name in NUMBERS if getattr(form, name).strip()}
    if hooks:
        found["hooks"] = {name: forms.lines(getattr(form, name)) for name in HOOKS}
    return found


def _database(row: dict[str, str]) -> dict[str, Any]:
    """Return a row as DatabaseIn takes it; an empty password leaves the one that there is."""
    port = _number(row["port"], "databases") if row["port"] else None
    return row | {"port": port, "password": row["password"] or None}


def _keep(form: Form, name: str) -> Any:
    text = getattr(form, name).strip()
    return text if name == "keep_within" else _number(text, name)


def _number(text: str, field: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise Invalid(gettext("Give a whole number."), field=field) from error
