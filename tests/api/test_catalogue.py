"""The catalogue over HTTP: a host sends listings, people browse, compare, find; a killed part is done again."""

import base64
import errno
import gzip
import stat
import uuid
from datetime import timedelta

import pytest
from saveos.archives import catalogue, settling, store
from saveos.archives.models import Archive
from saveos.core.clock import now


def told(path: bytes, size: int = 1, kind: int = stat.S_IFREG | 0o644) -> bytes:
    return f"{stat.filemode(kind)} {size} 2026-11-23T04:00:00.000000 ".encode() + path.lstrip(b"/") + b"\0"


def folder(path: bytes) -> bytes:
    return told(path, 0, stat.S_IFDIR | 0o755)


class Sender:
    """A host that backs itself up and sends listings."""

    def __init__(self, api, database, home, name="web1"):
        self.api, self.database, self.home, self.name = api, database, home, name
        self.host = api.made("/hosts", {"name": name})
        self.token = api.agent_token(self.host["id"])
        self.repository = api.get(f"/repositories?host={name}").json()["items"][0]["id"]
        self.made = 0

    def archive(self, files: int | None = None) -> str:
        """Check one run with an archive in; return Borg's id of it."""
        self.made += 1
        at = (now() - timedelta(hours=10 - self.made)).isoformat()
        borg_id = uuid.uuid4().hex * 2
        run = {
            "run_id": str(uuid.uuid4()),
            "kind": "backup",
            "state": "succeeded",
            "started_at": at,
            "finished_at": at,
            "results": [
                {
                    "repository_id": self.repository,
                    "state": "succeeded",
                    "archive": {"id": borg_id, "name": f"a{self.made}", "started_at": at, "nfiles": files},
                }
            ],
        }
        assert self.api.post("/agents/checkins", {"runs": [run]}, token=self.token).json()["accepted"] == 1
        return borg_id

    def wanted(self):
        return self.api.get(f"/agents/catalogue/{self.repository}", token=self.token).json()

    def put(self, borg_id, data, **query):
        asked = "&".join(f"{key}={value}" for key, value in query.items())
        url = f"/agents/catalogue/{self.repository}/{borg_id}?{asked}"
        return self.api.call("PUT", url, content=data, token=self.token)

    def send(self, *records: bytes, base: str = "", files: int | None = None) -> str:
        """Back up, send the listing, let the worker index it; return the archive's id."""
        borg_id = self.archive(files)
        answer = self.put(borg_id, gzip.compress(b"".join(records)), base=base, last="true")
        assert answer.status_code == 200, answer.text
        while catalogue.index_next(self.database, self.home):
            pass
        return self.id_of(borg_id)

    def id_of(self, borg_id: str) -> str:
        rows = self.api.get(f"/archives?host={self.name}&limit=200").json()["items"]
        return next(row["id"] for row in rows if row["borg_id"] == borg_id)

    def newest(self) -> str:
        return self.api.get(f"/archives?host={self.name}").json()["items"][0]["borg_id"]


@pytest.fixture
def sender(api, database, installation):
    api.made("/hosts", {"name": "vault", "is_agent": False, "is_storage_server": True})
    return Sender(api, database, installation.home)


def files(api, archive, path="/", **more):
    query = "".join(f"&{key}={value}" for key, value in more.items())
    return api.get(f"/archives/{archive}/files?path={path}{query}")


def test_a_listing_is_browsed_by_directory_with_sizes_and_pages(api, sender):
    archive = sender.send(folder(b"srv"), *(told(b"srv/%03d" % n, n) for n in range(5)), told(b"odd\xff\n", 7))
    top = files(api, archive).json()["items"]
    assert [(each["name"], each["is_directory"], each["size"], each["files"]) for each in top] == [
        ("odd�\n", False, 7, None),
        ("srv", True, 10, 5),
    ]
    page = files(api, archive, "/srv", limit=2).json()
    assert [each["path"] for each in page["items"]] == ["/srv/000", "/srv/001"]
    page = files(api, archive, "/srv", limit=2, cursor=page["next"]).json()
    assert [each["path"] for each in page["items"]] == ["/srv/002", "/srv/003"]
    page = files(api, archive, "/srv", limit=2, cursor=page["next"]).json()
    assert ([each["path"] for each in page["items"]], page["next"]) == (["/srv/004"], None)
    versions = api.get(f"/archives/{archive}/versions?ref={top[0]['ref']}").json()
    assert [each["size"] for each in versions] == [7]
    assert base64.urlsafe_b64decode(top[0]["ref"] + "==") == b"/odd\xff\n"


def test_changes_are_sent_since_the_archive_that_the_catalogue_has(api, sender):
    first = sender.send(folder(b"etc"), told(b"etc/a", 1), told(b"etc/b", 2))
    known = sender.newest()
    second = sender.send(told(b"etc/b", 3), told(b"etc/c", 4), b"gone 0 0 etc/a\0", base=known)
    assert [(e["name"], e["size"], e["changed"]) for e in files(api, second, "/etc").json()["items"]] == [
        ("b", 3, "changed"),
        ("c", 4, "new"),
    ]
    found = api.get(f"/archives/{first}/compare/{second}").json()["items"]
    assert [(e["path"], e["kind"], e["old_size"], e["size"]) for e in found] == [
        ("/etc/a", "removed", 1, 1),
        ("/etc/b", "changed", 2, 3),
        ("/etc/c", "added", None, 4),
    ]
    back = api.get(f"/archives/{second}/compare/{first}").json()["items"]
    assert [(e["kind"], e["old_size"], e["size"]) for e in back] == [
        ("added", None, 1),
        ("changed", 3, 2),
        ("removed", 4, 4),
    ]
    assert api.get(f"/archives/{first}/compare/{second}?path=/nowhere").status_code == 404
    versions = api.get(f"/archives/{first}/versions?path=/etc/b").json()
    assert [(e["size"], e["archive_id"], e["last_at"] is None) for e in versions] == [
        (3, second, True),
        (2, first, False),
    ]


def test_a_file_that_is_gone_is_found_in_the_archive_that_has_it(api, sender):
    first = sender.send(folder(b"home"), told(b"home/Report.odt", 9), told(b"home/keep", 1))
    sender.send(folder(b"home"), told(b"home/keep", 1))
    hit = api.get("/find?q=report").json()
    assert [(e["path"], e["host"], e["gone"], e["archive_id"]) for e in hit] == [
        ("/home/Report.odt", "web1", True, first)
    ]
    for query in ("*.odt", "home/rep", "/home/Report.odt", "report&host=web1&min_size=9"):
        assert [e["path"] for e in api.get(f"/find?q={query}").json()] == ["/home/Report.odt"], query
    for query in ("report&host=vault", "report&max_size=8", "*.pdf", "etc/rep"):
        assert api.get(f"/find?q={query}").json() == [], query
    assert api.get("/find?q=/").status_code == 422


def test_names_left_in_a_directory_tell_what_is_gone_from_it(api, sender):
    first = sender.send(
        *(folder(b"srv"), folder(b"srv/old"), told(b"srv/old/deep", 1), told(b"srv/a", 2), told(b"srv/b", 3)),
        files=3,
    )
    known = sender.newest()
    left = (b"names 0 0 srv\0", b"name 0 0 srv/b\0", b"name 0 0 srv/never seen\0")
    second = sender.send(folder(b"srv"), *left, base=known, files=1)
    assert [e["path"] for e in files(api, second, "/srv").json()["items"]] == ["/srv/b"]
    found = api.get(f"/archives/{first}/compare/{second}").json()["items"]
    assert [(e["path"], e["kind"]) for e in found] == [
        ("/srv/a", "removed"),
        ("/srv/old", "removed"),
        ("/srv/old/deep", "removed"),
    ]


def test_an_interrupted_upload_goes_on_where_it_broke(api, sender):
    borg_id = sender.archive()
    data = gzip.compress(told(b"a") * 1 + told(b"b"))
    assert sender.wanted() == {
        "archive": borg_id,
        "base": None,
        "received": {"": 0},
        "waiting": False,
        "more": 0,
    }
    assert sender.put(borg_id, data[:10]).json() == {"received": 10}
    assert sender.wanted()["received"] == {"": 10}
    assert sender.put(borg_id, data[20:], offset=20).status_code == 409
    assert sender.put(borg_id, data[10:], offset=10, last="true").json() == {"received": len(data)}
    assert sender.wanted()["archive"] is None
    assert catalogue.index_next(sender.database, sender.home)
    assert not catalogue.index_next(sender.database, sender.home)
    assert [e["name"] for e in files(api, sender.id_of(borg_id)).json()["items"]] == ["a", "b"]
    waiting = sender.home / "catalogue" / "incoming"
    assert [each for each in waiting.rglob("*") if each.is_file()] == []


def test_an_index_killed_after_its_store_was_written_is_finished_at_the_next_start(api, sender, monkeypatch):
    borg_id = sender.archive()
    sender.put(borg_id, gzip.compress(told(b"a")), last="true")
    index = catalogue._index

    def killed(*arguments):
        index(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(catalogue, "_index", killed)
    with pytest.raises(KeyboardInterrupt):
        catalogue.index_next(sender.database, sender.home)
    monkeypatch.setattr(catalogue, "_index", index)
    assert catalogue.index_next(sender.database, sender.home)
    assert [e["name"] for e in files(api, sender.id_of(borg_id)).json()["items"]] == ["a"]


def test_a_listing_that_cannot_be_used_says_why_and_is_not_browsed(api, sender):
    broken = sender.archive()
    sender.put(broken, b"no gzip", last="true")
    assert catalogue.index_next(sender.database, sender.home)
    row = api.get(f"/archives/{sender.id_of(broken)}").json()
    assert (row["catalogue"], row["catalogue_error"]) == ("failed", "the listing is no gzip file")
    assert files(api, sender.id_of(broken)).status_code == 409


def test_a_listing_that_cannot_be_taken_over_is_set_aside_and_others_go_on(api, sender):
    poison = sender.archive()
    sender.put(poison, gzip.compress(told(b"huge", 2**64)), last="true")  # larger than a store's numbers
    other = Sender(api, sender.database, sender.home, "web2")
    assert [each["name"] for each in files(api, other.send(told(b"a"))).json()["items"]] == ["a"]
    row = api.get(f"/archives/{sender.id_of(poison)}").json()
    assert (row["catalogue"], row["catalogue_error"]) == ("failed", catalogue.SET_ASIDE)
    assert sender.wanted()["archive"] is None
    assert api.post(f"/repositories/{sender.repository}/catalogue/rebuild", None).status_code == 202
    assert sender.wanted()["archive"] == poison
    sender.put(poison, gzip.compress(told(b"huge", 1)), last="true")
    assert catalogue.index_next(sender.database, sender.home)
    assert [each["name"] for each in files(api, sender.id_of(poison)).json()["items"]] == ["huge"]


def test_a_full_disk_sets_no_listing_aside(sender, monkeypatch):
    borg_id = sender.archive()
    sender.put(borg_id, gzip.compress(told(b"a")), last="true")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(catalogue, "_index", full)
        catalogue.index_next(sender.database, sender.home)
    assert catalogue.index_next(sender.database, sender.home)


def test_changes_that_refer_to_nothing_known_are_asked_for_in_full(api, sender):
    archive = sender.send(told(b"a"), base="ab" * 32)
    assert api.get(f"/archives/{archive}").json()["catalogue"] == "none"
    assert sender.wanted()["base"] is None


def test_a_repository_s_part_is_dropped_and_built_anew_with_the_same_answers(api, sender):
    archive = sender.send(folder(b"etc"), told(b"etc/a", 1))
    before = files(api, archive, "/etc").json()
    answer = api.post(f"/repositories/{sender.repository}/catalogue/rebuild", None)
    assert answer.status_code == 202, answer.text
    assert files(api, archive, "/etc").status_code == 409
    wanted = sender.wanted()
    assert wanted["archive"] == sender.newest()
    sender.put(wanted["archive"], gzip.compress(folder(b"etc") + told(b"etc/a", 1)), last="true")
    assert catalogue.index_next(sender.database, sender.home)
    assert files(api, archive, "/etc").json() == before


def test_a_rebuild_asks_for_all_archives_oldest_first_and_one_at_a_time(api, sender):
    trees = [(folder(b"etc"), told(b"etc/lost")), (folder(b"etc"), told(b"etc/b", 2)), (told(b"c"),)]
    archives = [sender.send(*tree) for tree in trees]
    found = api.get("/find?q=lost").json()
    assert found[0]["archive_id"] == archives[0]
    assert api.post(f"/repositories/{sender.repository}/catalogue/rebuild", None).status_code == 202
    assert api.get(f"/archives/{archives[0]}").json()["catalogue"] == "wanted"
    asked = []
    for tree in trees:
        wanted = sender.wanted()["archive"]
        asked.append(sender.id_of(wanted))
        sender.put(wanted, gzip.compress(b"".join(tree)), last="true")
        assert sender.wanted()["archive"] is None
        assert catalogue.index_next(sender.database, sender.home)
    assert (asked, sender.wanted()["archive"]) == (archives, None)
    assert api.get("/find?q=lost").json() == found


def test_an_archive_that_comes_back_is_indexed_again(api, sender):
    first = sender.send(told(b"only-here"))
    known = sender.newest()
    sender.send(told(b"b"))
    url = f"/agents/catalogue/{sender.repository}/living"
    both = [known, sender.newest()]
    assert api.call("POST", url, json={"archives": both[1:]}, token=sender.token).is_success
    assert catalogue.forget_next(sender.database, sender.home)
    assert sender.wanted()["archive"] is None
    assert api.call("POST", url, json={"archives": both}, token=sender.token).is_success
    for tree in (told(b"only-here"), told(b"b")):
        sender.put(sender.wanted()["archive"], gzip.compress(tree), last="true")
        assert catalogue.index_next(sender.database, sender.home)
    assert [each["archive_id"] for each in api.get("/find?q=only-here").json()] == [first]
    assert sender.wanted()["archive"] is None


def test_a_damaged_store_says_so_hinders_no_other_and_is_dropped_by_a_rebuild(api, sender, monkeypatch):
    monkeypatch.setattr(catalogue, "SHARDS", 1)
    other = Sender(api, sender.database, sender.home, "web2")
    archive, neighbour = sender.send(told(b"a")), other.send(told(b"b"))
    for path in (sender.home / "catalogue").rglob("*.db"):
        path.write_bytes(b"x" * 8192)
    for path in (sender.home / "catalogue").rglob("*.db-*"):
        path.unlink()
    for url in (f"/archives/{archive}/files", f"/archives/{archive}/versions?path=/a", "/find?q=abc"):
        answer = api.get(url)
        assert (answer.status_code, "saveos archives rebuild" in answer.json()["detail"]) == (503, True), url
    later = sender.send(told(b"a"))
    assert api.get(f"/archives/{later}").json()["catalogue"] == "failed"
    assert api.post(f"/repositories/{sender.repository}/catalogue/rebuild", None).status_code == 202
    assert sender.wanted()["archive"] is not None
    assert other.wanted()["archive"] == other.newest()
    assert api.get(f"/archives/{neighbour}").json()["catalogue"] == "wanted"


def test_a_rebuild_drops_no_store_that_is_only_busy(api, sender, database, monkeypatch):
    archive = sender.send(told(b"a"))
    with database.session() as session:
        row = session.get_one(Archive, uuid.UUID(archive))
        held = catalogue.open_store(session, sender.home, row.tenant_id, row.repository_id)
    monkeypatch.setattr("saveos.archives.store.file.LOCK_SECONDS", 0.1)
    with held, held._writing():
        answer = api.post(f"/repositories/{sender.repository}/catalogue/rebuild", None)
    assert (answer.status_code, "try again" in answer.json()["detail"]) == (409, True)
    assert [each["name"] for each in files(api, archive).json()["items"]] == ["a"]


def test_names_go_when_the_policy_says_off_and_come_back_when_it_says_full(api, sender, database, monkeypatch):
    monkeypatch.setattr(catalogue, "SHARDS", 1)
    other = Sender(api, database, sender.home, "web2")
    trees = [(told(b"secret"),), (told(b"secret"), told(b"later"))]
    archives = [sender.send(*tree) for tree in trees]
    kept = other.send(told(b"secret"))
    made = api.made("/policies", {"name": "quiet", "sources": ["/etc"], "catalogue": "off"})
    api.patch("/hosts/web1", {"policy": "quiet"})
    part = sender.archive()
    assert sender.put(part, b"a", last="false").status_code == 409  # nothing comes in from here on
    assert sender.wanted()["archive"] is None
    assert settling.settle(database, sender.home)
    assert [each["archive_id"] for each in api.get("/find?q=secret").json()] == [kept]
    rows = api.get("/archives?host=web1").json()["items"]
    assert {(row["catalogue"], row["catalogue_error"]) for row in rows} == {("off", "")}
    for answer in (
        files(api, archives[0]),
        api.post(f"/repositories/{sender.repository}/catalogue/rebuild", None),
    ):
        assert (answer.status_code, "the policy quiet keeps names" in answer.json()["detail"]) == (409, True)
    assert settling.settle(database, sender.home)  # there is nothing left to do
    api.patch(f"/policies/{made['id']}", {"catalogue": "full"})
    assert sender.wanted()["archive"] is None  # not the newest before the others
    assert settling.settle(database, sender.home)
    for tree in (*trees, (told(b"secret"),)):
        sender.put(sender.wanted()["archive"], gzip.compress(b"".join(tree)), last="true")
        assert catalogue.index_next(database, sender.home)
    assert {row["catalogue"] for row in api.get("/archives?host=web1").json()["items"]} == {"indexed"}
    assert [e["name"] for e in files(api, archives[1]).json()["items"]] == ["later", "secret"]


def test_a_host_s_own_variable_wins_and_a_busy_store_holds_up_no_other(api, sender, database, monkeypatch):
    other = Sender(api, database, sender.home, "web2")
    while uuid.UUID(other.repository).int % 16 == uuid.UUID(sender.repository).int % 16:
        other = Sender(api, database, sender.home, f"{other.name}x")
    mine, theirs = sender.send(told(b"a")), other.send(told(b"b"))
    for each in (sender, other):
        api.patch(f"/hosts/{each.name}", {"variables": {"agent_catalogue": "off"}})
    with database.session() as session:
        row = session.get_one(Archive, uuid.UUID(mine))
        held = catalogue.open_store(session, sender.home, row.tenant_id, row.repository_id)
    monkeypatch.setattr("saveos.archives.store.file.LOCK_SECONDS", 0.1)
    with held, held._writing():
        assert not settling.settle(database, sender.home)
    states = [api.get(f"/archives/{each}").json()["catalogue"] for each in (mine, theirs)]
    assert states == ["indexed", "off"]
    assert settling.settle(database, sender.home)
    assert "agent_catalogue" in files(api, mine).json()["detail"]


def test_a_damaged_store_goes_whole_and_those_who_share_it_are_built_anew(api, sender, database, monkeypatch):
    monkeypatch.setattr(catalogue, "SHARDS", 1)
    other = Sender(api, database, sender.home, "web2")
    mine, theirs = sender.send(told(b"a")), other.send(told(b"b"))
    api.patch("/hosts/web1", {"variables": {"agent_catalogue": "off"}})
    for path in (sender.home / "catalogue").rglob("*.db"):
        path.write_bytes(b"x" * 8192)
    for path in (sender.home / "catalogue").rglob("*.db-*"):
        path.unlink()
    assert settling.settle(database, sender.home)
    assert [api.get(f"/archives/{each}").json()["catalogue"] for each in (mine, theirs)] == ["off", "wanted"]


def test_a_folder_that_an_archive_lacks_is_no_empty_one(api, sender):
    archive = sender.send(folder(b"srv/data/empty"), told(b"srv/file"))
    assert files(api, archive, "/srv/data/empty").json()["items"] == []
    assert [each["name"] for each in files(api, archive).json()["items"]] == ["srv"]
    for path in ("/nowhere", "/srv/file"):
        answer = files(api, archive, path)
        assert (answer.status_code, f"no folder {path}" in answer.json()["detail"]) == (404, True)


def test_a_search_by_size_tells_a_version_that_is_no_more_from_a_file_that_is_gone(api, sender):
    first = sender.send(told(b"srv/log", 5), told(b"srv/lost", 5))
    second = sender.send(told(b"srv/log", 500))
    assert [(e["path"], e["gone"], e["older"]) for e in api.get("/find?q=lo&max_size=9").json()] == [
        ("/srv/log", False, True),
        ("/srv/lost", True, False),
    ]
    found = api.get("/find?q=/srv/log&host=web1&min_size=9&after=2026-11-23T03:00:00&before=2026-11-24").json()
    assert [(e["archive_id"], e["older"]) for e in found] == [(second, False)]
    assert [e["archive_id"] for e in api.get("/find?q=log&max_size=9").json()] == [first]


def test_a_host_cannot_send_for_another(api, sender):
    other = Sender(api, sender.database, sender.home, "web2")
    borg_id = sender.archive()
    assert other.api.get(f"/agents/catalogue/{sender.repository}", token=other.token).status_code == 404
    answer = other.api.call(
        "PUT", f"/agents/catalogue/{sender.repository}/{borg_id}?last=true", content=b"", token=other.token
    )
    assert answer.status_code == 404


def test_changes_that_do_not_explain_the_number_of_files_are_asked_for_in_full(api, sender):
    """A file that is gone is in no list of changes; only the archive's count tells of it."""
    sender.send(told(b"a"), told(b"b"), told(b"c"), files=3)
    known = sender.newest()
    lost = sender.send(told(b"d"), base=known, files=3)
    assert api.get(f"/archives/{lost}").json()["catalogue"] == "none"
    assert sender.wanted()["base"] is None
    sender.put(sender.newest(), gzip.compress(told(b"b") + told(b"c") + told(b"d")), last="true")
    assert catalogue.index_next(sender.database, sender.home)
    assert [each["name"] for each in files(api, lost).json()["items"]] == ["b", "c", "d"]
    known = sender.newest()
    kept = sender.send(told(b"d", 5), told(b"e"), base=known, files=4)
    assert [each["name"] for each in files(api, kept).json()["items"]] == ["b", "c", "d", "e"]


def test_a_part_that_cannot_forget_archives_does_not_stop_the_others(api, sender, monkeypatch):
    other = Sender(api, sender.database, sender.home, "web2")
    for each in (sender, other):
        each.send(told(b"a"))
        each.send(told(b"b"))
        url = f"/agents/catalogue/{each.repository}/living"
        told_so = api.call("POST", url, json={"archives": [each.newest()]}, token=each.token)
        assert told_so.status_code == 204
    forget, forgot = store.Store.forget_archives, []

    def poisoned(self, repository, living):
        if repository == sender.repository:
            raise ValueError("poison")
        forgot.append(repository)
        forget(self, repository, living)

    monkeypatch.setattr(store.Store, "forget_archives", poisoned)
    while catalogue.forget_next(sender.database, sender.home):
        pass
    assert forgot == [other.repository]


def test_an_archive_that_is_gone_leaves_lists_and_the_catalogue(api, sender):
    sender.send(folder(b"etc"), told(b"etc/old"), told(b"etc/both"))
    first = sender.newest()
    second = sender.send(folder(b"etc"), told(b"etc/both"))
    url = f"/agents/catalogue/{sender.repository}/living"
    assert api.call("POST", url, json={"archives": [sender.newest()]}, token=sender.token).status_code == 204
    assert catalogue.forget_next(sender.database, sender.home)
    assert not catalogue.forget_next(sender.database, sender.home)
    assert [row["id"] for row in api.get("/archives").json()["items"]] == [second]
    everything = api.get("/archives?gone=true").json()["items"]
    assert [(row["borg_id"] == first, row["gone_at"] is None) for row in everything] == [
        (False, True),
        (True, False),
    ]
    assert [e["path"] for e in api.get("/find?q=both").json()] == ["/etc/both"]
    assert api.get("/find?q=etc/old").json() == []
    assert api.call("POST", url, json={"archives": [first, sender.newest()]}, token=sender.token).is_success
    assert len(api.get("/archives").json()["items"]) == 2


def test_notes_and_tags_of_archives(api, sender):
    archive = sender.send(told(b"a"))
    changed = api.patch(f"/archives/{archive}", {"note": " before the upgrade ", "tags": ["release", "a_b"]})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["note"], changed.json()["tags"]) == ("before the upgrade", ["a_b", "release"])
    assert api.patch(f"/archives/{archive}", {"tags": ["release"]}).json()["note"] == "before the upgrade"
    assert [row["id"] for row in api.get("/archives?tag=release").json()["items"]] == [archive]
    assert api.get("/archives?tag=releas_").json()["items"] == []
    assert api.patch(f"/archives/{archive}", {"tags": ["no blanks"]}).status_code == 422
    assert api.patch(f"/archives/{archive}", {"name": "x"}).status_code == 422
    assert api.patch(f"/archives/{archive}", {"note": ""}, token=api.token_of("viewer")).status_code == 403
