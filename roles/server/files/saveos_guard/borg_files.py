# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A repository's files as Borg 1 writes them, read without a key: index, segments, config."""

from __future__ import annotations

import configparser
import hashlib
import mmap
import os
import re
import struct
import zlib
from collections.abc import Iterator

from saveos_guard.errors import Damaged

NUMBER = re.compile(r"\d{1,18}")
MANIFEST = bytes(32)
SMALL = ("README", "config", "nonce", "transactions")  # what Borg may write again in place
OWN = ("index", "hints", "integrity")  # written anew under another name, then renamed: safe to link


class Index:
    """Borg's index of a transaction: object id → (segment, offset). Only looked up, never written."""

    EMPTY, DELETED = 0xFFFFFFFF, 0xFFFFFFFE

    def __init__(self, path: str) -> None:
        """Damaged when the file is no index."""
        with open(path, "rb") as file:
            head = file.read(18)
            size = os.fstat(file.fileno()).st_size
            try:
                magic, self.entries, self.buckets, key, value = struct.unpack("<8siibb", head)
            except struct.error as error:
                raise Damaged("its index is cut off") from error
            if (
                magic != b"BORG_IDX"
                or (key, value) != (32, 8)
                or size != 18 + 40 * self.buckets
                or self.buckets < 1
            ):
                raise Damaged("its index is not one of Borg 1")
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def get(self, key: bytes) -> tuple[int, int] | None:
        """Where an object lies that lives; None when it does not."""
        first = at = struct.unpack_from("<I", key)[0] % self.buckets
        while True:
            start = 18 + 40 * at
            segment, offset = struct.unpack_from("<II", self.map, start + 32)
            if segment == self.EMPTY:
                return None
            if segment != self.DELETED and self.map[start : start + 32] == key:
                return segment, offset
            at = (at + 1) % self.buckets
            if at == first:
                return None


def numbers(names: Iterator[str] | list[str], prefix: str = "") -> list[int]:
    """The numbers in names such as index.12, least first."""
    found = (name[len(prefix) :] for name in names if name.startswith(prefix))
    return sorted(int(name) for name in found if NUMBER.fullmatch(name))


def bad_segment(path: str, commits: bool = False) -> str:
    """Why a segment is broken, by the checksums Borg wrote; an empty string when it is whole.

    `commits` says that it must end in a commit. OSError when the disk does not give it.
    """
    tag = None
    with open(path, "rb", buffering=1 << 20) as file:
        if file.read(8) != b"BORG_SEG":
            return "it does not begin as a segment"
        at = 8
        while head := file.read(9):
            if len(head) < 9:
                return f"it ends inside an entry at {at}"
            crc, size, tag = struct.unpack("<IIB", head)
            if not 9 <= size <= 64 << 20 or tag > 2:
                return f"the entry at {at} is none"
            body = file.read(size - 9)
            if len(body) != size - 9:
                return f"it ends inside an entry at {at}"
            if zlib.crc32(body, zlib.crc32(head[4:])) & 0xFFFFFFFF != crc:
                return f"the checksum of the entry at {at} is wrong"
            at += size
    return "it does not end in its commit" if commits and tag != 2 else ""


def read_config(path: str) -> configparser.ConfigParser:
    """A repository's config. Damaged when there is none that Borg would read."""
    config = configparser.ConfigParser(interpolation=None)
    try:
        handle = os.open(f"{path}/config", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, encoding="utf-8") as file:
            config.read_string(file.read(1 << 20))
    except (OSError, ValueError, configparser.Error) as error:
        raise Damaged("its config cannot be read") from error
    return config


def key_digest(path: str) -> str:
    """A digest of a repository's id and encrypted key, as its config has them."""
    config = read_config(path)
    try:
        both = f"{config.get('repository', 'id')} {config.get('repository', 'key', fallback='')}"
    except configparser.Error as error:
        raise Damaged("its config cannot be read") from error
    return hashlib.sha256("".join(both.split()).encode()).hexdigest()
