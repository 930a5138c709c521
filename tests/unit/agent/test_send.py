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
    """A controller that takes one transfer: `answer` at first, 100 to go on; `enough` bytes and it hangs up."""

    def __init__(self, answer=100, enough=10**9):
        self.body, self.paths, self.whole, outer = b"", [], False, self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_expect_100(self):
                if answer == 100:
                    return super().handle_expect_100()
                told = b'{"detail": "nobody read this transfer"}'
                self.send_response(answer)
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
    monkeypatch.setattr(agent, "run_borg", None)
    with pytest.raises(agent.AgentError, match="nobody read this transfer"):
        send(agent, backed, listener(answer=408).url, str(backed.sources))


def test_a_controller_that_hangs_up_ends_it(agent, backed, listener):
    (backed.sources / "big").write_bytes(os.urandom(20_000_000))
    assert backed.run("backup")[0] == 0
    with pytest.raises(agent.AgentError, match="broke off"):
        send(agent, backed, listener(enough=200_000).url, str(backed.sources))


def _without_zstd(shutil):
    return SimpleNamespace(**{**vars(shutil), "which": lambda name: None})
