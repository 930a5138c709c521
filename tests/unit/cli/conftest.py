"""A scripted HTTP server, for answers and faults that a real controller does not give on demand."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from saveos.cli import output


@dataclass
class Scripted:
    """What the server answers, and what it was asked: (method, path, headers, body)."""

    url: str = ""
    answers: list[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)

    def json(self, status: int, body: Any, kind: str = "application/json") -> None:
        """Answer the next request with JSON."""
        self.raw(status, json.dumps(body).encode(), kind)

    def raw(self, status: int, content: bytes, kind: str) -> None:
        """Answer the next request with bytes, then close."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Type", kind)
            if kind != "text/event-stream":
                handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)

        self.answers.append(answer)


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """A scripted controller that the command is logged in to."""
    scripted = Scripted()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            scripted.asked.append((self.command, self.path, dict(self.headers), body))
            scripted.answers.pop(0)(self)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve

        def log_message(self, *_words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    scripted.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("SAVEOS_URL", scripted.url)
    monkeypatch.setenv("SAVEOS_TOKEN", "saveos_secret")
    yield scripted
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_json() -> Iterator[None]:
    """Every test begins with output for people."""
    output.use_json(False)
    yield
    output.use_json(False)
