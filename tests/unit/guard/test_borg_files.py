"""What Borg writes, read without a key: msgpack, index, segments."""

import random
import shutil
import struct
import subprocess
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.guarded import REPOSITORY, load

guard = load()


def pack(value):
    """Pack as Borg does: bytes as raw, no other type than it writes."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes([value])
        if -32 <= value < 0:
            return struct.pack("b", value)
        return b"\xcf" + struct.pack(">Q", value) if value >= 0 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, bytes):
        head = bytes([0xA0 | len(value)]) if len(value) < 32 else b"\xdb" + struct.pack(">I", len(value))
        return head + value
    if isinstance(value, list):
        head = bytes([0x90 | len(value)]) if len(value) < 16 else b"\xdc" + struct.pack(">H", len(value))
        return head + b"".join(map(pack, value))
    head = bytes([0x80 | len(value)]) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))
    return head + b"".join(pack(key) + pack(each) for key, each in value.items())


integers = st.integers(-(2**63), 2**64 - 1)
values = st.recursive(
    st.none() | st.booleans() | integers | st.binary(max_size=70),
    lambda inner: (
        st.lists(inner, max_size=20) | st.dictionaries(st.binary(max_size=32) | integers, inner, max_size=20)
    ),
    max_leaves=40,
)


def depth(value):
    """How deep a value is nested."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=-1) if isinstance(value, (dict, list)) else 0


@given(values.filter(lambda value: depth(value) <= 8))
def test_what_is_packed_is_read(value):
    assert guard.unpack(pack(value)) == value


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    try:
        guard.unpack(data)
    except ValueError:
        return


def test_a_claimed_length_costs_no_memory():
    with pytest.raises(ValueError):
        guard.unpack(b"\xdd\xff\xff\xff\xff")
    with pytest.raises(ValueError):
        guard.unpack(b"\x91" * 10_000 + b"\xc0")


def segment(*bodies):
    """A segment with an entry per body, and a commit."""
    content = b"BORG_SEG"
    for body in bodies:
        head = struct.pack("<IB", 9 + len(body), 0)
        content += struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + head + body
    commit = struct.pack("<IB", 9, 2)
    return content + struct.pack("<I", zlib.crc32(commit)) + commit


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.data())
def test_every_flipped_bit_of_a_segment_is_seen(tmp_path_factory, bodies, data):
    file = tmp_path_factory.getbasetemp() / "segment"
    content = bytearray(segment(*bodies))
    file.write_bytes(content)
    assert guard.bad_segment(str(file), commits=True) == ""
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    assert guard.bad_segment(str(file), commits=True)
    file.write_bytes(content[: len(content) // 2])
    assert guard.bad_segment(str(file), commits=True)


def test_what_the_guard_reads_is_what_borg_says(storage):
    """Archives' ids are found in Borg's own index; an id that is not there is not; quota and sizes agree."""
    copy = sorted(each for each in storage.hold.iterdir() if not each.name.startswith("."))[-1]
    view = guard.View(str(copy))
    for archive in storage.archives:
        assert view.index.get(bytes.fromhex(archive["id"])) is not None
    assert view.index.get(bytes(31) + b"\x01") is None
    assert view.index.get(guard.MANIFEST) is not None
    assert view.bytes == sum(
        file.stat().st_size for file in (storage.path / "data").rglob("*") if file.is_file()
    )
    assert view.lost == []


def test_twenty_flipped_bits_are_all_found(storage):
    """Without keys, and `borg check --repository-only` agrees that each one is one."""
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    files = [
        file for file in (storage.path / "data").rglob("*") if file.is_file() and file.stat().st_size > 1000
    ]
    for round_ in range(20):
        file = dice.choice(files)
        whole = file.read_bytes()
        bit = dice.randrange(len(whole) * 8)
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        with file.open("r+b") as handle:  # in place, as a disk does it
            handle.write(broken)
        found = guard.check(storage.settings, [], storage.time, 60)["repositories"][0]
        assert found["state"] == "damaged" and f"segment {file.name}" in found["detail"], (seed, round_, found)
        if round_ < 2:
            ran = subprocess.run(
                [storage.borg_path, "check", "--repository-only", str(storage.path)],
                env={"BORG_BASE_DIR": str(storage.base / "other"), "PATH": "/usr/bin:/bin"},
                capture_output=True,
                check=False,
            )
            assert ran.returncode == 1, (seed, round_, ran)
            assert storage.run()["state"] == "damaged"
        with file.open("r+b") as handle:
            handle.write(whole)
    assert guard.check(storage.settings, [], storage.time, 60)["repositories"][0]["state"] == "ok"
    assert storage.told_and_run()["state"] == "ok"


def test_a_check_goes_on_where_its_time_was_over(storage):
    storage.settings["check_seconds"] = 0
    storage.settings["check_every_days"] = 0
    first = storage.run()["last_check"]
    assert first["state"] == "running" and "segment 0" in first["detail"], first
    storage.settings["check_seconds"] = 60
    assert storage.run()["last_check"]["state"] == "ok"


def test_a_repository_that_is_gone_is_no_whole_one(storage):
    """Neither is one that never was here, of which nothing is made."""
    shutil.rmtree(storage.path)
    checked = guard.check(storage.settings, [REPOSITORY, "never"], storage.time, 60)["repositories"]
    assert [(each["state"], each["detail"]) for each in checked] == [
        ("damaged", "the repository is gone"),
        ("failed", "there is no repository never on this server"),
    ]
    assert not (storage.state / "never").exists()
