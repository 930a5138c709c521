"""Adding a host in two steps: where it is; then, its fingerprint confirmed, what is done with it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Form as FormData
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError

from saveos.accounts.access import describe
from saveos.accounts.models import Tenant
from saveos.core.errors import Problem
from saveos.core.i18n import gettext
from saveos.dashboard import actions, queries
from saveos.dashboard.rendering import View, redirect, view
from saveos.dashboard.sentences import sentence
from saveos.hosts import service, ssh_keys
from saveos.hosts.schemas import HostIn, ScanIn
from saveos.policies import fleet
from saveos.policies import service as policies

router = APIRouter(include_in_schema=False)
Writer = Annotated[View, Depends(view("hosts:write"))]
Short = Annotated[str, Field(max_length=4096)]
EMPTY = {
    "name": "",
    "address": "",
    "port": "22",
    "user": "root",
    "policy": "",
    "server": "",
    "path": "",
    "quota": "",
    "tags": "",
    "is_storage_server": "",
    "is_agent": "true",
}
ON_ITSELF = "@itself"
LOCAL = "@local"


@router.get("/hosts/new")
def ask_host(page: Writer) -> Response:
    """Show the first step."""
    return _first(page, EMPTY)


class Form(BaseModel):
    """What the two steps send; text as typed, checked by HostIn."""

    step: Short
    name: Short = ""
    address: Short = ""
    port: Short = ""
    user: Short = ""
    policy: Short = ""
    server: Short = ""
    path: Short = ""
    quota: Short = ""
    tags: Short = ""
    is_storage_server: Short = ""
    is_agent: Short = ""
    confirmed: bool = False
    provision: bool = False
    ssh_host_keys: Annotated[list[Short], Field(max_length=20)] = []

    def texts(self) -> dict[str, str]:
        """Return the fields that are shown again, tidied, with the defaults of those left empty."""
        name = self.name.strip().lower()
        shown = {key: getattr(self, key).strip() for key in EMPTY}
        return shown | {
            "name": name,
            "address": self.address.strip() or name,
            "port": self.port.strip() or EMPTY["port"],
            "user": self.user.strip() or EMPTY["user"],
            "is_agent": self.is_agent if self.step == "create" else EMPTY["is_agent"],
        }


@router.post("/hosts/new")
def add_host(page: Writer, sent: Annotated[Form, FormData()]) -> Response:
    """Go a step on or back; the last one adds the host and provisions it when asked to."""
    form = sent.texts()
    if sent.step == "back":
        return _first(page, form)
    if sent.step == "scan":
        return _scan(page, form)
    keys = sent.ssh_host_keys
    if not sent.confirmed:
        problems = {"confirmed": gettext("Compare a fingerprint and say so: SaveOS never trusts a key unseen.")}
        return _second(page, form, keys, problems)
    try:
        with page.session.begin_nested():  # the host with policy and repository, or nothing at all
            host = fleet.add_host(page.session, page.tenant_id, _host_in(form, keys))
    except (ValidationError, Problem) as error:
        problems, sentence = _problems(error, form)
        return _second(page, form, keys, problems, sentence)
    describe(page.session, f"host:{host.name}")
    if sent.provision and page.actor.may("jobs:write"):
        job = actions.start(page, "provision", [str(host.id)])
        return redirect(f"/jobs/{job.id}", actions.flash(job))
    return redirect(f"/hosts/{host.name}", "added")


def _scan(page: View, form: dict[str, str]) -> Response:
    """Check the first step and ask the host for its keys."""
    try:
        _host_in(form, [])
        asked = ScanIn.model_validate({"address": form["address"], "port": form["port"]})
    except ValidationError as error:
        return _first(page, form, *_problems(error, form))
    try:
        service.get_host(page.session, page.tenant_id, form["name"])
    except Problem:
        pass
    else:
        return _first(page, form, {"name": gettext("There is a host of this name already.")})
    try:
        keys = ssh_keys.scan(asked.address, asked.port)
    except Problem as problem:
        return _first(page, form, {}, sentence(problem.detail))
    return _second(page, form, keys)


def _host_in(form: dict[str, str], keys: list[str]) -> HostIn:
    values: dict[str, Any] = {key: form[key] for key in ("name", "address", "port", "user")}
    values |= {
        "ssh_host_keys": keys,
        "is_agent": bool(form["is_agent"]),
        "is_storage_server": bool(form["is_storage_server"]),
        "tags": [tag for tag in form["tags"].replace(",", " ").split() if tag],
        "policy": form["policy"] or None,
    }
    if keys and form["is_agent"] and form["server"] == LOCAL:
        values["repository"] = {"kind": "local", "path": form["path"], "quota": form["quota"]}
    elif keys and form["is_agent"]:
        server = form["name"] if form["server"] == ON_ITSELF else form["server"]
        values["repository"] = {"kind": "ssh", "server": server or None, "quota": form["quota"]}
    return HostIn.model_validate(values)


def _problems(error: ValidationError | Problem, form: dict[str, str]) -> tuple[dict[str, str], str]:
    """Return the first sentence for each field of the form, and what belongs to none of them."""
    if isinstance(error, Problem):
        field = (error.field or "").rpartition(".")[2]
        said = sentence(error.detail)
        return ({field: said}, "") if field in form else ({}, said)
    found: dict[str, str] = {}
    for each in error.errors():
        message = str(each["msg"]).removeprefix("Value error, ")
        place = next((str(part) for part in reversed(each["loc"]) if str(part) in form), "name")
        found.setdefault(place, sentence(message))
    return found, ""


def _first(
    page: View, form: dict[str, str], problems: dict[str, str] | None = None, error: str = ""
) -> Response:
    tenant = page.session.get_one(Tenant, page.tenant_id)
    status = 422 if problems or error else 200
    return page.render(
        "hosts/new.html",
        status,
        step=1,
        form=form,
        problems=problems or {},
        error=error,
        public_key=tenant.ssh_public_key,
    )


def _second(
    page: View, form: dict[str, str], keys: list[str], problems: dict[str, str] | None = None, error: str = ""
) -> Response:
    shown = []
    for key in keys:
        kind, blob = key.split()[:2]
        shown.append({"type": kind, "key": blob, "fingerprint": ssh_keys.fingerprint(key)})
    return page.render(
        "hosts/new.html",
        422 if problems or error else 200,
        step=2,
        form=form,
        problems=problems or {},
        error=error,
        keys=shown,
        policies=policies.list_policies(page.session, page.tenant_id, None, 200),
        servers=queries.storage_servers(page.session, page.tenant_id),
    )
