"""What a host sends comes whole, compressed, and in an order that nobody waits for in vain."""

import gzip
import io
import os
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

TRANSFER = "0193bbbb-0000-7000-8000-000000000009"


class Listener:
    """A controller that takes one transfer after it has refused `refusals`; `enough` bytes and it hangs up."""

    def __init__(self, refusals=0, enough=10**9):
        self.body, self.paths, self.whole, self.refusals, outer = b"", [], False, refusals, self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_expect_100(self):
                if not outer.refusals:
                    return super().handle_expect_100()
                outer.refusals -= 1
                told = b'{"detail": "nobody read this transfer"}'
                self.send_response(408)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)
                return False

            def do_PUT(self):
                outer.paths.append(self.path)
                while True:
                    size = int(self.rfile.readline(), 16)
                    outer.body += self.rfile.read(size)
                    self.rfile.readline()
                    if not size:
                        outer.whole = True
                        break
                    if len(outer.body) > enough:
                        self.close_connection = True
                        return
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def listener(monkeypatch):
    made = []

    def make(**how):
        made.append(Listener(**how))
        return made[-1]

    yield make
    for each in made:
        each.server.shutdown()


def send(agent, backed, url, *paths):
    settings = agent.Settings(**{**vars(backed.settings), "controller_url": url})
    request = agent.RestoreRequest(agent.new_run_id(), "", "host", "", "latest", paths, "", transfer=TRANSFER)
    return agent.send_tar(
        settings, request, agent.resolve_archive(settings, settings.repository(""), "latest")[0]
    )


def test_a_chosen_file_is_sent_as_tar(agent, backed, listener, monkeypatch):
    monkeypatch.setattr(agent, "shutil", _without_zstd(agent.shutil))
    assert backed.run("backup")[0] == 0
    controller = listener()
    told = send(agent, backed, controller.url, str(backed.sources / "plain"))
    assert (told["form"], told["sent"]) == ("tar.gz", len(controller.body))
    assert controller.whole and controller.paths == [f"/api/v1/agents/transfers/{TRANSFER}?form=tar.gz"]
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(controller.body))) as tar:
        assert [name.rpartition("/")[2] for name in tar.getnames()] == ["plain"]


def test_what_is_not_there_is_said_and_never_looks_whole(agent, backed, listener):
    assert backed.run("backup")[0] == 0
    controller = listener()
    with pytest.raises(agent.AgentError, match="None of the paths"):
        send(agent, backed, controller.url, "/no/such")
    time.sleep(0.2)
    assert not controller.whole


def test_borg_does_not_start_where_nobody_reads(agent, backed, listener, monkeypatch):
    assert backed.run("backup")[0] == 0
    real = agent.run_borg

    def only_list(settings, repository, run_id, output, command, *rest, **named):
        assert command == "list"
        return real(settings, repository, run_id, output, command, *rest, **named)

    monkeypatch.setattr(agent, "run_borg", only_list)
    with pytest.raises(agent.AgentError, match="nobody read this transfer"):
        send(agent, backed, listener(refusals=1).url, str(backed.sources))


def test_a_controller_that_hangs_up_ends_it(agent, backed, listener):
    (backed.sources / "big").write_bytes(os.urandom(20_000_000))
    assert backed.run("backup")[0] == 0
    with pytest.raises(agent.AgentError, match="broke off"):
        send(agent, backed, listener(enough=200_000).url, str(backed.sources))


def test_a_whole_archive_counts_alike_where_it_is_made_sent_and_received(agent, backed, listener, tmp_path):
    """What a rebuild compares: Borg's count of files, the sender's, and what another host then has."""
    os.link(backed.sources / "plain", backed.sources / "other name")
    (backed.sources / "empty").touch()
    code, record = backed.run("backup", "--wait")
    assert code == 0, record
    made = record["results"][0]["archive"]["nfiles"]
    controller = listener()
    settings = agent.Settings(**{**vars(backed.settings), "controller_url": controller.url})
    request = agent.RestoreRequest(agent.new_run_id(), "", "host", "", "latest", (), "", transfer=TRANSFER)
    archive = agent.resolve_archive(settings, settings.repository(""), "latest")[0]
    sent = agent.send_staged(settings, request, archive, agent.Cancel())
    failures = agent.Failures(agent.Redactor.for_host(settings))
    got = agent.Unpacker(tmp_path, failures, lambda: None).unpack(io.BytesIO(controller.body))
    files, size = agent.tree_size(tmp_path)
    assert (files, sent["failed_total"], got["verified"]) == (sent["files"], 0, True)
    assert size >= sent["bytes"] > 0
    assert got["verified_files"] <= made <= files, (got, made, files)


def test_a_drill_sends_its_sandbox_what_it_restored(agent, backed, listener, tmp_path):
    code, record = backed.run("backup", "--wait")
    assert code == 0, record
    controller = listener(refusals=2)  # the sandbox is at a backup of its own
    settings = agent.Settings(**{**vars(backed.settings), "controller_url": controller.url})
    told = agent.Drill(settings, 7, 20, TRANSFER).conduct()
    assert (told["state"], told["sent"]["files"]) == ("proven", told["sampled"])
    failures = agent.Failures(agent.Redactor.for_host(settings))
    agent.Unpacker(tmp_path, failures, lambda: None).unpack(io.BytesIO(controller.body))
    assert agent.tree_digest(tmp_path) == told["sent"]
    changed = next(path for path in tmp_path.rglob("plain") if path.is_file())
    changed.write_text(changed.read_text().upper())
    assert agent.tree_digest(tmp_path)["digest"] != told["sent"]["digest"]
    assert agent.load(settings, "drill.json") is None, "nothing is left"
    with pytest.raises(agent.AgentError, match="was at another run for 0 minutes"):
        agent.upload_to_host(
            agent.Settings(**{**vars(settings), "controller_url": listener(refusals=1).url}), TRANSFER, 0
        )


def _without_zstd(shutil):
    return SimpleNamespace(**{**vars(shutil), "which": lambda name: None})
