"""What the agent makes of the real output of borgmatic 2.1.10 and borg 1.4.5 (captured in outputs/)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

OUTPUTS = Path(__file__).parent / "outputs"


def read(agent, name, secrets=()):
    """Feed a captured output as the agent reads it: both streams, line by line."""
    output = agent.Output(agent.Redactor(secrets))
    for stream in ("out", "err"):
        for line in (OUTPUTS / f"{name}.{stream}").read_text().splitlines():
            output.line(stream, line)
    return output


def test_a_created_archive_with_its_statistics(agent):
    output = read(agent, "created")
    archive = agent.archive_of(output.result)
    assert len(archive["id"]) == 64
    assert archive["name"].startswith("host-2026-")
    assert archive["nfiles"] == 50002
    assert archive["original_size"] > archive["deduplicated_size"] >= 0
    assert archive["started_at"].endswith("Z")
    assert not output.warnings
    assert not output.statuses


def test_progress_lines_wrapped_as_errors_are_no_errors(agent):
    output = agent.Output(agent.Redactor(()))
    for line in (OUTPUTS / "created.err").read_text().splitlines():
        output.line("err", line)
    assert output.errors == []
    assert not any("archive_progress" in line for line in output.log)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("gone", "repository_gone"),
        ("refused_connection", "server_unreachable"),
        ("passphrase", "passphrase_wrong"),
        ("missing_source", "source_missing"),
        ("failing_hook", "hook_failed"),
        ("path_not_allowed", "permission_denied"),
        ("locked", "lock_timeout"),
        ("quota", "quota_exceeded"),
        ("disk_full", "disk_full"),
        ("bad_config", "unknown"),
    ],
)
def test_errors_have_stable_codes_and_a_fix(agent, name, code):
    output = read(agent, name)
    error = agent.classify(output)
    assert error["code"] == code
    assert error["message"].strip()
    assert error["fix"].endswith(".")
    assert agent.archive_of(output.result) is None


def test_the_detail_names_what_is_wrong(agent):
    assert "/srv/test/nosuch" in agent.classify(read(agent, "missing_source"))["message"]
    assert "No valid configuration" in agent.classify(read(agent, "bad_config"))["message"]
    assert "Connection refused" in agent.classify(read(agent, "refused_connection"))["message"]


def test_a_changed_host_key_is_told_by_ssh_itself(agent):
    output = read(agent, "host_key")
    assert agent.classify(output)["code"] == "server_unreachable"
    assert agent.classify(output, lambda: "Host key verification failed.")["code"] == "host_key_changed"
    assert agent.classify(output, lambda: "borg: Permission denied (publickey).")["code"] == "permission_denied"


def test_a_hook_that_exits_75_leaves_no_archive_and_no_error(agent):
    output = read(agent, "hook_exit_75")
    assert agent.archive_of(output.result) is None


def test_an_unreadable_file_is_a_warning_with_its_path(agent):
    output = read(agent, "unreadable_file")
    assert set(output.statuses) == {105}
    assert output.failed_files[0]["path"].endswith("weird/locked")
    assert "Permission denied" in output.warnings[0]


def test_what_could_not_be_read_is_told_however_much_changed(agent):
    output = agent.Output(agent.Redactor(()))
    message = {"type": "log_message", "levelname": "WARNING", "name": "borg.archiver"}
    for number in range(100):
        changed = f"/srv/{number}: file changed while we backed it up"
        output.line("err", json.dumps({**message, "message": changed}))
    output.line("err", json.dumps({**message, "message": "/srv/db: read: [Errno 5] Input/output error: 'db'"}))
    assert len(output.warnings) == 50
    assert [each for each in output.warnings if each.startswith("/srv/db")]


def test_a_healed_lock_is_no_warning(agent):
    output = agent.Output(agent.Redactor(()))
    message = {"type": "log_message", "levelname": "WARNING", "name": "borg.locking"}
    output.line("err", json.dumps({**message, "message": "Killed stale lock one@1.2-0."}))
    assert output.warnings == []


def test_the_log_is_bounded_and_clean(agent):
    output = agent.Output(agent.Redactor(["hunter22"]))
    for number in range(5000):
        output.line("err", f"{number} the password is hunter22 " + "x" * 100)
    text = "\n".join(output.log)
    assert len(text) <= agent.LOG_BYTES
    assert "hunter22" not in text
    assert text.endswith("x")
    assert text.splitlines()[-1].startswith("4999")


def test_hook_output_is_cleaned_by_the_words_of_its_command(agent):
    config = 'commands:\n- run:\n  - "echo hello CANARY-SECRET-1"\n  - TOKEN=CANARY-SECRET-2 false\n'
    output = read(agent, "failing_hook", agent.config_secrets(config))
    error = agent.classify(output)
    assert "CANARY" not in "\n".join(output.log) + error["message"]
    assert "CANARY" in (OUTPUTS / "failing_hook.out").read_text()


def test_times_of_borg_are_local_and_become_utc(agent, monkeypatch):
    monkeypatch.setenv("TZ", "UTC-2")
    agent.time.tzset()
    try:
        assert agent.borg_time("2026-11-23T01:28:24.000000") == "2026-11-22T23:28:24.000Z"
    finally:
        monkeypatch.undo()
        agent.time.tzset()
