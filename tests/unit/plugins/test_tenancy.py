"""Users of tenants on a storage server: their names, and the shell that is none."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.saveos.fleet.plugins.module_utils.tenancy import tenant_label

SHELL = Path(__file__).resolve().parents[3] / "roles/server/files/serve-borg"
ODD = [
    "Acme",
    "acme ",
    "Acme, Inc. & Söhne",
    "株式会社",
    "-",
    "a" * 40,
    "a" * 41,
    "x; rm -rf /",
    "../..",
    "{{ 1 }}",
    "deadbeef",
    "acme-deadbeef",
]


@pytest.mark.parametrize("user", ["saveos-borg", "saveos-borg-0a1b2c3d", "k" * 23])
def test_each_tenant_has_a_user_name_of_its_own(user):
    names = [f"{user}-{tenant_label(user, tenant)}" for tenant in [*ODD, "acme", "b-2"]]
    assert len(set(names)) == len(names)
    for name in names:
        assert len(name) <= 32 and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name), name
    assert names[-2] == f"{user}-acme"


def test_a_label_that_looks_like_anothers_digest_has_one_of_its_own():
    taken = tenant_label("saveos-borg", "Acme")
    assert re.fullmatch(r"acme-[0-9a-f]{8}", taken)
    assert tenant_label("saveos-borg", taken) != taken
    assert tenant_label("saveos-borg", "deadbeef") != "deadbeef"  # how users of second installations end


@pytest.fixture
def shell(tmp_path):
    """Return a function that calls the log-in shell as sshd does, with a borg that tells its words."""
    borg, program = tmp_path / "borg", tmp_path / "serve-borg"
    borg.write_text('#!/bin/sh\nprintf "[%s]" "$@"\n')
    program.write_text(SHELL.read_text().replace("/opt/saveos/server/borg", str(borg)))
    for each in (borg, program):
        each.chmod(0o755)

    def call(*words):
        done = subprocess.run([program, *words], capture_output=True, text=True, cwd=tmp_path, check=False)
        return done.returncode, done.stdout.replace(str(tmp_path), "")

    call.borg = str(borg)
    return call


def test_the_shell_serves_a_repository(shell):
    forced = f"{shell.borg} serve --append-only --restrict-to-repository /srv/r1 --storage-quota 5G"
    assert shell("-c", forced) == (
        0,
        "[serve][--append-only][--restrict-to-repository][/srv/r1][--storage-quota][5G]",
    )
    expanded = f"{shell.borg} serve --restrict-to-repository /srv/*;id $(id) `id` $HOME > {os.devnull}"
    assert "[/srv/*;id][$(id)][`id`][$HOME][>][/dev/null]" in shell("-c", expanded)[1]


@pytest.mark.parametrize(
    "command",
    [
        "id",
        "/bin/sh",
        "internal-sftp",
        "/usr/lib/openssh/sftp-server",
        "{borg} list /srv/r1",
        "{borg} serve",
        "{borg} serve --append-only",
        "id; {borg} serve --restrict-to-repository /srv/r1",
        "{borg}x serve --restrict-to-repository /srv/r1",
        "",
    ],
)
def test_the_shell_runs_nothing_else(shell, command):
    assert shell("-c", command.format(borg=shell.borg)) == (1, "")


@pytest.mark.parametrize("words", [[], ["-l"], ["-c"], ["-i", "-c", "id"]])
def test_nobody_logs_in(shell, words):
    assert shell(*words) == (1, "")
