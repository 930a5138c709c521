"""The text difference of a file, with the real borg: what is no small text is refused, links lead nowhere."""

from __future__ import annotations

import os


def diff(backed, path, *more):
    return backed.run("diff", "--archive", "one-1", "--path", str(path), *more)


def test_text_differs_between_archives_and_the_host(backed):
    note = backed.sources / "note"
    (backed.sources / "binary").write_bytes(b"\0\xff")
    (backed.sources / "large").write_bytes(b"x" * 300_000)
    for number, text in ((1, "a\nb\nc\x0cd"), (2, "a\nB\nc\x0cd")):
        note.write_text(text)
        backed.configure(f"archive_name_format: one-{number}\n")
        assert backed.run("backup", "--wait")[0] == 0
    code, told = diff(backed, note, "--other", "one-2")
    assert code == 0, told
    lines = told["difference"].splitlines()
    assert lines[0] == f"--- one-1: {note}"
    assert {"-b", "+B", " a"} <= set(lines)
    assert " c\x0cd\n\\ No newline" in told["difference"]
    assert diff(backed, note, "--other", "one-1")[1]["difference"] == ""
    note.unlink()
    lines = diff(backed, note)[1]["difference"].splitlines()
    assert {"-a", "-b", "-c"} <= set(lines)
    note.symlink_to("/etc/passwd")
    assert diff(backed, note)[0] != 0
    assert diff(backed, backed.sources / "binary")[1]["error"]["code"] == "no_text"
    assert diff(backed, backed.sources / "large")[1]["error"]["code"] == "too_large"
    assert diff(backed, backed.sources / "never")[1]["error"]["code"] == "source_missing"
    os.mkfifo(backed.sources / "late")
    assert diff(backed, backed.sources / "late")[0] != 0


def test_the_text_of_a_file_is_shown_as_an_archive_holds_it(backed):
    (backed.sources / "text").write_text("<b>é</b>\nno end")
    (backed.sources / "empty").touch()
    (backed.sources / "binary").write_bytes(b"\0\xff")
    (backed.sources / "large").write_bytes(b"x" * 300_000)
    (backed.sources / "away").symlink_to("/etc/passwd")
    backed.configure("archive_name_format: one-1\n")
    assert backed.run("backup", "--wait")[0] == 0
    (backed.sources / "text").write_text("later")
    for name, text in (("text", "<b>é</b>\nno end"), ("empty", "")):
        assert diff(backed, backed.sources / name, "--other", "none")[1]["text"] == text
    refused = {"binary": "no_text", "large": "too_large", "away": "usage", "never": "source_missing"}
    for name, code in refused.items():
        answer = diff(backed, backed.sources / name, "--other", "none")
        assert (answer[0] != 0, answer[1]["error"]["code"]) == (True, code), name
