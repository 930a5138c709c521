"""Load over HTTP/1.1: so many connections in so many processes, each sends its next request when answered."""

import multiprocessing
import selectors
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

NextRequest = Callable[[], bytes]


@dataclass(frozen=True)
class Load:
    """What to send where. `requests(n)` gives connection n a function that makes its next request's bytes."""

    url: str
    requests: Callable[[int], NextRequest]
    connections: int = 16
    processes: int = 2
    seconds: float = 10.0
    tls: ssl.SSLContext | None = None
    reconnect: bool = False  # a new connection for every request, as agents do


@dataclass
class Seen:
    """What came back: seconds that each answer took, and how many of each status."""

    elapsed: float = 0.0
    times: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300) / self.elapsed

    def quantile(self, share: float) -> float:
        """Milliseconds within which this share of answers came."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 if ordered else 0.0


def request(method: str, url: str, body: bytes = b"", **headers: str) -> bytes:
    """Return the bytes of a request."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def put_under(load: Load) -> Seen:
    """Run the load and return what was seen. Raises RuntimeError when a process of load ends early."""
    context = multiprocessing.get_context("fork")
    shares = [range(first, load.connections, load.processes) for first in range(load.processes)]
    pipes = []
    for share in filter(None, shares):
        mine, theirs = context.Pipe()
        process = context.Process(target=_process, args=(load, share, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append((process, mine))
    total = Seen()
    for process, pipe in pipes:
        try:
            seen: Seen = pipe.recv()
        except EOFError:
            raise RuntimeError("a process of load ended early; its error is above") from None
        process.join()
        total.times += seen.times
        total.statuses += seen.statuses
        total.elapsed = max(total.elapsed, seen.elapsed)
    return total


def _process(load: Load, share: range, pipe: Connection) -> None:
    seen = Seen()
    began = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for number in share:
            _Connection(load, load.requests(number), selector).send()
        while selector.get_map():
            for key, _ in selector.select(1):
                told = key.data.receive()
                if told is None:
                    continue
                status, elapsed = told
                seen.statuses[status] += 1
                seen.times.append(elapsed)
                if time.perf_counter() - began < load.seconds:
                    key.data.send()
                else:
                    key.data.close()
    seen.elapsed = time.perf_counter() - began
    pipe.send(seen)


class _Connection:
    """One connection: a request at a time. Sending blocks, for requests are small."""

    def __init__(self, load: Load, make: NextRequest, selector: selectors.BaseSelector) -> None:
        self.load, self.make, self.selector = load, make, selector
        self.socket: Any = None
        self.data = b""
        self.sent = 0.0

    def send(self) -> None:
        """Send the next request, over a new connection where there is none."""
        data = self.make()
        self.sent = time.perf_counter()
        if self.socket is None:
            self._connect()
        self.socket.sendall(data)

    def receive(self) -> tuple[int, float] | None:
        """Take what came; return status and seconds when the answer is whole."""
        part = self.socket.recv(65536)
        self.data += part
        head, end, rest = self.data.partition(b"\r\n\r\n")
        if not part or not end:
            if part:
                return None
            self.close()
            return 0, time.perf_counter() - self.sent
        length = next(_lengths(head), 0)
        if len(rest) < length:
            return None
        elapsed = time.perf_counter() - self.sent
        self.data = b""
        if self.load.reconnect or b"connection: close" in head.lower():
            self.close()
        return int(head[9:12]), elapsed

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self.socket is not None:
            self.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None

    def _connect(self) -> None:
        parts = urlsplit(self.load.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        plain = socket.create_connection((parts.hostname, port), timeout=30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "https":
            context = self.load.tls or ssl.create_default_context()
            self.socket = context.wrap_socket(plain, server_hostname=parts.hostname)
        else:
            self.socket = plain
        self.selector.register(self.socket, selectors.EVENT_READ, self)


def _lengths(head: bytes) -> Iterator[int]:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            yield int(value)
