"""Listings: what Borg prints is read as it is, pieces come in any order, what is no listing is refused."""

import gzip
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saveos.archives import listings
from saveos.archives.listings import Listing, find, read, receive
from saveos.archives.store.entries import Item
from saveos.core.errors import Conflict, Invalid, TooLarge
from saveos.core.security import CannotOpen

ID = "ab" * 32


KEY = bytes(range(32))


def packed(*records: bytes) -> list[bytes]:
    whole = gzip.compress(b"".join(record + b"\0" for record in records))
    return [whole[at : at + 100] for at in range(0, len(whole), 100)]


def test_records_are_read_as_borg_prints_them():
    gone: list[bytes] = []
    found = list(
        read(
            packed(
                b"drwxr-xr-x 0 1970-01-02T00:00:01.000000 etc",
                b"-rwsr-x--T 12 2026-11-23T04:00:00.123456 etc/caf\xe9 with space\nand line",
                b"lrwxrwxrwx 0 1969-12-31T23:59:59.000000 etc/link",
                b"gone 0 0 etc/old",
            ),
            gone.append,
        )
    )
    assert found == [
        Item(b"/etc", 0, 86401, stat.S_IFDIR | 0o755),
        Item(b"/etc/caf\xe9 with space\nand line", 12, 1795406400, stat.S_IFREG | 0o5750),
        Item(b"/etc/link", 0, -1, stat.S_IFLNK | 0o777),
    ]
    assert gone == [b"/etc/old"]


@given(st.integers(0, 0o7777), st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO]))
def test_every_mode_survives(bits, kind):
    record = f"{stat.filemode(kind | bits)} 1 2026-01-01T00:00:00.000000 a".encode()
    assert [item.mode for item in read(packed(record), print)] == [kind | bits]


@pytest.mark.parametrize(
    "record",
    [
        b"nonsense",
        b"-rw-r--r-- x 2026-11-23T04:00:00.000000 a",
        b"-rw-r--r-- 1 yesterday a",
        b"?rw-r--r-- 1 2026-11-23T04:00:00.000000 a",
        b"-rw-r--r-- 1 2026-11-23T04:00:00.000000 ../etc/passwd",
        b"-rw-r--r-- 1 2026-11-23T04:00:00.000000 " + b"a" * 20_000,
    ],
)
def test_what_is_no_record_is_refused(record):
    with pytest.raises(Invalid):
        list(read(packed(record), print))


def test_a_listing_that_is_cut_off_or_no_gzip_is_refused():
    whole = packed(*[b"-rw-r--r-- 1 2026-11-23T04:00:00.000000 %d" % n for n in range(1000)])
    whole = b"".join(whole)
    for broken in (whole[:-20], whole[: len(whole) // 2], b"plain text", b""):
        with pytest.raises(Invalid):
            list(read([broken], print))


def test_a_listing_grows_piece_by_piece_and_twice_changes_nothing(tmp_path):
    listing = Listing(tmp_path / "repository", ID)
    assert receive(listing, KEY, 0, b"one", last=False) == 3
    assert receive(listing, KEY, 0, b"one", last=False) == 3
    with pytest.raises(Conflict, match="from 3"):
        receive(listing, KEY, 7, b"late", last=False)
    assert find(listing.folder, ID) is None
    assert receive(listing, KEY, 3, b"two", last=True) == 6
    assert receive(listing, KEY, 3, b"two", last=True) == 6
    assert find(listing.folder, ID) == listing
    assert b"".join(listing.pieces(KEY)) == b"onetwo"
    assert b"one" not in listing.whole.read_bytes()
    with pytest.raises(CannotOpen):
        list(listing.pieces(bytes(32)))
    assert listing.whole.stat().st_mode & 0o077 == 0


def test_a_listing_of_all_files_comes_before_one_of_changes(tmp_path):
    for base in ("cd" * 32, ""):
        receive(Listing(tmp_path, ID, base), KEY, 0, b"x", last=True)
    assert find(tmp_path, ID) == Listing(tmp_path, ID)


def test_a_listing_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(listings, "MAX_LISTING", 5)
    listing = Listing(tmp_path, ID)
    receive(listing, KEY, 0, b"12345", last=False)
    with pytest.raises(TooLarge):
        receive(listing, KEY, 5, b"6", last=True)
    assert listing.received == 0


def test_a_piece_that_a_killed_process_wrote_in_part_is_sent_again(tmp_path):
    listing = Listing(tmp_path, ID)
    receive(listing, KEY, 0, b"one", last=False)
    with listing.part.open("ab") as file:
        file.write((1000).to_bytes(4, "big") + b"half a piece")
    assert listing.received == 3
    receive(listing, KEY, 3, b"two", last=True)
    assert b"".join(listing.pieces(KEY)) == b"onetwo"
