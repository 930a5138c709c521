"""Every error is a problem document, with its request id; headers are on every answer; probes and metrics."""

import asyncio
import importlib
import pkgutil
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import APIRouter
from saveos.alerts.service import open_alert
from saveos.core import web
from saveos.core.clock import now
from saveos.dashboard import views
from saveos.hosts.models import Host
from saveos.jobs import workers
from sqlalchemy import select


@pytest.mark.parametrize(
    "method, path, status, kind",
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("GET", "/hosts/nobody", 404, "not-found"),
        ("PUT", "/hosts", 405, "method-not-allowed"),
        ("GET", "/archives/not-a-uuid", 422, "invalid"),
        ("GET", "/hosts?limit=0", 422, "invalid"),
        ("GET", "/hosts?limit=x", 422, "invalid"),
        ("GET", "/hosts?state=odd", 422, "invalid"),
        ("GET", "/hosts?q=%00", 422, "invalid"),
    ],
)
def test_errors_are_problem_documents(api, method, path, status, kind):
    answer = api.call(method, path)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["type"]) == (
        status,
        status,
        f"urn:saveos:problem:{kind}",
    )
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"] and problem["title"]


@pytest.mark.both_engines
def test_no_list_stumbles_over_a_filter_that_no_database_takes(api, application):
    """PostgreSQL refuses NUL in a text; whoever sends one is told so."""
    api.client.raise_server_exceptions = False
    asked = {
        f"{path.replace('{host}', 'web1')}?{parameter['name']}=%00"
        for path, item in application.openapi()["paths"].items()
        for parameter in item.get("get", {}).get("parameters", ())
        if parameter["in"] == "query" and path.count("{") == path.count("{host}")
    }
    assert len(asked) > 50
    assert [path for path in sorted(asked) if api.get(path).status_code >= 500] == []


def filled(parameter: dict[str, Any]) -> str:
    """A query parameter with a value that its schema takes; "" for one that is none."""
    schema = parameter["schema"].get("anyOf", [parameter["schema"]])[0]
    schema = schema.get("items", schema)
    kinds = {"integer": "1", "number": "1", "boolean": "true", "date-time": "2026-01-01T00:00:00Z"}
    value = schema.get("enum", [kinds.get(schema.get("format", schema.get("type")), "x")])[0]
    return urlencode({parameter["name"]: value}) if parameter["in"] == "query" else ""


@pytest.mark.both_engines
def test_every_list_answers_with_each_of_its_filters(api, application):
    """What only one database refuses, such as a GROUP BY, is found here for all lists at once."""
    api.client.raise_server_exceptions = False
    answers: dict[str, int] = {}
    for path, item in application.openapi()["paths"].items():
        if "get" not in item or path.count("{") > path.count("{host}") or path.endswith("/events"):
            continue
        asked = ("", *(f"?{each}" for each in map(filled, item["get"].get("parameters", ())) if each))
        for address in (path.replace("{host}", "web1") + each for each in asked):
            answers[address] = api.get(address).status_code
    assert sum(status == 200 for status in answers.values()) > 80
    assert [path for path, status in answers.items() if status >= 500] == []


@pytest.mark.both_engines
def test_no_page_stumbles_over_a_filter_that_no_database_takes(api):
    api.client.raise_server_exceptions = False
    headers = {"Authorization": f"Bearer {api.token}", "Accept": "text/html"}
    asked = {
        path
        for view in pkgutil.iter_modules(views.__path__, f"{views.__name__}.")
        for route in getattr(importlib.import_module(view.name), "router", APIRouter()).routes
        if "GET" in route.methods and "{" not in route.path and route.path != "/events"
        for path in (route.path, *(f"{route.path}?{each.alias}=%00" for each in route.dependant.query_params))
    }
    assert "/jobs?host=%00" in asked and "/settings/recovery?state=%00" in asked
    answers = {path: api.client.get(path, headers=headers).status_code for path in sorted(asked)}
    assert answers["/jobs?host=%00"] == answers["/settings/recovery?state=%00"] == 422
    assert [path for path, status in answers.items() if status >= 500] == []


def test_what_is_no_id_and_no_field_is_said_in_words(api):
    assert (
        api.call("GET", "/jobs/0199a7c4-")
        .json()["detail"]
        .endswith("this is no id: give the whole of it, as lists show it")
    )
    wrong = api.call("POST", "/groups", json={"name": "web", "host": []}).json()
    assert (wrong["field"], wrong["detail"]) == (
        "host",
        "host: there is no such field: /docs names those that there are",
    )
    text = api.call("POST", "/groups", content=b"{", headers={"Content-Type": "application/json"}).json()
    assert text["detail"].startswith("the body is no JSON: ") and not text.get("field")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"name": ' + b"9" * 5000 + b"}"])
def test_a_body_that_cannot_be_read_is_the_callers_fault(api, content):
    answer = api.call("POST", "/groups", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("value", ["NaN", "1e999", '{"a": ' * 30 + "1" + "}" * 30, r'"\ud800"', r'"\u0000"'])
def test_values_that_no_database_takes_are_refused(api, value):
    body = f'{{"name": "w", "variables": {{"agent_x": {value}}}}}'
    answer = api.call("POST", "/hosts", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text


def test_an_unforeseen_error_tells_its_request_id_and_nothing_else(api, monkeypatch):
    from saveos.hosts import groups

    def broken(*_args):
        raise RuntimeError("secret inside")

    monkeypatch.setattr(groups, "list_groups", broken)
    answer = api.get("/groups")
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:saveos:problem:internal")
    assert "secret inside" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["detail"]


def test_security_headers_are_on_every_answer(api):
    for path in ("/health", "/nowhere", "/hosts", "/docs"):
        headers = api.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_a_failed_write_leaves_nothing(api):
    assert api.post("/groups", {"name": "web", "hosts": ["nope"]}).status_code == 422
    assert api.get("/groups").json()["items"] == []


def test_metrics(api):
    assert api.get("/metrics", token="").status_code == 401
    api.made("/hosts", {"name": "web1"})
    text = api.get("/metrics").text
    assert 'saveos_hosts{tenant="default",protection="never"} 1' in text
    assert 'saveos_build_info{version="' in text
    with api.database.session() as session:
        open_alert(session, api.tenant_id, "schedule_failed", "schedule:1", "It did not start.")
    told = 'saveos_alerts{tenant="default",rule="schedule_failed",severity="warning",state="open"} 1'
    assert told in api.get("/metrics").text
    assert "saveos_last_proven_timestamp{" not in text
    with api.database.session() as session:
        session.scalars(select(Host)).one().last_proven_at = datetime(2026, 1, 2, tzinfo=UTC)
    proven = 'saveos_last_proven_timestamp{tenant="default",host="web1"} 1767312000'
    assert proven in api.get("/metrics").text
    other = api.other_tenant()
    assert "saveos_alerts{" not in api.get("/metrics", token=other.token).text
    assert "saveos_hosts{" not in api.get("/metrics", token=other.token).text


def test_system_health(api):
    body = api.get("/system/health").json()
    assert body["queue"]["queued"] == 0
    assert body["disk"]["free"] > 0
    assert body["database"]["milliseconds"] >= 0
    assert (body["status"], [each["id"] for each in body["findings"]]) == ("critical", ["worker-none"])
    assert "saveos_system_state 2" in api.get("/metrics").text
    with api.database.session(writes=True) as session:
        workers.beat(session, "w1", started_at=now(), slots=4, running=1, swept_at=now())
    body = api.get("/system/health").json()
    assert (body["status"], body["findings"]) == ("ok", [])
    assert [(each["name"], each["running"]) for each in body["workers"]] == [("w1", 1)]
    assert "saveos_system_state 0" in api.get("/metrics").text
    assert api.get("/system/health", token="").status_code == 401


def test_the_reference_lists_every_route(api, routes):
    page = api.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert all(f"<code>{route.path}</code>" in page.text for route in routes)
    assert "application/problem+json" in page.text and "correct horse battery" in page.text  # errors, examples
    assert "<script" not in page.text


@pytest.mark.parametrize("path", ["/agents/checkins", "/jobs/reports"])
def test_a_slow_client_is_told_so_and_let_go(api, monkeypatch, path):
    """Half a body, and then nothing."""
    monkeypatch.setattr(web, "BODY_SECONDS", 0.2)

    async def half():
        yield b'{"runs": '
        await asyncio.sleep(30)

    async def send():
        transport = httpx.ASGITransport(api.client.app)
        headers = {"Authorization": f"Bearer {api.token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://controller.test") as client:
            return await client.post(f"/api/v1{path}", content=half(), headers=headers)

    answer = asyncio.run(send())
    assert (answer.status_code, answer.json()["type"]) == (408, "urn:saveos:problem:too-slow")
    assert "send it again" in answer.json()["detail"]
