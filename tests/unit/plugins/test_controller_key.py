"""Lines of authorized_keys while the controller's key is rotated: options kept, other lines left alone."""

import base64
from pathlib import Path

import pytest
from ansible_collections.saveos.fleet.plugins.modules import controller_key


def key(letter):
    blob = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + letter.encode() * 32
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


OLD, NEW, OTHER = key("o"), key("n"), key("x")
BOUND = 'from="10.0.0.1",no-pty'


@pytest.mark.parametrize(
    ("before", "beside", "after"),
    [
        ([f"{OLD} saveos:a"], [f"{OLD} saveos:a", f"{NEW} saveos:a"], [f"{NEW} saveos:a"]),
        (
            [f"{OTHER} anna", f"{BOUND} {OLD} x", "# note"],
            [f"{OTHER} anna", f"{BOUND} {OLD} x", f"{BOUND} {NEW} x", "# note"],
            [f"{OTHER} anna", f"{BOUND} {NEW} x", "# note"],
        ),
        ([f"# {OLD} was here", OTHER], [f"# {OLD} was here", OTHER], [f"# {OLD} was here", OTHER]),
        ([f"{NEW} mine", f"{OLD} a", f"{OLD} b"], [f"{NEW} mine", f"{OLD} a", f"{OLD} b"], [f"{NEW} mine"]),
        ([], [], []),
    ],
)
def test_the_new_key_gets_the_options_of_the_old_one_which_then_goes(before, beside, after):
    assert controller_key.added(before, OLD, NEW) == beside
    assert controller_key.added(beside, OLD, NEW) == beside
    assert controller_key.dropped(beside, OLD) == after


def test_without_a_former_key_nothing_is_added_or_taken():
    assert controller_key.added([OTHER], "", NEW) == [OTHER]
    assert controller_key.dropped([NEW, OTHER], "") == [NEW, OTHER]


@pytest.mark.parametrize(("old", "counts"), [(OLD, (1, 1)), (NEW, (1, 1)), ("", (0, 0))])
def test_a_check_counts_what_would_come_and_go(tmp_path, monkeypatch, old, counts):
    """Before a rotation (both keys the same) the line of the present key will get a successor, and go."""

    class Done(Exception):
        pass

    class Module:
        check_mode = True

        def __init__(self, **_):
            self.params = {"phase": "add", "new_key": NEW, "old_key": old, "files": ["keys"]}

        def exit_json(self, **told):
            raise Done(told["saveos"]["rekey"]["summary"])

    (tmp_path / "keys").write_text(f"{old or NEW}\n{OTHER}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(controller_key, "AnsibleModule", Module)
    with pytest.raises(Done) as done:
        controller_key.main()
    (summary,) = done.value.args
    assert (summary["added"], summary["removed"]) == counts
    assert (tmp_path / "keys").read_text() == f"{old or NEW}\n{OTHER}\n"


def test_a_file_is_replaced_with_its_mode_through_a_link(tmp_path):
    class Module:
        check_mode = False

        def add_cleanup_file(self, path):
            pass

        def atomic_move(self, source, target):
            Path(source).replace(target)

    real = tmp_path / "keys"
    real.write_text(f"{OLD}\n{OTHER}")
    link = tmp_path / "authorized_keys"
    link.symlink_to(real)
    paths = [str(link), str(tmp_path / "none")]
    module = Module()
    assert controller_key.change(module, paths, lambda lines: controller_key.added(lines, OLD, NEW)) == 1
    assert controller_key.change(module, paths, lambda lines: controller_key.dropped(lines, OLD)) == 1
    assert controller_key.change(module, paths, lambda lines: controller_key.dropped(lines, OLD)) == 0
    assert link.is_symlink() and real.read_text() == f"{NEW}\n{OTHER}\n"
    module.check_mode = True
    assert controller_key.change(module, paths, lambda lines: controller_key.dropped(lines, NEW)) == 1
    assert real.read_text() == f"{NEW}\n{OTHER}\n"
