import json

import pytest
from saveos.cli import output


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_200_000, "3.2 MB"), (5e13, "50.0 TB")],
)
def test_sizes(value, text):
    assert output.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (4.21, "4.2 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(value, text):
    assert output.duration(value) == text


def test_control_characters_are_made_visible():
    assert output.clean("a\x1b[2Jb\nc\té") == "a\\x1b[2Jb\\x0ac\té"


def test_a_table_is_aligned_and_empty_cells_are_dashes(capsys):
    body = {"items": [{"name": "web1", "tags": ["a", "b"]}, {"name": "x", "tags": []}], "next": "more"}
    output.page(body, {"name": "name", "tags": "tags", "size": lambda _: None}, "none")
    assert capsys.readouterr().out.splitlines() == [
        "NAME  TAGS  SIZE",
        "web1  a, b  -",
        "x     -     -",
        "… there are more: --limit N, or --all",
    ]


def test_an_empty_list_says_what_to_do_and_is_still_json(capsys):
    body = {"items": [], "next": None}
    output.page(body, {"name": "name"}, "No host yet: add one")
    assert capsys.readouterr().out == "No host yet: add one\n"
    output.use_json(True)
    output.page(body, {"name": "name"}, "No host yet: add one")
    assert json.loads(capsys.readouterr().out) == body
