# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The msgpack in which Borg writes its hints, read without trust."""

from __future__ import annotations

import struct
from typing import Any


def unpack(data: bytes) -> Any:
    """What Borg's hints use of msgpack: maps, lists, integers, bytes, nil and booleans. ValueError."""
    value, end = _unpack(memoryview(data), 0, 0)
    if end != len(data):
        raise ValueError("there is more after its end")
    return value


_LENGTHS = {
    0xC4: "B",
    0xC5: ">H",
    0xC6: ">I",
    0xD9: "B",
    0xDA: ">H",
    0xDB: ">I",
    0xDC: ">H",
    0xDD: ">I",
    0xDE: ">H",
    0xDF: ">I",
}
_NUMBERS = {0xCC: "B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: "b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}


_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def _head(data: memoryview, at: int) -> tuple[str, Any, int]:
    """(kind, its value or length, where its content begins). ValueError."""
    try:
        tag = data[at]
        at += 1
        if tag < 0x80 or tag >= 0xE0:
            return "value", (tag if tag < 0x80 else tag - 256), at
        if tag in _CONSTANTS:
            return "value", _CONSTANTS[tag], at
        if tag in _NUMBERS:
            form = struct.Struct(_NUMBERS[tag])
            return "value", form.unpack_from(data, at)[0], at + form.size
        if tag < 0xA0:
            return "map" if tag < 0x90 else "list", tag & 15, at
        if tag < 0xC0:
            return "raw", tag & 31, at
        form = struct.Struct(_LENGTHS[tag])
        kind = "map" if tag >= 0xDE else "list" if tag >= 0xDC else "raw"
        return kind, form.unpack_from(data, at)[0], at + form.size
    except (IndexError, KeyError, struct.error) as error:
        raise ValueError("it is no msgpack of the kind that Borg writes") from error


def _unpack(data: memoryview, at: int, depth: int) -> tuple[Any, int]:
    """(value, where the next begins)."""
    kind, length, at = _head(data, at)
    if kind == "value":
        return length, at
    if kind == "raw":
        if at + length > len(data):
            raise ValueError("it ends too early")
        return bytes(data[at : at + length]), at + length
    if depth > 8 or length > len(data) - at:
        raise ValueError("it is nested or sized as Borg would not")
    items = []
    for _ in range(length if kind == "list" else 2 * length):
        item, at = _unpack(data, at, depth + 1)
        items.append(item)
    if kind == "list":
        return items, at
    if any(isinstance(key, (dict, list)) for key in items[::2]):
        raise ValueError("a key of a map is none")
    return dict(zip(items[::2], items[1::2])), at
