"""Limits of log-in: how often a name and an address may fail, how many failures the audit trail takes, and how
many argon2 hashes run at once.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from saveos.core.errors import TooMany

WINDOW = 300.0  # seconds
MAX_KEYS = 10_000
LIMITS = {"name+address": 10, "name": 50, "address": 50}
# Failures that the audit trail takes in a window, of all names and addresses: a stranger may have any number of
# both. One limit for known and unknown names, or the time that a note takes would tell which is which.
NOTES = 200
HASHES_AT_ONCE = 2
HASH_WAIT = 5.0  # seconds

_hashing = threading.BoundedSemaphore(HASHES_AT_ONCE)


@contextmanager
def one_hash() -> Iterator[None]:
    """Hold one of the few places for an argon2 hash, which costs 64 MB. Raises TooMany when none gets free."""
    if not _hashing.acquire(timeout=HASH_WAIT):
        raise TooMany("too many log-ins at this moment: try again in a few seconds")
    try:
        yield
    finally:
        _hashing.release()


class Throttle:
    """Counts failed log-ins in a window of WINDOW seconds, in memory, for at most MAX_KEYS keys."""

    def __init__(self) -> None:
        self._failures: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, name: str, address: str) -> None:
        """Raise TooMany when this name or address failed too often."""
        with self._lock:
            if any(self._count(key) >= LIMITS[key[0]] for key in _keys(name, address)):
                raise TooMany("too many failed log-ins: wait five minutes")

    def failed(self, name: str, address: str) -> list[str] | None:
        """Count a failure. Returns which limits it reached; None when the audit trail has enough of them."""
        with self._lock:
            reached = [key[0] for key in _keys(name, address) if self._add(key) == LIMITS[key[0]]]
            noted = self._add(("notes", ""))
            while len(self._failures) > MAX_KEYS:
                self._failures.popitem(last=False)
        if noted > NOTES:
            return None
        return [*reached, "notes"] if noted == NOTES else reached

    def succeeded(self, name: str, address: str) -> None:
        """Forget the failures of this name from this address."""
        with self._lock:
            self._failures.pop(("name+address", f"{name}\x00{address}"), None)

    def _add(self, key: tuple[str, str]) -> int:
        """Count one more, and return how many there are in the key's window."""
        count = self._count(key)
        self._failures[key] = (self._failures[key][0] if count else time.monotonic(), count + 1)
        self._failures.move_to_end(key)
        return count + 1

    def _count(self, key: tuple[str, str]) -> int:
        since, count = self._failures.get(key, (0.0, 0))
        return count if count and time.monotonic() - since < WINDOW else 0


def _keys(name: str, address: str) -> list[tuple[str, str]]:
    return [("name+address", f"{name}\x00{address}"), ("name", name), ("address", address)]


login_throttle = Throttle()
