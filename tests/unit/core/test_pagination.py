"""Cursors survive the round trip; made-up ones are refused."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saveos.core import pagination
from saveos.core.database import new_id
from saveos.core.errors import Invalid

FIRST, LAST = datetime(1990, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001 - hypothesis adds the zone
moments = st.datetimes(FIRST, LAST, timezones=st.just(UTC))


@given(moments)
def test_a_time_survives_to_the_microsecond(moment):
    identity = new_id()
    cursor = pagination.encode_cursor(pagination.time_and_id(moment, identity))
    assert pagination.decode_time_and_id(cursor) == (moment, identity)


@given(st.text(max_size=60))
def test_what_no_list_returned_is_refused_and_never_crashes(text):
    for decode in (pagination.decode_id, pagination.decode_text, pagination.decode_time_and_id):
        if not text:
            assert decode(text) is None
            continue
        with pytest.raises(Invalid):
            decode(text)


def test_split_gives_a_cursor_only_when_more_follows():
    assert pagination.split([1, 2], 2, lambda row: [row]) == ([1, 2], None)
    page, cursor = pagination.split([1, 2, 3], 2, lambda row: [row])
    assert page == [1, 2] and pagination.decode_cursor(cursor, 1) == [2]
