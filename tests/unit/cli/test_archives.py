"""What commands about archives send: sizes as people write them, paths of any bytes."""

import base64
import os

import pytest
from saveos.cli.archives import named, selection
from saveos.cli.catalogue import _bytes
from saveos.cli.errors import CommandError

ODD = os.fsdecode(b"/srv/caf\xe9")


def test_sizes_are_bytes_or_have_a_unit():
    assert [_bytes(text) for text in ("", "0", "12", "500k", "500K", "1.5M", "2G", "1 TB", "10Mo", "2KiB")] == [
        *(None, 0, 12, 500_000, 500_000, 1_500_000, 2 * 10**9, 10**12, 10**7, 2048)
    ]
    for text in ("-1", "ten", "5X", "1e3", "k"):
        with pytest.raises(CommandError, match="10M"):
            _bytes(text)


def test_paths_that_are_no_text_travel_as_references():
    assert named("/srv/café") == {"path": "/srv/café"}
    ref = named(ODD)["ref"]
    assert base64.urlsafe_b64decode(ref + "=" * (-len(ref) % 4)) == b"/srv/caf\xe9"
    asked = selection(["/etc", ODD], [ODD], False, "refuse", {})
    assert (asked["paths"], asked["refs"], asked["excludes"], asked["exclude_refs"]) == (
        ["/etc"],
        [ref],
        [],
        [ref],
    )
    assert "refs" not in selection(["/etc"], None, False, "refuse", {})
