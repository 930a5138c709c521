# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""The host's ends of a transfer: content sent to the controller as it comes, and content received from it."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from saveos_agent.delivery import NoRedirect, tls_context
from saveos_agent.errors import AgentError, refused
from saveos_agent.output import json_object
from saveos_agent.settings import VERSION, Settings, load_token

PIECE = 64 * 1024  # bytes
BEGIN_SECONDS = 180  # longer than the controller waits for a reader
SEND_SECONDS = 120  # for one piece: the controller gives a reader that stands still up before that
HOST_SECONDS = 2 * 3600  # another host may be at a run of its own; as long as that waits for its turn
RECEIVE_SECONDS = 960  # longer than the controller waits for the other host's next piece


class NobodyReads(AgentError):
    """Nobody came to read for as long as the controller waits for a reader."""


def broken(reason: str) -> AgentError:
    return AgentError("transfer", f"The transfer broke off: {reason}", "Ask for it anew.")


def address(settings: Settings, transfer: str) -> str:
    if not settings.controller_url:
        raise refused("This host has no controller to send through.", "Provision it from one.")
    return f"{settings.controller_url}/api/v1/agents/transfers/{transfer}"


class Upload:
    """Content on its way to the controller. Made, it has waited until somebody reads. Raises AgentError."""

    def __init__(self, settings: Settings, transfer: str, form: str) -> None:
        self.sent = 0
        self._held = bytearray()
        url = urllib.parse.urlsplit(f"{address(settings, transfer)}?form={form}")
        assert url.hostname is not None
        secure = {"context": tls_context(settings)} if url.scheme == "https" else {}
        kind: Any = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(url.hostname, url.port, timeout=BEGIN_SECONDS, **secure)
        try:
            self._connection.putrequest("PUT", f"{url.path}?{url.query}")
            self._connection.putheader("Authorization", f"Bearer {load_token(settings)}")
            self._connection.putheader("User-Agent", f"saveos-agent/{VERSION}")
            self._connection.putheader("Content-Type", "application/octet-stream")
            self._connection.putheader("Transfer-Encoding", "chunked")
            self._connection.putheader("Expect", "100-continue")
            self._connection.endheaders()
            self._wait_for_reader()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise broken(f"the controller cannot be reached ({error}).") from None
        except AgentError:
            self.close()
            raise
        self._socket.settimeout(SEND_SECONDS)

    @property
    def _socket(self) -> socket.socket:
        found = self._connection.sock
        assert isinstance(found, socket.socket)
        return found

    def _wait_for_reader(self) -> None:
        """Read the controller's first words: go on, or why not."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self._socket.recv(1)
            if not byte or len(head) > 65536:
                raise broken("the controller closed the connection.")
            head += byte
        status = int(head.split(None, 2)[1])
        if status == 408:
            raise NobodyReads(
                "transfer", f"The transfer was given up: {self._reason(status)}", "Ask for it anew."
            )
        if status != 100:
            raise broken(self._reason(status))

    def _reason(self, status: int) -> str:
        """What the controller says in the body that follows, or its status."""
        body = b""
        with contextlib.suppress(OSError):
            self._socket.settimeout(5)
            while len(body) < 65536 and (part := self._socket.recv(65536)):
                body += part
                if json_object(body.decode("utf-8", "replace")):
                    break
        answer = json_object(body.decode("utf-8", "replace")) or {}
        return str(answer.get("detail") or f"the controller answered {status}")[:500] + "."

    def write(self, data: bytes) -> int:
        """Send data, in pieces; waits where the reader is slow. Raises AgentError when the other end fails."""
        self._held += data
        while len(self._held) >= PIECE:
            self._send(bytes(self._held[:PIECE]))
            del self._held[:PIECE]
        return len(data)

    def _send(self, piece: bytes) -> None:
        try:
            self._socket.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        except OSError as error:
            self.close()
            raise broken(f"who reads it, or the controller, went away ({error}).") from None
        self.sent += len(piece)

    def finish(self) -> None:
        """Say that this was all. Raises AgentError where the controller did not get it."""
        if self._held:
            self._send(bytes(self._held))
            self._held.clear()
        try:
            self._socket.sendall(b"0\r\n\r\n")
            self._socket.settimeout(BEGIN_SECONDS)
            answer = http.client.HTTPResponse(self._socket, method="PUT")
            answer.begin()
            status, told = answer.status, answer.read(65536)
        except (OSError, http.client.HTTPException) as error:
            raise broken(f"the controller did not confirm it ({error}).") from None
        finally:
            self.close()
        if status not in (200, 204):
            answer_ = json_object(told.decode("utf-8", "replace")) or {}
            raise broken(str(answer_.get("detail") or f"the controller answered {status}")[:500] + ".")

    def close(self) -> None:
        """Close the connection: without `finish` the controller knows that it broke off."""
        with contextlib.suppress(OSError):
            self._connection.close()


def upload_to_host(settings: Settings, transfer: str, seconds: float) -> Upload:
    """An upload to another host, which is waited for: it may be at a run of its own. Raises AgentError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return Upload(settings, transfer, "tar")
        except NobodyReads:
            if time.monotonic() < deadline:
                continue
            text = f"The other host was at another run for {seconds / 60:.0f} minutes, and took nothing."
            raise AgentError("transfer", text, "Ask for it anew when that has ended.") from None


class Download:
    """Content that another host sends; a file object whose `read` fails where it broke off."""

    def __init__(self, settings: Settings, transfer: str, seconds: float) -> None:
        """Wait so long for the other host to begin. Raises AgentError."""
        url, deadline = address(settings, transfer), time.monotonic() + seconds
        context = urllib.request.HTTPSHandler(context=tls_context(settings))
        opener = urllib.request.build_opener(context, NoRedirect)
        while True:
            request = urllib.request.Request(url)
            request.add_header("Authorization", f"Bearer {load_token(settings)}")
            request.add_header("User-Agent", f"saveos-agent/{VERSION}")
            try:
                self._response = opener.open(request, timeout=RECEIVE_SECONDS)
            except urllib.error.HTTPError as error:
                told = json_object(error.read(65536).decode("utf-8", "replace")) or {}
                detail = str(told.get("detail") or f"the controller answered {error.code}")
                raise AgentError("transfer", f"Nothing can be received: {detail[:500]}.", "Ask anew.") from None
            except (OSError, http.client.HTTPException) as error:
                raise broken(f"the controller cannot be reached ({error}).") from None
            if self._response.status == 200:
                return
            self._response.close()
            if time.monotonic() > deadline:
                raise broken("the other host did not begin in time.")

    def read(self, size: int) -> bytes:
        try:
            return bytes(self._response.read(size))
        except (OSError, http.client.HTTPException) as error:
            raise broken(f"{type(error).__name__}: {error}.") from None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._response.close()
