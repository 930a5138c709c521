"""From a template and values to an answer: the Jinja environment, a request's page, toasts, problem pages."""

import gzip
import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlencode

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from sqlalchemy.orm import Session

from saveos import __version__
from saveos.accounts.access import Actor, require, unsay
from saveos.core import i18n
from saveos.core.errors import Problem
from saveos.core.settings import get_settings
from saveos.core.web import SessionDep, request_id
from saveos.dashboard import acts, queries, told, words
from saveos.dashboard.sentences import sentence

STATIC = Path(__file__).parent / "static"
THEMES = ("auto", "light", "dark")
YEAR = 365 * 86400
_FLASH = re.compile(r"([a-z-]{1,30})(?::([a-z]{1,20}):([0-9a-f-]{36}))?")


@cache
def build_id() -> str:
    """Return the id of the assets that scripts/assets.py collected, or `none` when it has not run."""
    try:
        return str(json.loads((STATIC / "build.json").read_text())["id"])
    except (OSError, ValueError, KeyError):
        return "none"


@cache
def environment() -> Environment:
    """Return the one Jinja environment; the language is the request's, from `core.i18n`."""
    made = Environment(
        loader=FileSystemLoader(get_settings().templates_dir),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    made.install_gettext_callables(i18n.gettext, i18n.ngettext, newstyle=True)  # type: ignore[attr-defined]
    made.filters.update(
        ago=i18n.ago,
        clock=i18n.clock,
        duration=i18n.duration,
        moment=i18n.moment,
        moment_exact=i18n.moment_exact,
        moment_in=i18n.moment_in,
        number=i18n.number,
        period=i18n.period,
        percent=i18n.percent,
        sentence=sentence,
        size=i18n.size,
    )
    made.globals.update(
        icon=icon,
        languages=i18n.LANGUAGES,
        marks=words.CELL_MARKS,
        operation=operation,
        progress=progress,
        static=f"/static/{build_id()}",
        target=target,
        told=told,
        version=__version__,
        words=words,
    )
    return made


def icon(name: str) -> Markup:
    """Return an icon of the sprite; decoration only, so screen readers pass over it."""
    return Markup('<svg class="ico" aria-hidden="true"><use href="/static/{}/icons.svg#{}"/></svg>').format(
        build_id(), name
    )


def operation(job: Any) -> str:
    """Return the shown name of a job's operation."""
    return i18n.gettext(words.operations.get(job.operation, job.operation))


def target(row: Any) -> str:
    """Return what a job is about: its only host, or how many."""
    if row.host_name:
        return str(row.host_name)
    total = row.job.hosts_total
    return i18n.ngettext("%(num)s host", "%(num)s hosts", total) % {"num": i18n.number(total)}


def progress(job: Any, large: bool = False) -> Markup:
    """Return the bar of a job's done and failed hosts."""
    module: Any = environment().get_template("_partials/macros.html").module
    total = max(job.hosts_total, 1)
    good = 100 * (job.hosts_done - job.hosts_failed) / total
    bad = 100 * job.hosts_failed / total
    label = i18n.gettext("%(done)s of %(total)s hosts done, %(failed)s failed") % {
        "done": job.hosts_done,
        "total": job.hosts_total,
        "failed": job.hosts_failed,
    }
    return Markup(module.bar([("good", good), ("bad", bad)], label, large))  # noqa: S704 - rendered by our macro


async def localise(request: Request) -> None:
    """Set language and zone of a request. Async, so that the endpoint's thread inherits them."""
    _localise(request)


def _localise(request: Request) -> str:
    wish = request.query_params.get("lang") or request.cookies.get("lang", "")
    if wish not in i18n.LANGUAGES:
        wish = i18n.negotiate(request.headers.get("accept-language", ""))
    i18n.use(wish, unquote(request.cookies.get("tz", "")))
    return wish


def theme(request: Request) -> str:
    """Return the theme that the reader chose: auto, light or dark."""
    wish = request.cookies.get("theme", "")
    return wish if wish in THEMES else "auto"


def here(request: Request) -> str:
    """Return the path and query of the request, as the page's parts fetch themselves again."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def url(path: str, /, **query: Any) -> str:
    """Return a path with those query values that are not empty."""
    given = {key: value for key, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def bare(request: Request, template: str, code: int = 200, /, **values: Any) -> HTMLResponse:
    """Render a page without menu: log-in, problems."""
    base = {"lang": i18n.language(), "theme": theme(request), "route": request.url.path}
    answer = HTMLResponse(environment().get_template(template).render(**base, **values), code)
    if "gzip" in request.headers.get("accept-encoding", ""):
        answer.body = gzip.compress(answer.body, compresslevel=3)
        answer.headers.update({"Content-Encoding": "gzip", "Content-Length": str(len(answer.body))})
    answer.headers["Vary"] = "Accept-Encoding"
    return answer


@dataclass
class View:
    """What a view works with: the request, its session and who asks."""

    request: Request
    session: Session
    actor: Actor

    @property
    def tenant_id(self) -> uuid.UUID:
        """The asker's tenant."""
        return self.actor.tenant_id

    def render(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """Render a page with menu, toast and the menu's numbers; with a problem, nothing was done."""
        if status >= 400:
            unsay(self.session)
        base = {
            "active_jobs": queries.count_active(self.session, self.tenant_id),
            "can_read_audit": self.actor.may("audit:read"),
            "can_read_secrets": self.actor.may("secrets:read"),
            "can_read_team": self.actor.may("users:read"),
            "can_restore": self.actor.may("restores:write"),
            "can_run": self.actor.may("jobs:write"),
            "can_write": self.actor.may("hosts:write"),
            "here": here(self.request),
            "open_alerts": queries.count_open_alerts(self.session, self.tenant_id),
            "toast": _toast(self.request),
            "user_name": self.actor.name,
        }
        answer = bare(self.request, template, status, **(base | values))
        if base["toast"]:
            answer.delete_cookie("flash", path="/")
        return answer

    def back(self, default: str, flash: str = "") -> RedirectResponse:
        """Answer a write: back to the page it came from, which then shows a toast."""
        came_from = self.request.headers.get("referer", "")
        own = str(self.request.base_url)
        return redirect("/" + came_from.removeprefix(own) if came_from.startswith(own) else default, flash)


def redirect(path: str, flash: str = "") -> RedirectResponse:
    """Redirect to a path of ours after a write; `flash` is a toast's code, `code` or `code:operation:job`."""
    answer = RedirectResponse(path, 303)
    if flash:
        answer.set_cookie("flash", flash, max_age=60, path="/", httponly=True, samesite="lax")
    return answer


def view(right: str) -> Callable[..., View]:
    """Return a dependency that gives a View to who has `right`."""

    def make(request: Request, session: SessionDep, actor: Annotated[Actor, Depends(require(right))]) -> View:
        if note := session.info.get("audit"):
            note.action = acts.SAME.get(note.action, note.action)
        return View(request, session, actor)

    return make


def _toast(request: Request) -> dict[str, str] | None:
    """Return the toast that a redirect's cookie names. Only known codes count: a cookie is input."""
    match = _FLASH.fullmatch(unquote(request.cookies.get("flash", "")))
    if not match:
        return None
    code, kind, job = match.groups()
    texts = {
        "canceled": i18n.gettext("Asked the job to stop"),
        "rebuilding": i18n.gettext("The rebuild has begun"),
        "saved": i18n.gettext("Saved"),
        "created": i18n.gettext("Created"),
        "deleted": i18n.gettext("Deleted"),
        "test-delivered": i18n.gettext("The test was delivered"),
        "test-failed": i18n.gettext("The test was not delivered: its row says why"),
        "enabled": i18n.gettext("Switched on"),
        "disabled": i18n.gettext("Switched off"),
        "password": i18n.gettext("Password changed"),
        "added": i18n.gettext("Host added"),
        "changed": i18n.gettext("Hosts changed"),
        "approved": i18n.gettext("Approved: it is provisioned as soon as it lets the controller in"),
        "refused": i18n.gettext("Refused"),
        "revoked": i18n.gettext("Token revoked"),
        "acknowledged": i18n.gettext("Acknowledged"),
        "muted": i18n.gettext("Muted"),
        "compaction-approved": i18n.gettext("Approved: the guard frees the space when it runs next"),
        "approval-revoked": i18n.gettext("Approval revoked"),
        "unmuted": i18n.gettext("No longer muted"),
    }
    if code == "started" and kind in words.operations:
        name = i18n.gettext(words.operations[kind])
        return {"text": i18n.gettext("%(operation)s started") % {"operation": name}, "href": f"/jobs/{job}"}
    return {"text": texts[code], "href": f"/jobs/{job}" if job else ""} if code in texts else None


def problem_page(request: Request, problem: Problem) -> Response:
    """Render a problem for a person; who is not logged in is sent to log in."""
    _localise(request)
    if problem.status == 401:
        following = here(request) if request.method == "GET" else ""
        return RedirectResponse(url("/login", next="" if following == "/" else following), 303)
    if problem.problem_type == "password-change-needed":
        return RedirectResponse("/password", 303)
    title, text = words.problems.get(problem.status, (problem.title, problem.detail))
    return bare(
        request,
        "problems/page.html",
        problem.status,
        status=problem.status,
        title=i18n.gettext(title),
        text=i18n.gettext(text),
        detail=sentence(problem.detail) if problem.status not in (404, 500) else "",
        request_id=request_id(request),
        retry=here(request) if problem.status >= 500 and request.method == "GET" else _referer(request),
    )


def _referer(request: Request) -> str:
    came_from = request.headers.get("referer", "")
    own = str(request.base_url)
    return "/" + came_from.removeprefix(own) if came_from.startswith(own) else "/"
