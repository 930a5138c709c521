"""One action for many hosts: choose it, see what would happen, confirm."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Form as FormData
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError

from saveos.accounts.access import describe
from saveos.core.errors import Invalid, Problem
from saveos.core.i18n import gettext
from saveos.dashboard import queries, words
from saveos.dashboard.rendering import View, redirect, url, view
from saveos.dashboard.sentences import sentence
from saveos.hosts import service as hosts
from saveos.maintenance import bulk
from saveos.maintenance.schemas import BulkIn, BulkOut

router = APIRouter(include_in_schema=False)
Writer = Annotated[View, Depends(view("jobs:write"))]
Short = Annotated[str, Field(max_length=4096)]
FILTERS = ("q", "protection", "group", "tag", "policy", "drift")
NAMED_AT_MOST = 10_000


class Form(BaseModel):
    """What the list and the page send; text as typed, checked by BulkIn."""

    step: Short = ""
    host: Annotated[list[Short], Field(max_length=NAMED_AT_MOST)] = []
    all: bool = False
    q: Short = ""
    protection: Short = ""
    group: Short = ""
    tag: Short = ""
    policy: Short = ""
    drift: Short = ""
    action: Short = ""
    tags: Short = ""
    to_group: Short = ""
    to_policy: Short = ""
    expected: int = -1
    typed: Short = ""

    @property
    def filters(self) -> dict[str, Any]:
        """The list's filters that are set."""
        return {key: value for key in FILTERS if (value := getattr(self, key))}


@dataclass
class Shown:
    """What the page shows beside the form: the dry run, or why there is none."""

    preview: BulkOut | None = None
    problems: dict[str, str] = field(default_factory=dict)
    error: str = ""


@router.post("/hosts/bulk")
def change_hosts(page: Writer, form: Annotated[Form, FormData()]) -> Response:
    """Show what an action would do to the chosen hosts; with step `apply`, do it."""
    if not form.host and not form.all:
        raise Invalid("choose hosts first: tick them in the list, or take all that match")
    if form.action not in _allowed(page):
        return _show(page, form, Shown())
    try:
        preview = bulk.apply(page.session, page.actor, _asked(form, dry_run=True), trigger="dashboard")
    except (ValidationError, Problem) as error:
        return _show(page, form, _refused(error, form))
    describe(page.session, "hosts", action=form.action, dry_run=True, changed=preview.changed)
    shown = Shown(preview)
    if form.step != "apply":
        return _show(page, form, shown)
    shown.problems = _unconfirmed(form, preview)
    if shown.problems:
        return _show(page, form, shown)
    return _apply(page, form)


def _apply(page: View, form: Form) -> Response:
    done = bulk.apply(page.session, page.actor, _asked(form, dry_run=False), trigger="dashboard")
    describe(
        page.session,
        f"job:{done.job.id}" if done.job else "hosts",
        action=form.action,
        changed=done.changed,
        hosts=done.hosts,
        **form.filters,
    )
    flash = f"started:{done.job.operation}:{done.job.id}" if done.job else "changed"
    return redirect(url("/hosts", **form.filters), flash)


def _asked(form: Form, *, dry_run: bool) -> BulkIn:
    """Return the form as the service takes it. Raises ValidationError."""
    asked: dict[str, Any] = {"action": form.action, "dry_run": dry_run}
    if form.action in words.bulk_operations:
        asked |= {"action": "operation", "operation": form.action}
    if form.all:
        asked["filter"] = form.filters
    else:
        asked["hosts"] = form.host
    if form.action in ("add_tags", "remove_tags"):
        asked["tags"] = [tag for tag in form.tags.replace(",", " ").split() if tag]
    elif form.action in ("add_group", "remove_group"):
        asked["groups"] = [form.to_group] if form.to_group else []
    elif form.action == "policy":
        asked["policy"] = form.to_policy or None
    return BulkIn.model_validate(asked)


def _unconfirmed(form: Form, preview: BulkOut) -> dict[str, str]:
    """Return what is missing before the action may be done."""
    if form.expected != preview.changed:
        return {"expected": gettext("Meanwhile other hosts match: this is the new dry run. Confirm it again.")}
    if form.action == "decommission" and form.typed.strip() != confirmation(preview):
        return {"typed": gettext("Type exactly what is asked for, to show that you mean it.")}
    return {}


def confirmation(preview: BulkOut) -> str:
    """Return what a person types to take hosts out: the name of the only one, or how many."""
    return preview.hosts[0] if preview.changed == 1 else str(preview.changed)


def _refused(error: ValidationError | Problem, form: Form) -> Shown:
    if isinstance(error, Problem):
        message, place = error.detail, (error.field or "").rpartition(".")[2]
    else:
        first = error.errors()[0]
        message = str(first["msg"]).removeprefix("Value error, ")
        place = next((str(part) for part in first["loc"] if part in ("tags", "groups", "policy")), "")
        if not place and " needs " in message:
            return Shown()  # nothing was typed yet: the page asks for it
    place = {"groups": "to_group", "policy": "to_policy"}.get(place, place)
    message = sentence(message)
    return (
        Shown(problems={place: message}) if place in ("tags", "to_group", "to_policy") else Shown(error=message)
    )


def _allowed(page: View) -> dict[str, str]:
    """Return the actions that the reader may take, with their names."""
    every = {key: gettext(label) for key, label in words.bulk_operations.items()}
    if page.actor.may("hosts:write"):
        every |= {key: gettext(label) for key, label in words.bulk_actions.items()}
    else:
        every.pop("provision", None)
    return every


def _show(page: View, form: Form, shown: Shown) -> Response:
    preview = shown.preview
    chosen = preview.matched if preview else len(form.host)
    if form.all and not preview:
        chosen = hosts.count_hosts(page.session, page.tenant_id, **form.filters)
    return page.render(
        "hosts/bulk.html",
        422 if shown.problems or shown.error else 200,
        form=form,
        filters=form.filters,
        actions=_allowed(page),
        chosen=chosen,
        preview=preview,
        problems=shown.problems,
        error=shown.error,
        confirmation=confirmation(preview) if preview and form.action == "decommission" else "",
        groups=queries.groups(page.session, page.tenant_id),
        policies=queries.policies(page.session, page.tenant_id),
    )
