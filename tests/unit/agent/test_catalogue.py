"""The listing of an archive, as the real borg prints it, reaches a controller in pieces, whatever breaks."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from saveos.archives.listings import read

REPOSITORY = "0193aaaa-0000-7000-8000-000000000001"


class Controller(ThreadingHTTPServer):
    """Wants the listing of `archive`; keeps what it gets, and refuses the request number `refuse`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.archive, self.got, self.whole, self.puts, self.refuse = "", b"", False, 0, 0
        self.base, self.sent_base, self.refuse_changes, self.living = None, "", False, []
        self.anew, self.sent = [], []  # archives that are wanted anew, and those that were sent
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def _answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        server = self.server
        if server.whole and server.anew:
            server.archive, server.whole, server.got = server.anew.pop(0), False, b""
            self._answer(200, {"archive": None, "base": None, "waiting": True, "more": 1})
            return
        archive = None if server.whole else server.archive
        told = {"archive": archive, "base": server.base, "received": {"": len(server.got)}}
        self._answer(200, told | {"more": len(server.anew)})

    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/living"):
            self.server.living.append(told["archives"])
        for run in told.get("runs", []):
            archive = run["results"][0]["archive"]["id"]
            if archive != self.server.archive:
                self.server.archive, self.server.whole, self.server.got = archive, False, b""
        self._answer(200, {})

    def do_PUT(self):
        server = self.server
        piece = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.puts += 1
        if server.puts == server.refuse:
            self._answer(503, {"detail": "try again"})
            return
        query = parse_qs(urlsplit(self.path).query)
        assert int(query["offset"][0]) == len(server.got)
        server.got += piece
        server.whole = query["last"] == ["true"]
        if server.whole:
            server.sent.append(urlsplit(self.path).path.rpartition("/")[2])
        server.sent_base = query.get("base", [""])[0]
        if server.whole and server.sent_base and server.refuse_changes:
            server.whole, server.base, server.got = False, None, b""
        self._answer(200, {"received": len(server.got)})

    def log_message(self, *_):
        pass


@pytest.fixture
def controller(backed, agent):
    server = Controller()
    data = json.loads((backed.etc / "agent.json").read_text())
    data["controller"]["url"] = f"http://127.0.0.1:{server.server_port}"
    (backed.etc / "agent.json").write_text(json.dumps(data))
    yield server
    server.shutdown()
    server.server_close()


def back_up(backed, controller):
    code, record = backed.run("backup", "--wait")
    assert code == 0, record
    backed.run("catalogue")  # waits for the run's own sending
    assert controller.archive == record["results"][0]["archive"]["id"]


def test_every_path_is_listed_as_it_is(backed, controller):
    for name in (b"odd\xff name", b"odd\xfe name", b"odd? really"):
        (backed.sources / "sub" / os.fsdecode(name)).write_bytes(b"x" * 10)
    os.link(backed.sources / "plain", backed.sources / "sub" / "again")
    back_up(backed, controller)
    code, answer = backed.run("catalogue")  # the run itself may have been faster
    assert code == 0, answer
    assert controller.whole
    items = {item.path: item for item in read([controller.got], print)}
    top = os.fsencode(backed.sources)
    expected = {top: os.lstat(top)}
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = folder + b"/" + name
            expected[path] = os.lstat(path)
    found = {path: item for path, item in items.items() if path == top or path.startswith(top + b"/")}
    assert found.keys() == expected.keys()
    for path, status in expected.items():
        assert found[path].mode == status.st_mode, path
        assert found[path].mtime == int(status.st_mtime), path
        if stat.S_ISREG(status.st_mode):
            assert found[path].size == status.st_size, path
    assert found[top + b"/sub/odd\xff name"].size == 10
    assert backed.run("catalogue")[1]["listings"][0]["archive"] is None


def whole(controller):
    deadline = time.monotonic() + 60
    while not controller.whole:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def based(backed, controller):
    """A host whose first archive is in the catalogue, with names of all kinds."""
    for name in (b"odd\xff name", b"odd\xfe name", b"stays", b"goes"):
        (backed.sources / "sub" / os.fsdecode(name)).write_bytes(b"x" * 10)
    (backed.sources / "old" / "deep").mkdir(parents=True)
    (backed.sources / "old" / "deep" / "file").write_text("x")
    back_up(backed, controller)
    whole(controller)
    until_remembered(backed, controller)
    controller.base = controller.archive
    return backed


def until_remembered(backed, controller):
    deadline = time.monotonic() + 30
    known = backed.settings.state / "catalogue.json"
    while not known.exists() or controller.archive not in str(json.loads(known.read_text()).get(REPOSITORY)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_later_archive_sends_what_changed_and_what_is_left(based, controller, monkeypatch):
    first = controller.archive
    known = json.loads((based.settings.state / "catalogue.json").read_text())
    known[REPOSITORY]["since"] = time.time() + 300  # else all of this tree is young
    (based.settings.state / "catalogue.json").write_text(json.dumps(known))
    sub = based.sources / "sub"
    (sub / "goes").unlink()
    (sub / os.fsdecode(b"odd\xfe name")).write_bytes(b"changed")
    (based.sources / "old" / "deep" / "file").unlink()
    (based.sources / "old" / "deep").rmdir()
    (sub / "fresh").symlink_to("stays")
    back_up(based, controller)
    whole(controller)
    assert controller.archive != first
    assert controller.sent_base == first
    names = {}
    items = {item.path: item for item in read([controller.got], print, names)}
    top = os.fsencode(based.sources)
    assert items[top + b"/sub/odd\xfe name"].size == 7
    assert items[top + b"/sub/fresh"].size == len("stays")
    assert top + b"/sub/stays" not in items
    assert top + b"/plain" not in items
    assert names[top + b"/sub"] == {b"odd\xff name", b"odd\xfe name", b"stays", b"fresh", b"new\nline"}
    assert names[top + b"/old"] == set()


def test_changes_that_do_not_do_are_followed_by_all(based, controller):
    controller.refuse_changes = True
    back_up(based, controller)
    whole(controller)
    assert controller.sent_base == ""
    items = {item.path for item in read([controller.got], print)}
    assert os.fsencode(based.sources) + b"/plain" in items


def test_a_new_configuration_lists_all(based, controller):
    based.configure("exclude_patterns:\n- '*/goes'\n")
    back_up(based, controller)
    whole(controller)
    assert controller.sent_base == ""


def test_a_policy_without_catalogue_sends_nothing(based, controller):
    data = json.loads((based.etc / "agent.json").read_text()) | {"catalogue": "off"}
    (based.etc / "agent.json").write_text(json.dumps(data))
    puts = controller.puts
    back_up(based, controller)
    assert based.run("catalogue")[1]["listings"] == []
    assert controller.puts == puts


def test_what_retention_removes_is_told(based, controller):
    based.configure("keep_daily: 1\n")
    back_up(based, controller)
    whole(controller)
    deadline = time.monotonic() + 30
    while not controller.living:  # told after the listing
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert controller.living == [[controller.archive]]


def test_an_interrupted_listing_goes_on(backed, controller, agent, monkeypatch):
    back_up(backed, controller)
    controller.got, controller.whole, controller.puts = b"", False, 0
    settings = agent.load_settings(backed.etc)
    monkeypatch.setattr(agent, "LISTING_PIECE", 100)
    controller.refuse = 3
    first = agent.send_listings(settings)
    assert "try again" in first[0]["error"]["message"]
    assert len(controller.got) == 200
    controller.refuse = 0
    assert agent.send_listings(settings)[0]["archive"] == controller.archive
    assert {item.path.rpartition(b"/")[2] for item in read([controller.got], print)} >= {b"plain", b"new\nline"}
    assert list((settings.state / "listings").iterdir()) == []


def test_a_backup_sends_its_listing_by_itself(backed, controller):
    back_up(backed, controller)
    deadline = time.monotonic() + 30
    while not controller.whole:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_all_archives_are_sent_where_the_catalogue_is_built_anew(backed, controller):
    back_up(backed, controller)
    first = controller.archive
    (backed.sources / "more").write_bytes(b"x")
    back_up(backed, controller)
    second = controller.archive
    controller.archive, controller.anew, controller.sent = first, [second], []
    controller.whole, controller.got = False, b""
    code, answer = backed.run("catalogue")
    assert (code, answer["listings"][0]["archive"]) == (0, second)
    assert controller.sent == [first, second]
    backed.run("catalogue")
    assert controller.sent == [first, second]
