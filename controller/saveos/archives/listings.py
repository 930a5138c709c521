"""Listings of archives as hosts send them: gzip of records, sent in pieces, resumable, bounded.

A record is what `borg list --format '{mode} {size} {isomtime} {bpath}{NUL}'` prints with TZ=UTC:
`-rw-r--r-- 12 2026-11-23T04:00:00.000000 etc/hosts`, then NUL. A listing of changes has the same
records, `gone 0 0 PATH` for what is gone, and of each directory that changed `names 0 0 PATH`, with
`name 0 0 PATH` for each name that is left in it. Paths are any bytes but NUL.
"""

import calendar
import os
import stat
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from saveos.archives.store.entries import Item, base, parent
from saveos.core import security
from saveos.core.errors import Conflict, Invalid, TooLarge

MAX_LISTING = 1024 * 1024 * 1024  # bytes, compressed: some 40 million files
MAX_UNPACKED = 64 * MAX_LISTING
MAX_RECORD = 16 * 1024
PIECE = 1024 * 1024  # bytes
SEALING = 29  # bytes that sealing adds to a piece
TYPES = {
    "-": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
    "b": stat.S_IFBLK,
    "c": stat.S_IFCHR,
    "h": stat.S_IFREG,  # Borg's mark of a hard link
}
GONE, NAMES, NAME = b"gone", b"names", b"name"


@dataclass(frozen=True)
class Listing:
    """A listing's file below the controller's home: pieces, each sealed with the tenant's data key.

    `base` is the archive that its changes refer to; "" for a listing of all files.
    """

    folder: Path
    borg_id: str
    base: str = ""

    @property
    def part(self) -> Path:
        """The file while it grows."""
        return self.folder / f"{self.borg_id}.{self.base or 'full'}.part"

    @property
    def whole(self) -> Path:
        """The file when it is whole."""
        return self.part.with_suffix(".whole")

    @property
    def received(self) -> int:
        """How many bytes of the listing are here."""
        for path in (self.whole, self.part):
            try:
                with path.open("rb") as file:
                    return sum(length - SEALING for length in _frames(file))
            except FileNotFoundError:
                continue
        return 0

    def remove(self) -> None:
        """Remove it."""
        self.part.unlink(missing_ok=True)
        self.whole.unlink(missing_ok=True)

    def pieces(self, key: bytes) -> Iterator[bytes]:
        """Yield a whole listing's bytes. Raises security.CannotOpen for another key."""
        with self.whole.open("rb") as file:
            for number, length in enumerate(_frames(file, skip=False)):
                yield security.unseal(key, file.read(length), self._place(number))

    def append(self, file: BinaryIO, key: bytes, number: int, piece: bytes) -> None:
        """Append a piece, sealed for its place."""
        sealed = security.seal(key, piece, self._place(number))
        file.write(len(sealed).to_bytes(4, "big") + sealed)

    def _place(self, number: int) -> bytes:
        return f"listing/{self.folder.name}/{self.borg_id}/{self.base}/{number}".encode()


def _frames(file: BinaryIO, *, skip: bool = True) -> Iterator[int]:
    """Yield the lengths of sealed pieces; a piece that a killed process wrote in part ends it."""
    while len(head := file.read(4)) == 4:
        length = int.from_bytes(head, "big")
        if skip and len(file.read(length)) < length:
            return
        yield length


def folder(home: Path, tenant_id: uuid.UUID, repository_id: uuid.UUID) -> Path:
    """Return where a repository's listings wait to be indexed."""
    return home / "catalogue" / "incoming" / str(tenant_id) / str(repository_id)


def find(directory: Path, borg_id: str) -> Listing | None:
    """Return the whole listing of an archive that waits, one of all files first."""
    for path in sorted(directory.glob(f"{borg_id}.*.whole"), key=lambda each: ".full." not in each.name):
        base = path.name.split(".")[1]
        return Listing(directory, borg_id, "" if base == "full" else base)
    return None


def receive(listing: Listing, key: bytes, offset: int, piece: bytes, *, last: bool) -> int:
    """Append a piece that begins at `offset`; return how many bytes are here, to go on from.

    A piece that is here already changes nothing. Raises Conflict where bytes are missing before it,
    TooLarge past the limit.
    """
    if listing.whole.exists():
        return listing.received
    listing.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if offset + len(piece) > MAX_LISTING:
        listing.part.unlink(missing_ok=True)
        raise TooLarge(
            f"the listing is larger than {MAX_LISTING // 1024**2} MB: back up less in one repository"
        )
    with os.fdopen(os.open(listing.part, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        os.lockf(file.fileno(), os.F_LOCK, 0)
        lengths = list(_frames(file))
        size = sum(length - SEALING for length in lengths)
        if offset > size:
            raise Conflict(f"bytes are missing: go on from {size}", field="offset")
        if offset == size and piece:
            file.seek(sum(4 + length for length in lengths))
            file.truncate()
            listing.append(file, key, len(lengths), piece)
            size += len(piece)
        if last:
            file.flush()
            os.fsync(file.fileno())
            listing.part.rename(listing.whole)
        return size


def read(
    pieces: Iterable[bytes], gone: Callable[[bytes], None], names: dict[bytes, set[bytes]] | None = None
) -> Iterator[Item]:
    """Yield a listing's items; paths that are gone go to `gone`, names left in a directory to `names`.

    Raises Invalid on what is no listing.
    """
    left = {} if names is None else names
    for record in _records(pieces):
        fields = record.split(b" ", 3)
        if len(fields) != 4:
            raise Invalid(f"a record of the listing cannot be read: {record[:80]!r}")
        mode, size, moment, path = fields
        if len(record) > MAX_RECORD:
            raise Invalid("a record of the listing is longer than any path")
        path = _absolute(path)
        if mode == GONE:
            gone(path)
            continue
        if mode == NAMES:
            left.setdefault(path, set())
            continue
        if mode == NAME:
            left.setdefault(parent(path), set()).add(base(path))
            continue
        if path == b"/":
            continue
        try:
            yield Item(path, int(size), _moment(moment.decode()), _mode(mode.decode()))
        except (ValueError, KeyError) as error:
            raise Invalid(f"a record of the listing cannot be read: {record[:80]!r}") from error


def _records(pieces: Iterable[bytes]) -> Iterator[bytes]:
    unpack = zlib.decompressobj(wbits=31)
    rest, total = b"", 0
    try:
        for packed in pieces:
            left = packed
            while left:
                data = unpack.decompress(left, 4 * PIECE)
                left = unpack.unconsumed_tail
                total += len(data)
                if total > MAX_UNPACKED:
                    raise Invalid(f"the listing holds more than {MAX_UNPACKED // 1024**3} GB")
                *records, rest = (rest + data).split(b"\0")
                if len(rest) > MAX_RECORD:
                    raise Invalid("a record of the listing is longer than any path")
                yield from records
    except zlib.error as error:
        raise Invalid("the listing is no gzip file") from error
    if not unpack.eof or rest:
        raise Invalid("the listing is cut off")


def _absolute(path: bytes) -> bytes:
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise Invalid(f"a path of the listing leaves its directory: {path[:80]!r}")
    return b"/" + b"/".join(parts)


@lru_cache(maxsize=4096)
def _mode(text: str) -> int:
    """Return st_mode of what `ls -l` shows."""
    mode = TYPES[text[0]]
    for place, letter in enumerate(text[1:10]):
        bit = 1 << (8 - place)
        special = (stat.S_ISUID, stat.S_ISGID, stat.S_ISVTX)[place // 3]
        if letter in "rwx":
            mode |= bit
        elif letter in "st":
            mode |= bit | special
        elif letter in "ST":
            mode |= special
        elif letter != "-":
            raise ValueError(text)
    return mode


def _moment(text: str) -> int:
    """Return seconds since 1970 of an ISO time in UTC; only its first 19 characters count."""
    day, _, clock = text[:19].partition("T")
    hours, minutes, seconds = clock.split(":")
    return _day(day) + int(hours) * 3600 + int(minutes) * 60 + int(seconds)


@lru_cache(maxsize=65536)
def _day(text: str) -> int:
    year, month, day = (int(part) for part in text.rsplit("-", 2))
    return calendar.timegm((year, month, day, 0, 0, 0))
