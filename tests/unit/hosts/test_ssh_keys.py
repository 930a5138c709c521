"""Host keys: what people paste is read strictly and re-serialised."""

import re
import subprocess

import pytest
from saveos.core.errors import Invalid, Unavailable
from saveos.hosts import ssh_keys

NAMES = {"web1", "10.0.0.5"}


def test_the_forms_people_paste(host_key):
    a, b, c, d = (host_key() for _ in range(4))
    lines = [
        f"{a} root@web1",
        f"# comment\n\nweb1,10.0.0.7 {b}\n",
        f"[10.0.0.5]:2222 {c} x",
        f"{a}\r",
        f"other.example {d}",
    ]
    assert ssh_keys.parse_host_keys(lines, NAMES) == [a, b, c]


@pytest.mark.parametrize(
    "line, words",
    [
        ("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= {key}", "hashed"),
        ("@cert-authority *.example {key}", "not supported"),
        ("other.example {key}", "other.example"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACBAP", "no SSH host key"),
        ("{cut}", "cut off"),
        ("ssh-ed25519 !!!!", "base64"),
        ("ssh-rsa {blob}", "another type"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "no SSH host key"),
        ("ssh-ed25519", "no SSH host key"),
    ],
)
def test_what_is_no_key_is_refused_with_a_sentence(host_key, line, words):
    key = host_key()
    text = line.format(key=key, cut=key[:-16], blob=key.split()[1])
    with pytest.raises(Invalid, match=words):
        ssh_keys.parse_host_keys([text], NAMES)


def test_the_fingerprint_is_ssh_keygens(host_key, tmp_path):
    key = host_key()
    (tmp_path / "key.pub").write_text(f"{key}\n")
    shown = subprocess.run(
        ["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True
    )
    assert ssh_keys.fingerprint(key) == re.search(r"SHA256:\S+", shown.stdout).group()


def test_a_host_that_does_not_answer():
    with pytest.raises(Unavailable, match="port 1"):
        ssh_keys.scan("127.0.0.1", 1)
