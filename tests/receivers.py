"""Real receivers of messages on loopback: HTTP (webhook, ntfy) and SMTP. They keep what they got."""

import email
import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """What an HTTP receiver got, and what it answers: `status` and `headers`, after `delay` seconds.

    `answer`, given the JSON that was posted, chooses the status. A redirect leads to /elsewhere.
    """

    port: int = 0
    connections: int = 0
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    answer: Callable[[Any], int] | None = None
    close: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def posts(self) -> list[tuple[str, str, Any]]:
        """Each request as (path, its credential, its JSON)."""
        return [
            (path, headers.get("Authorization", ""), json.loads(body or b"null"))
            for _, path, headers, body in list(self.requests)
        ]

    def json(self) -> list[Any]:
        return [json.loads(body) for *_, body in self.requests]


@contextmanager
def http() -> Iterator[Received]:
    """Serve HTTP until the block ends."""
    got = Received()

    class Handler(BaseHTTPRequestHandler):
        def setup(self) -> None:
            got.connections += 1
            super().setup()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            got.requests.append((self.command, self.path, dict(self.headers), body))
            time.sleep(got.delay)
            answer = b"{}"
            status = got.answer(json.loads(body)) if got.answer else got.status
            self.send_response(status)
            location = {"Location": f"{got.url}/elsewhere"} if 300 <= status < 400 else {}
            for name, value in (*location.items(), *got.headers.items()):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = _serve

        def log_message(self, *_words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False  # one that still waits for its delay
    got.port = server.server_port
    with _serving(server) as got.close:
        yield got


@dataclass
class Mailbox:
    """What an SMTP receiver got."""

    port: int = 0
    mails: list[tuple[str, list[str], Message]] = field(default_factory=list)


@contextmanager
def smtp() -> Iterator[Mailbox]:
    """Serve SMTP, as much of it as a client that only delivers needs, until the block ends."""
    box = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def _say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            sender, recipients = "", []
            self._say("220 mail.test ESMTP")
            while line := self.rfile.readline().decode().strip():
                verb = line.split(" ", 1)[0].upper()
                if verb == "MAIL":
                    sender = line
                elif verb == "RCPT":
                    recipients.append(line.partition("<")[2].partition(">")[0])
                elif verb == "DATA":
                    self._say("354 go on")
                    lines = list(iter(self.rfile.readline, b".\r\n"))
                    box.mails.append((sender, recipients, email.message_from_bytes(b"".join(lines))))
                elif verb == "QUIT":
                    self._say("221 bye")
                    return
                self._say("250 ok")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    box.port = server.server_address[1]
    with _serving(server):
        yield box


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[Callable[[], None]]:
    """Serve until the block ends, or until what it yields is called."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    try:
        yield end
    finally:
        end()
