"""Re-keying Ansible Vault files: whole files and single values, all or none."""

import os
import signal

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from saveos.cli import vaults
from saveos.cli.errors import CommandError


def sealed(text, password, label=None):
    return VaultLib().encrypt(text, VaultSecret(password.encode()), vault_id=label).decode()


def opened(text, password):
    return VaultLib([("default", VaultSecret(password.encode()))]).decrypt(text.encode()).decode()


@pytest.fixture
def files(tmp_path):
    """A vaulted file, and one with a plain value beside a vaulted one."""
    whole, mixed = tmp_path / "vault.yml", tmp_path / "vars" / "all.yml"
    mixed.parent.mkdir()
    whole.write_text(sealed("canary: one\n", "old"))
    indented = "".join(f"    {line}\n" for line in sealed("canary two", "old", "prod").strip().splitlines())
    mixed.write_text(f"plain: yes\nsecret: !vault |\n{indented}after: 1\n")
    whole.chmod(0o640)
    return whole, mixed


def test_everything_opens_with_the_new_password_and_nothing_else_changes(files):
    whole, mixed = files
    assert vaults.rekey(files, "old", "new") == {str(whole): 1, str(mixed): 1}
    assert opened(whole.read_text(), "new") == "canary: one\n" and whole.stat().st_mode & 0o777 == 0o640
    text = mixed.read_text()
    assert text.startswith("plain: yes\nsecret: !vault |\n    $ANSIBLE_VAULT;1.2;AES256;prod\n")
    assert text.endswith("\nafter: 1\n")
    block = "\n".join(line.strip() for line in text.splitlines() if line.startswith("    ")) + "\n"
    assert opened(block, "new") == "canary two"
    assert [path.name for path in whole.parent.iterdir()].count(vaults.JOURNAL) == 0


def test_one_wrong_file_leaves_all_as_they_were(files, tmp_path):
    other = tmp_path / "other.yml"
    other.write_text(sealed("x", "another"))
    before = [path.read_bytes() for path in (*files, other)]
    with pytest.raises(CommandError, match="old password does not open it"):
        vaults.rekey([*files, other], "old", "new")
    plain = tmp_path / "plain.yml"
    plain.write_text("a: 1\n")
    with pytest.raises(CommandError, match="holds nothing that is vaulted"):
        vaults.rekey([*files, plain], "old", "new")
    assert [path.read_bytes() for path in (*files, other)] == before


def test_a_check_changes_nothing(files):
    before = [path.read_bytes() for path in files]
    assert set(vaults.rekey(files, "old", "new", check=True).values()) == {1}
    assert [path.read_bytes() for path in files] == before


@pytest.mark.parametrize("point", range(1, 6))
def test_killed_while_replacing_it_is_finished_by_the_next_call(files, point):
    """After a kill each file opens with one of both; settled, all with the same."""
    child = os.fork()
    if child == 0:
        steps = [0]

        def counted(function):
            def call(*words, **named):
                steps[0] += 1
                if steps[0] == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*words, **named)

            return call

        os.replace, os.unlink, os.fsync = counted(os.replace), counted(os.unlink), counted(os.fsync)
        vaults.rekey(files, "old", "new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    done = vaults.settle(files)
    whole, _ = files
    assert opened(whole.read_text(), "new" if done else "old") == "canary: one\n"
    if not done:
        vaults.rekey(files, "old", "new")
    assert opened(whole.read_text(), "new") == "canary: one\n"
