"""Facts about a machine: a busy one is no broken one."""

from __future__ import annotations

import dataclasses
import subprocess


def test_a_program_that_was_too_busy_to_answer_is_not_missing_and_is_asked_again(
    agent, host, tmp_path, monkeypatch
):
    """Once it has told its version it is asked no more; one that is not there is missing at every look."""
    borg, calls = tmp_path / "borg", []
    borg.write_text("#!/bin/sh\necho borg 1.4.5\n")
    borg.chmod(0o755)
    settings = dataclasses.replace(host.settings, borg=str(borg), borgmatic=str(tmp_path / "borgmatic"))
    real = subprocess.run

    def busy(*words, **named):
        calls.append(words)
        raise subprocess.TimeoutExpired(words[0], named["timeout"])

    monkeypatch.setattr(subprocess, "run", busy)
    assert agent.versions(settings)["borg"] == "unknown"
    monkeypatch.setattr(subprocess, "run", real)
    assert agent.versions(settings)["borg"] == "1.4.5"
    assert agent.versions(settings)["borgmatic"] == "missing"
    monkeypatch.setattr(subprocess, "run", busy)
    assert agent.versions(settings)["borg"] == "1.4.5"
    monkeypatch.setattr(subprocess, "run", real)
    borg.unlink()
    assert agent.versions(settings)["borg"] == "missing"
    assert [words[0][0] for words in calls] == [str(borg), settings.borgmatic, settings.borgmatic]
