"""Policies: list, one with its tabs (overview, form, YAML, versions, groups), preview, drift and measuring."""

import uuid
from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Depends, Path, Query
from fastapi import Form as FormData
from fastapi.responses import HTMLResponse, Response
from pydantic import ValidationError
from sqlalchemy import case, func, literal, select

from saveos.accounts.access import describe
from saveos.core.errors import Invalid, Problem
from saveos.core.i18n import gettext
from saveos.core.pagination import decode_text, split
from saveos.dashboard import actions, forms, policy_form, queries, retention
from saveos.dashboard.policy_form import Form
from saveos.dashboard.rendering import View, environment, redirect, url, view
from saveos.hosts import groups
from saveos.hosts.models import Group, Host
from saveos.hosts.service import drift_sql
from saveos.policies import planning, precedence, service, versions
from saveos.policies.models import GroupPolicy, Policy
from saveos.policies.schemas import DiffOut, GroupPolicyOut, PolicyIn, PolicyPatch, PreviewIn

router = APIRouter(include_in_schema=False)
Reader = Annotated[View, Depends(view("policies:read"))]
Writer = Annotated[View, Depends(view("policies:write"))]
Cursor = Annotated[str, Query(max_length=1000)]
Typed = Annotated[str, Query(max_length=200)]
Sent = Annotated[Form, FormData()]
Short = Annotated[str, FormData(max_length=500)]
Document = Annotated[str, FormData(max_length=524_288)]
LIMIT = 50
MOST_VERSION = 1_000_000_000


@router.get("/policies")
def list_policies(page: Reader, cursor: Cursor = "") -> Response:
    """List policies by name: when they run next, how many hosts have them, how many have yet to follow."""
    found = service.list_policies(page.session, page.tenant_id, decode_text(cursor or None), LIMIT + 1)
    policies, following = split(found, LIMIT, lambda policy: [policy.name])
    return page.render(
        "policies/list.html",
        policies=service.describe_policies(page.session, policies),
        drift=_drift(page, [policy.id for policy in policies]),
        can_plan=page.actor.may("policies:write"),
        first_page="/policies" if cursor else "",
        next_page=url("/policies", cursor=following) if following else "",
    )


def _drift(page: View, ids: list[uuid.UUID]) -> dict[uuid.UUID, int]:
    """Return how many hosts have yet to follow each policy."""
    query = select(Host.policy_id, func.count()).where(
        Host.tenant_id == page.tenant_id, Host.policy_id.in_(ids), drift_sql()
    )
    rows = page.session.execute(query.group_by(Host.policy_id))
    return {policy_id: count for policy_id, count in rows if policy_id is not None}


@router.get("/policies/new")
def new_policy(page: Writer) -> Response:
    """Show the editor with what a new policy begins with."""
    return _editor(page, None, policy_form.shown(Policy(**_defaults())))


def _defaults() -> dict[str, Any]:
    asked = PolicyIn(name="new", sources=["/etc", "/home"]).model_dump(exclude={"hooks", "note", "is_default"})
    return asked | {"name": "", "retention": {k: v for k, v in asked["retention"].items() if v}}


@router.post("/policies/new")
def create_policy(page: Writer, sent: Sent) -> Response:
    """Make a policy, or show the form again with what is wrong."""
    try:
        with page.session.begin_nested():
            values = policy_form.values(sent, hooks=True) | {"is_default": bool(sent.is_default)}
            asked = PolicyIn(**values)
            policy = service.create_policy(page.session, page.tenant_id, asked, by=page.actor.name)
    except (ValidationError, Problem) as error:
        return _editor(page, None, policy_form.sent(sent), error)
    describe(page.session, f"policy:{policy.name}")
    return redirect(f"/policies/{policy.id}", "created")


@router.get("/policies/preview")
def preview(
    page: Reader, schedule: Typed = "", zone: Typed = "", jitter_minutes: Typed = "", policy: Typed = ""
) -> Response:
    """Return the next runs of a schedule while it is typed, and how the fleet's starts would spread."""
    known = service.get_policy(page.session, page.tenant_id, policy) if policy else None
    ahead = _look_ahead(page, schedule, zone, jitter_minutes, known)
    return HTMLResponse(environment().get_template("_partials/policy_preview.html").render(ahead=ahead))


def _look_ahead(
    page: View, schedule: str, zone: str, jitter_minutes: str, policy: Policy | None
) -> dict[str, Any]:
    try:
        asked = PreviewIn(schedule=schedule, zone=zone.strip() or "UTC", jitter_minutes=jitter_minutes or 0)
        found = planning.preview(page.session, page.tenant_id, asked, policy)
    except (ValidationError, Problem) as error:
        problems, sentence = forms.problems(error, {"schedule", "zone", "jitter_minutes"})
        return {"problem": " ".join([*problems.values(), sentence]).strip()}
    most = max(found.load, key=lambda each: each.hosts)
    return {
        "problem": "",
        "cron": found.schedule,
        "zone": found.zone,
        "runs": [run.at for run in found.items],
        "hosts": found.hosts,
        "load": found.load,
        "most": most,
    }


@router.get("/policies/{policy}")
def show_policy(page: Reader, policy: str) -> Response:
    """Show what a policy says, when it runs next, and the load on the fleet."""
    found = _get(page, policy)
    return _tab(
        page,
        found,
        "",
        template="overview",
        ahead=_look_ahead(page, found.schedule, found.zone, str(found.jitter_minutes), found),
        measure_hosts=_measurable(page, found) if page.actor.may("jobs:write") else [],
        overrides=forms.as_yaml(found.overrides),
        sources=_sources(page, found),
    )


def _get(page: View, ref: str) -> Policy:
    return service.get_policy(page.session, page.tenant_id, ref)


def _sources(page: View, policy: Policy) -> list[tuple[str, int]]:
    """Return where hosts have this policy from, and how many: host, group:NAME, default."""
    query = select(Host.policy_source, func.count()).where(
        Host.tenant_id == page.tenant_id, Host.policy_id == policy.id, Host.state != "decommissioned"
    )
    rows = page.session.execute(query.group_by(Host.policy_source).order_by(Host.policy_source))
    return [(source, count) for source, count in rows]


def _measurable(page: View, policy: Policy | None) -> list[str]:
    """Return names of hosts to measure on: at most 200 provisioned agents, the policy's own first."""
    query = select(Host.name).where(Host.tenant_id == page.tenant_id, Host.is_agent, Host.state == "enrolled")
    if policy:
        query = query.order_by(case((Host.policy_id == policy.id, 0), else_=1))
    return list(page.session.scalars(query.order_by(Host.name).limit(200)))


def _tab(
    page: View, policy: Policy, tab: str, status: int = 200, template: str = "", **values: Any
) -> Response:
    """Render one tab of a policy."""
    can_plan = page.actor.may("policies:write")
    tabs = [("", gettext("Overview"))]
    if can_plan:
        tabs += [("edit", gettext("Form")), ("yaml", gettext("YAML"))]
        tabs.append(("retention", gettext("Retention")))
    tabs += [("versions", gettext("Versions")), ("groups", gettext("Groups"))]
    return page.render(
        f"policies/{template or tab}.html",
        status,
        policy=service.describe_policies(page.session, [policy])[0],
        drift=_drift(page, [policy.id]).get(policy.id, 0),
        can_plan=can_plan,
        tab=tab,
        tabs=tabs,
        **values,
    )


@router.get("/policies/{policy}/retention")
def try_retention(page: Writer, policy: str, sent: Annotated[retention.Tried, Query()]) -> Response:
    """Show what a retention would keep and prune of the archives there are; nothing is changed."""
    found = _get(page, policy)
    return _tab(page, found, "retention", **retention.tried(page, found, sent))


# ---- form --------------------------------------------------------------------------------------------------


@router.get("/policies/{policy}/edit")
def edit_policy(page: Writer, policy: str) -> Response:
    """Show the editor with a policy."""
    found = _get(page, policy)
    return _editor(page, found, policy_form.shown(found))


@router.post("/policies/{policy}/edit")
def change_policy(page: Writer, policy: str, sent: Sent) -> Response:
    """Change a policy, or show the form again with what is wrong."""
    found = _get(page, policy)
    try:
        with page.session.begin_nested():
            anew = bool(sent.hooks_anew) or found.hooks is None
            values = policy_form.values(sent, hooks=anew)
            if sent.is_default:
                values["is_default"] = True
            if sent.shorter != "yes" and (fewer := retention.prunes_more(page, found, values["retention"])):
                sent.shorter = "ask"
                raise Invalid(fewer, field="retention")
            service.change_policy(page.session, found, PolicyPatch(**values), by=page.actor.name)
    except (ValidationError, Problem) as error:
        page.session.expire(found)
        return _editor(page, found, policy_form.sent(sent), error)
    describe(page.session, f"policy:{found.name}", version=found.version)
    return redirect(f"/policies/{found.id}", "saved")


def _editor(
    page: View, policy: Policy | None, form: dict[str, Any], error: ValidationError | Problem | None = None
) -> Response:
    problems, sentence = forms.problems(error, policy_form.FIELDS) if error else ({}, "")
    values: dict[str, Any] = {
        "ahead": _look_ahead(page, form["schedule"], form["zone"], form["jitter_minutes"], policy),
        "error": problems.pop("retention", "") or problems.pop("hooks", "") or sentence,
        "form": form,
        "hooks": service.describe_policies(page.session, [policy])[0].hooks if policy else {},
        "measure_hosts": _measurable(page, policy) if page.actor.may("jobs:write") else [],
        "kinds": ("postgresql", "mariadb", "mysql", "sqlite", "mongodb"),
        "problems": problems,
        "servers": queries.storage_servers(page.session, page.tenant_id),
        "spare": policy_form.SPARE_ROWS,
        "zones": forms.zones(),
    }
    status = 422 if error else 200
    if policy is not None:
        return _tab(page, policy, "edit", status, **values)
    return page.render("policies/new.html", status, policy=None, **values)


# ---- YAML --------------------------------------------------------------------------------------------------


@router.get("/policies/{policy}/yaml")
def show_yaml(page: Writer, policy: str) -> Response:
    """Show a policy as the document that `saveos policies apply` takes."""
    found = _get(page, policy)
    text = versions.to_yaml(versions.document(page.session, found))
    return _tab(page, found, "yaml", text=text, outcome=None, error="")


@router.post("/policies/{policy}/yaml")
def apply_yaml(page: Writer, policy: str, document: Document = "", act: Short = "check") -> Response:
    """Show what a changed document would change, or apply it."""
    found = _get(page, policy)
    save = act == "save"
    try:
        asked = forms.mapping(document, "document")
        if str(asked.get("name", "")) != found.name:
            hint = gettext("The name must stay %(name)s here: rename it in the form.") % {"name": found.name}
            raise Invalid(hint, field="document")
        with page.session.begin_nested() as savepoint:
            outcome = service.apply_document(page.session, page.tenant_id, asked, by=page.actor.name)
            if not save:
                savepoint.rollback()
    except (ValidationError, Problem, yaml.YAMLError) as error:
        page.session.expire(found)
        problems, sentence = forms.problems(error, {"document"})  # type: ignore[arg-type]
        sentence = problems.get("document", sentence)
        return _tab(page, found, "yaml", 422, text=document, outcome=None, error=sentence)
    describe(page.session, f"policy:{found.name}", version=found.version, dry_run=not save)
    if save:
        return redirect(f"/policies/{found.id}", "saved")
    return _tab(page, found, "yaml", text=document, outcome=outcome, error="")


# ---- versions ----------------------------------------------------------------------------------------------


@router.get("/policies/{policy}/versions")
def list_versions(
    page: Reader,
    policy: str,
    before: Annotated[int, Query(ge=0, le=MOST_VERSION)] = 0,
    a: Annotated[int, Query(ge=0, le=MOST_VERSION)] = 0,
    b: Annotated[int, Query(ge=0, le=MOST_VERSION)] = 0,
) -> Response:
    """List a policy's versions, newest first; with `a` and `b` what differs between the two."""
    found = _get(page, policy)
    rows = versions.list_versions(page.session, found, before or None, LIMIT + 1)
    shown = rows[:LIMIT]
    here = f"/policies/{found.id}/versions"
    return _tab(
        page,
        found,
        "versions",
        versions=shown,
        chosen=(a or max(found.version - 1, 1), b or found.version),
        compared=versions.diff(page.session, found, a, b) if a and b else None,
        first_page=here if before else "",
        next_page=url(here, before=shown[-1].number) if len(rows) > LIMIT else "",
    )


@router.get("/policies/{policy}/versions/{number}")
def show_version(page: Reader, policy: str, number: Annotated[int, Path(ge=1, le=MOST_VERSION)]) -> Response:
    """Show a version, what going back to it would change, and a button that does it."""
    found = _get(page, policy)
    version = versions.get_version(page.session, found, number)
    change: DiffOut | None = None
    if number != found.version:
        change = versions.diff(page.session, found, found.version, number)
    return _tab(
        page,
        found,
        "versions",
        template="version",
        chosen=version,
        text=versions.to_yaml(version.document),
        change=change,
    )


@router.post("/policies/{policy}/rollback")
def roll_back(page: Writer, policy: str, version: Annotated[int, FormData()], note: Short = "") -> Response:
    """Make a policy what it was in a version; that is a new version."""
    found = _get(page, policy)
    service.rollback(page.session, found, version, by=page.actor.name, note=note.strip())
    describe(page.session, f"policy:{found.name}", back_to=version, version=found.version)
    return redirect(f"/policies/{found.id}/versions", "saved")


# ---- groups, hosts -----------------------------------------------------------------------------------------


@router.get("/policies/{policy}/groups")
def show_groups(page: Reader, policy: str) -> Response:
    """Show which groups give their hosts which policy, in the order in which they win."""
    found = _get(page, policy)
    rows = _assignments(page)
    given = sorted((row for row in rows if row.policy), key=lambda row: (row.priority, row.group))
    return _tab(
        page,
        found,
        "groups",
        given=given,
        free=[row.group for row in rows if not row.policy],
        sources=_sources(page, found),
    )


def _assignments(page: View) -> list[GroupPolicyOut]:
    """Return at most 500 groups with the policy that each gives, in one query."""
    source = literal("group:").concat(Group.name)
    hosts = select(func.count()).where(Host.tenant_id == page.tenant_id, Host.policy_source == source)
    query = (
        select(Group.name, Policy.name, GroupPolicy.priority, hosts.correlate(Group).scalar_subquery())
        .outerjoin(GroupPolicy, GroupPolicy.group_id == Group.id)
        .outerjoin(Policy, Policy.id == GroupPolicy.policy_id)
        .where(Group.tenant_id == page.tenant_id)
        .order_by(Group.name)
        .limit(500)
    )
    return [
        GroupPolicyOut(group=group, policy=policy, priority=priority or 0, hosts=count)
        for group, policy, priority, count in page.session.execute(query)
    ]


@router.post("/policies/{policy}/groups")
def assign_group(
    page: Writer,
    policy: str,
    group: Annotated[str, FormData(max_length=63)],
    priority: Annotated[str, FormData(max_length=10)] = "100",
    act: Short = "give",
) -> Response:
    """Give a group's hosts this policy, change its priority, or take it from the group."""
    found = _get(page, policy)
    chosen = groups.get_group(page.session, page.tenant_id, group)
    if not priority.strip().isdigit() or int(priority) > 10_000:
        raise Invalid(gettext("A priority is a number from 0 to 10000; the lowest wins."), field="priority")
    wanted = None if act == "take" else found
    outcome = precedence.set_group_policy(page.session, chosen, wanted, int(priority))
    describe(page.session, f"group:{chosen.name}", policy=outcome.policy, priority=outcome.priority)
    return redirect(f"/policies/{found.id}/groups", "saved")


@router.post("/policies/{policy}/default")
def make_default(page: Writer, policy: str) -> Response:
    """Make this the policy of all hosts for which neither they nor a group name one."""
    found = _get(page, policy)
    service.change_policy(page.session, found, PolicyPatch(is_default=True), by=page.actor.name)
    describe(page.session, f"policy:{found.name}", is_default=True)
    return redirect(f"/policies/{found.id}", "saved")


@router.post("/policies/{policy}/provision")
def provision(page: Annotated[View, Depends(view("jobs:write"))], policy: str) -> Response:
    """Provision the hosts that have yet to follow this policy."""
    found = _get(page, policy)
    query = select(Host.id).where(Host.tenant_id == page.tenant_id, Host.policy_id == found.id, drift_sql())
    hosts = [str(identity) for identity in page.session.scalars(query)]
    if not hosts:
        raise Invalid(gettext("Every host follows this policy already."))
    job = actions.start(page, "provision", hosts)
    return redirect(f"/jobs/{job.id}", actions.flash(job))


@router.post("/policies/{policy}/delete")
def delete_policy(page: Writer, policy: str, name: Short = "") -> Response:
    """Delete a policy that nothing uses, when its name was typed."""
    found = _get(page, policy)
    if name.strip() != found.name:
        raise Invalid(gettext("Type the name as it is written: %(name)s") % {"name": found.name}, field="name")
    describe(page.session, f"policy:{found.name}")
    service.delete_policy(page.session, found)
    return redirect("/policies", "deleted")
