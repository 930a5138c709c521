"""The audit trail: each filter, pages that look at a bounded number of acts, and the export of all."""

import csv
import io
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from saveos.accounts import trail
from saveos.accounts.access import unsay
from saveos.accounts.models import Audit
from saveos.accounts.service import record
from saveos.core.database import new_id


def note(api, actor, action, object_, *, days=0, address="192.0.2.7", **detail):
    """Add an act of so many days ago, as it would have been noted then."""
    at = datetime.now(UTC) - timedelta(days=days)
    born = uuid.UUID(int=new_id().int & (2**80 - 1) | int(at.timestamp() * 1000) << 80)
    with api.database.session() as session:
        act = record(session, api.tenant_id, actor, action, object_, address=address)
        act.id, act.at, act.detail = born, at, detail


@pytest.fixture
def acts(api):
    note(api, "ana", "delete policy", "policy:old_one", days=40)
    note(api, "ana", "add host", "host:web1", days=3, port=22)
    note(api, "ana (token ci)", "change host", "host:web1", days=2)
    note(api, "anabel", "change host", "host:web2", days=1, address="198.51.100.1")


def asked(api, query):
    answer = api.get(f"/audit?{query}")
    assert answer.status_code == 200, answer.text
    return [act["object"] for act in answer.json()["items"]]


@pytest.mark.both_engines
def test_each_filter_narrows_and_pages_go_on(api, acts):
    day = 86400
    moments = {days: datetime.now(UTC) - timedelta(days=days) for days in (1.5, 2.5, 30)}
    iso = {days: moment.isoformat().replace("+00:00", "Z") for days, moment in moments.items()}
    assert asked(api, "actor=ana") == ["host:web1", "host:web1", "policy:old_one"], "with tokens; not anabel"
    assert asked(api, "actor=ana+(token+ci)") == ["host:web1"]
    assert asked(api, "action=change+host") == ["host:web2", "host:web1"]
    assert asked(api, "object=WEB1") == ["host:web1", "host:web1"]
    assert asked(api, "object=old%25one") == [], "a % is a %"
    assert asked(api, "address=198.51.100.1") == ["host:web2"]
    assert asked(api, f"object=host:&since={iso[2.5]}&until={iso[1.5]}") == ["host:web1"]
    assert asked(api, f"until={iso[30]}") == ["policy:old_one"]
    first = api.get("/audit?actor=ana&limit=2").json()
    rest = api.get(f"/audit?actor=ana&limit=2&cursor={first['next']}").json()
    assert [len(first["items"]), len(rest["items"]), rest["next"]] == [2, 1, None]
    assert api.get(f"/audit?since={day}x").status_code == 422


def test_a_page_looks_at_so_many_acts_and_says_where_it_stopped(api, acts, monkeypatch):
    monkeypatch.setattr(trail, "SCAN", 2)
    page = api.get("/audit?action=delete+policy").json()
    assert page["items"] == [] and page["next"]
    seen, cursor = [], ""
    for _ in range(20):
        page = api.get(f"/audit?action=delete+policy{cursor}").json()
        seen += page["items"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert [act["object"] for act in seen] == ["policy:old_one"]
    lines = api.get("/audit/export?format=jsonl&action=delete+policy").text.splitlines()
    assert [json.loads(line)["object"] for line in lines] == ["policy:old_one"]


def test_the_export_holds_all_and_nothing_of_another_tenant(api, acts, monkeypatch):
    monkeypatch.setattr(trail, "BATCH", 2)
    note(api, "=cmd()", "add host", "host:x,y", days=0, lines="a\nb")
    answer = api.get("/audit/export")
    assert answer.headers["content-type"].startswith("text/csv")
    assert ".csv" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    listed = api.get("/audit").json()["items"]
    assert [row["id"] for row in rows] == [act["id"] for act in listed]
    harmless = next(row for row in rows if row["object"] == "host:x,y")
    assert harmless["actor"] == "'=cmd()" and json.loads(harmless["detail"]) == {"lines": "a\nb"}
    told = [json.loads(line) for line in api.get("/audit/export?format=jsonl&actor=ana").text.splitlines()]
    assert [each["action"] for each in told] == ["change host", "add host", "delete policy"]
    other = api.other_tenant()
    assert "host:web1" not in api.get("/audit/export", token=other.token).text
    assert api.get("/audit/export", token=api.token_of("viewer")).status_code == 200
    assert api.get("/audit/export?format=xls").status_code == 422


def test_log_ins_are_told(api):
    api.made("/users", {"name": "ben", "password": "secret-word-1"})
    assert api.get("/users").json()["items"][-1]["last_login_at"] is None
    assert api.post("/auth/login", {"name": "ben", "password": "secret-word-1"}, token="").status_code == 200
    assert api.get("/users").json()["items"][-1]["last_login_at"] is not None
    assert asked(api, "action=log+in&actor=ben") == ["user:ben"]


def test_a_form_that_is_shown_again_leaves_no_note(api):
    with api.database.session() as session:
        session.info["audit"] = record(session, api.tenant_id, "ana", "create user", "x")
        session.flush()
        unsay(session)
    with api.database.session() as session:
        assert session.query(Audit).filter_by(actor="ana").count() == 0
