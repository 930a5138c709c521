"""Care of archives over HTTP: who may, what is refused, and how names, ids and the catalogue follow a host."""

import gzip
import uuid
from datetime import timedelta

import pytest
from saveos.archives import catalogue
from saveos.archives.models import Archive
from saveos.core.clock import now
from saveos.core.errors import Invalid
from saveos.hosts.models import Host
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import care
from sqlalchemy import select

from tests.api.test_catalogue import Sender, files, told


@pytest.fixture
def sender(api, database, installation, host_key):
    api.made("/hosts", {"name": "vault", "is_agent": False, "is_storage_server": True})
    found = Sender(api, database, installation.home)
    assert api.patch("/hosts/web1", {"address": "192.0.2.1", "ssh_host_keys": [host_key()]}).is_success
    with database.session(writes=True) as session:
        session.get_one(Host, uuid.UUID(found.host["id"])).state = "enrolled"
    return found


def tell(sender, action, archive, fresh=None, mode="run", asked=None):
    """Let the job's host say what it did; `asked` is what the job asked for, where that is something else."""
    told = {
        "action": action,
        "repository_id": sender.repository,
        "archive": archive,
        "now": fresh,
        "changed": True,
    }
    with sender.database.session(writes=True) as session:
        host = session.get_one(Host, uuid.UUID(sender.host["id"]))
        job = Job(tenant_id=host.tenant_id, operation="care", mode=mode, requested_by="admin")
        job.parameters = {"action": action, "archive": archive["id"]} | (asked or {})
        care.recorded(session, job, JobHost(name="web1", host_id=host.id, result={"care": told}, state="ok"))


def test_the_job_names_the_archive_by_its_id_and_the_audit_by_its_name(api, sender):
    archive = sender.send(told(b"a"))
    answer = api.post(f"/archives/{archive}/care", {"action": "rename", "new_name": "release-1"})
    assert answer.status_code == 202, answer.text
    with sender.database.session() as session:
        job = session.get_one(Job, uuid.UUID(answer.json()["id"]))
        assert (job.operation, job.parameters["action"], job.parameters["new_name"]) == (
            "care",
            "rename",
            "release-1",
        )
        assert job.parameters["archive"] == sender.newest()
        assert f"repository:{sender.repository}" in job.resources
    act = api.get("/audit?limit=1").json()["items"][0]
    assert (act["object"], act["detail"]["action"]) == ("archive a1", "rename")


def test_who_may_do_what(api, sender):
    archive = sender.send(told(b"a"))
    roles = {role: api.token_of(role) for role in ("viewer", "operator", "admin")}
    bodies = [
        ({"action": "protect"}, {"viewer": 403, "operator": 202, "admin": 202}),
        ({"action": "export", "destination": "/root/a.tar"}, {"viewer": 403, "operator": 202, "admin": 202}),
        ({"action": "delete"}, {"viewer": 403, "operator": 403, "admin": 202}),
    ]
    for body, wanted in bodies:
        for role, token in roles.items():
            assert api.post(f"/archives/{archive}/care", body, token=token).status_code == wanted[role], (
                body,
                role,
            )
    generic = {"targets": {"hosts": ["web1"]}, "parameters": {"action": "delete", "archive": "a1"}}
    assert api.post("/maintenance/care", generic, token=roles["operator"]).status_code == 403
    replace = {"targets": {"hosts": ["web1"]}, "parameters": {"database": "shop", "database_as": "replace"}}
    assert api.post("/maintenance/database", replace, token=roles["operator"]).status_code == 403
    assert api.post("/maintenance/database", replace, token=roles["admin"]).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        {"action": "rename"},
        {"action": "rename", "new_name": "+x"},
        {"action": "rename", "new_name": "a/b"},
        {"action": "protect", "new_name": "x"},
        {"action": "export"},
        {"action": "export", "destination": "/root/x.zip"},
        {"action": "export", "destination": "x.tar"},
        {"action": "shred"},
        {},
    ],
)
def test_what_cannot_be_asked(api, sender, body):
    archive = sender.send(told(b"a"))
    assert api.post(f"/archives/{archive}/care", body).status_code == 422


def test_name_id_protection_and_catalogue_follow_the_host(api, sender):
    archive = sender.send(told(b"etc"), told(b"kept"))
    old = {"id": sender.newest(), "name": "a1"}
    fresh = {"id": "cd" * 32, "name": "+a1"}
    tell(sender, "protect", old, fresh, mode="check")
    assert api.get(f"/archives/{archive}").json()["protected"] is False
    tell(sender, "protect", old, fresh)
    tell(sender, "protect", old, fresh)
    row = api.get(f"/archives/{archive}").json()
    assert (row["name"], row["borg_id"], row["protected"], row["gone_at"]) == ("+a1", "cd" * 32, True, None)
    assert [each["name"] for each in files(api, archive).json()["items"]] == ["etc", "kept"]
    assert [each["archive_id"] for each in api.get("/find?q=kept").json()] == [archive]
    assert api.post(f"/archives/{archive}/care", {"action": "delete"}).status_code == 409
    known = sender.newest()
    assert sender.wanted()["archive"] is None
    second = sender.send(told(b"new"), base=known, files=None)
    assert [each["name"] for each in files(api, second).json()["items"]] == ["etc", "kept", "new"]
    tell(sender, "unprotect", fresh, old)
    assert api.get(f"/archives/{archive}").json()["protected"] is False


def test_a_rename_while_its_listing_waits_is_followed(api, sender):
    borg_id = sender.archive()
    archive = sender.id_of(borg_id)
    sender.put(borg_id, gzip.compress(told(b"a")), last="true")
    tell(sender, "rename", {"id": borg_id, "name": "a1"}, {"id": "ef" * 32, "name": "b"})
    assert not catalogue.index_next(sender.database, sender.home)
    assert sender.wanted()["archive"] == "ef" * 32
    sender.put("ef" * 32, gzip.compress(told(b"a")), last="true")
    assert catalogue.index_next(sender.database, sender.home)
    assert [each["name"] for each in files(api, archive).json()["items"]] == ["a"]


def test_a_rename_by_hand_comes_with_the_living(api, sender):
    archive = sender.send(told(b"a"))
    body = {"archives": ["cd" * 32]}
    body["renamed"] = [{"was": sender.newest(), "now": "cd" * 32, "name": "+a1"}]
    url = f"/agents/catalogue/{sender.repository}/living"
    for _ in range(2):
        assert api.call("POST", url, json=body, token=sender.token).status_code == 204
    row = api.get(f"/archives/{archive}").json()
    assert (row["name"], row["protected"], row["gone_at"], row["catalogue"]) == ("+a1", True, None, "indexed")


def test_a_delete_is_noted_with_who_asked_and_forgotten_when_it_comes_back(api, sender):
    archive = sender.send(told(b"a"))
    kept = {"id": sender.newest(), "name": "a1"}
    tell(sender, "delete", kept, mode="check")
    assert api.get(f"/archives/{archive}").json()["removed_at"] is None
    tell(sender, "delete", kept)
    row = api.get(f"/archives/{archive}").json()
    assert (row["removed_why"], row["removed_by"]) == ("request", "admin")
    assert row["removed_at"] == row["gone_at"]
    assert api.get("/archives").json()["items"] == []
    assert api.post(f"/archives/{archive}/care", {"action": "protect"}).status_code == 409
    url = f"/agents/catalogue/{sender.repository}/living"
    assert api.call("POST", url, json={"archives": [kept["id"]]}, token=sender.token).is_success
    row = api.get(f"/archives/{archive}").json()
    assert (row["removed_at"], row["removed_why"], row["gone_at"]) == (None, "", None)


def test_a_host_cannot_answer_with_what_nobody_asked_for(api, sender):
    """Its guard lets go what a person had deleted: so root on the host must not say what that was."""
    precious, asked = sender.send(told(b"a")), sender.send(told(b"b"))
    ids = {each["id"]: each["borg_id"] for each in api.get("/archives").json()["items"]}
    one = {"id": ids[precious], "name": "a1"}
    for wish in ({"action": "protect"}, {"archive": ids[asked]}, {"repository_id": str(uuid.uuid4())}):
        with pytest.raises(Invalid, match="than it was asked for"):
            tell(sender, "delete", one, asked=wish)
    with pytest.raises(Invalid, match="than it was asked for"):
        tell(sender, "protect", one, {"id": "cd" * 32, "name": "+a1"}, asked={"archive": ids[asked]})
    row = api.get(f"/archives/{precious}").json()
    assert (row["removed_at"], row["gone_at"], row["borg_id"]) == (None, None, ids[precious])


def test_a_host_says_nothing_about_archives_of_others(api, sender):
    other = Sender(api, sender.database, sender.home, "web2")
    archive = other.send(told(b"a"))
    tell(sender, "delete", {"id": other.newest(), "name": "a1"})
    with sender.database.session(writes=True) as session:
        host = session.get_one(Host, uuid.UUID(sender.host["id"]))
        job = Job(tenant_id=host.tenant_id, operation="care", mode="run")
        lie = {
            "action": "delete",
            "repository_id": other.repository,
            "archive": {"id": other.newest(), "name": "a1"},
        }
        care.recorded(session, job, JobHost(name="web1", host_id=host.id, result={"care": lie}, state="ok"))
        row = session.scalars(select(Archive).where(Archive.id == uuid.UUID(archive))).one()
        assert (row.removed_at, row.gone_at) == (None, None)
        assert row.reported_at > now() - timedelta(minutes=5)


def test_a_text_difference_is_a_download_of_one_file(api, sender):
    archive, other = sender.send(told(b"etc/note")), sender.send(told(b"etc/note", 2))
    url = f"/archives/{archive}/diff"
    for role, status in (("viewer", 403), ("operator", 403), ("admin", 202)):
        assert api.post(url, {"path": "/etc/note"}, token=api.token_of(role)).status_code == status
    ref = catalogue.to_ref(b"/etc/odd\xff")
    answer = api.post(url, {"ref": ref, "other": other})
    assert answer.status_code == 202, answer.text
    made = answer.json()["restore"]
    assert (made["kind"], made["refs"]) == ("download", [ref])
    with sender.database.session() as session:
        job = session.get_one(Job, uuid.UUID(made["job_id"]))
        assert (job.operation, job.parameters["ref"], job.parameters["transfer"]) == ("diff", ref, made["id"])
        assert job.parameters["other"] == sender.newest()
    stranger = Sender(api, sender.database, sender.home, "web2").send(told(b"a"))
    for body in ({"path": "/etc/note", "other": stranger}, {"path": "/"}, {}, {"path": "/a", "ref": ref}):
        assert api.post(url, body).status_code == 422, body
    generic = {"targets": {"hosts": ["web1"]}, "parameters": {}}
    assert api.post("/maintenance/diff", generic).status_code == 422
    assert api.patch("/settings", {"content_through_controller": False}).is_success
    answer = api.post(url, {"path": "/etc/note"})
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (403, "content-off")


def test_the_text_of_a_file_is_a_download_of_it_alone(api, sender):
    archive = sender.send(told(b"etc/note"))
    url = f"/archives/{archive}/text"
    for role, status in (("viewer", 403), ("operator", 403), ("admin", 202)):
        assert api.post(url, {"path": "/etc/note"}, token=api.token_of(role)).status_code == status
    ref = catalogue.to_ref(b"/etc/odd\xff")
    answer = api.post(url, {"ref": ref})
    assert answer.status_code == 202, answer.text
    made = answer.json()["restore"]
    assert (made["kind"], made["refs"]) == ("download", [ref])
    with sender.database.session() as session:
        job = session.get_one(Job, uuid.UUID(made["job_id"]))
        asked = [job.parameters[name] for name in ("ref", "other", "transfer")]
        assert (job.operation, asked) == ("diff", [ref, "none", made["id"]])
    act = api.get("/audit?limit=1").json()["items"][0]
    assert (act["object"], act["detail"]["path"]) == (f"restore:{made['id']}", "/etc/odd\ufffd")
    for body in ({"path": "/"}, {}, {"path": "/a", "ref": ref}, {"path": "/a", "other": archive}):
        assert api.post(url, body).status_code == 422, body
    assert api.patch("/settings", {"content_through_controller": False}).is_success
    answer = api.post(url, {"path": "/etc/note"})
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (403, "content-off")
    assert api.patch("/settings", {"content_through_controller": True}).is_success
    with sender.database.session(writes=True) as session:
        session.get_one(Archive, uuid.UUID(archive)).gone_at = now()
    assert api.post(url, {"path": "/etc/note"}).status_code == 409
