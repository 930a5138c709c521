import base64

import pytest
from ansible_collections.saveos.fleet.plugins.module_utils import ssh_keys


def key(number: int, kind: str = "ssh-ed25519") -> str:
    blob = len(kind).to_bytes(4, "big") + kind.encode() + b"\x00\x00\x00\x20" + bytes([number]) * 32
    return f"{kind} {base64.b64encode(blob).decode()}"


def entry(name: str, number: int, **more: object) -> dict[str, object]:
    return {"id": name, "public_key": key(number), **more}


def line(name: str, number: int, **more: object) -> str:
    return ssh_keys.authorized_line("/opt/borg", f"/srv/{name}", entry(name, number, **more))


@pytest.mark.parametrize("kind", ssh_keys.TYPES)
def test_a_key_is_written_anew_without_its_comment(kind):
    assert ssh_keys.parse_key(f"  {key(1, kind)}  somebody@somewhere \n") == key(1, kind)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 !!!",
        f'command="sh" {key(1)}',
        f"{key(1)}\n{key(2)}",
        key(1).replace("ssh-ed25519", "ssh-rsa"),
        key(1, "ssh-dss"),
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
    ],
)
def test_what_is_no_single_key_is_refused(text):
    with pytest.raises(ValueError, match=r"key|base64|type"):
        ssh_keys.parse_key(text)


def test_a_line_serves_one_repository_and_nothing_else():
    command = "/opt/borg serve --append-only --restrict-to-repository /srv/a --storage-quota 5G"
    assert line("a", 1, quota="5G") == f'command="{command}",restrict {key(1)} saveos:a'
    assert "--append-only" not in line("a", 1, append_only=False)
    assert "--storage-quota" not in line("a", 1, quota="")


@pytest.mark.parametrize("name", ["../b", "a b", "", "-a", 'a"', "a\nb", "x" * 65])
def test_an_id_cannot_leave_its_directory_or_its_line(name):
    with pytest.raises(ValueError, match="repository id"):
        ssh_keys.check_id(name)


@pytest.mark.parametrize("quota", ["5 G", '1G" --x', "lots", "-1"])
def test_a_quota_cannot_add_to_the_command(quota):
    with pytest.raises(ValueError, match="quota"):
        line("a", 1, quota=quota)


def test_a_path_cannot_end_the_command():
    with pytest.raises(ValueError, match="quotes"):
        ssh_keys.authorized_line("/opt/borg", '/srv/a" x', entry("a", 1))


def test_merge_updates_adds_and_leaves_others_where_they_are():
    stranger, other = f"{key(9)} admin@desk", line("other", 8)
    before = f"# hand made\n{stranger}\n{line('a', 1)}\n{other}\n"
    after = ssh_keys.merge(before, [line("a", 2), line("b", 3)], [])
    assert after == f"# hand made\n{stranger}\n{line('a', 2)}\n{other}\n{line('b', 3)}\n"
    assert ssh_keys.merge(after, [line("a", 2), line("b", 3)], []) == after


def test_merge_takes_access_away_only_when_told():
    text = f"{line('a', 1)}\n{line('b', 2)}\n"
    assert ssh_keys.merge(text, [], []) == text
    assert ssh_keys.merge(text, [], ["a"]) == f"{line('b', 2)}\n"


def test_a_key_that_serves_another_repository_shuts_out_only_who_told_it():
    text = f"{line('a', 1)}\n{line('b', 2)}\n"
    for lines in ([line("c", 1), line("b", 2)], [line("c", 1), line("a", 1), line("b", 2)]):
        found = ssh_keys.refused(text, lines, [])
        assert list(found) == ["c"] and "server_repositories_absent: [a]" in found["c"]
    assert ssh_keys.refused(text, [line("c", 1)], ["a"]) == {}
    assert ssh_keys.refused(text, [line("a", 2), line("b", 1)], []) == {}, "they change places"
    assert ssh_keys.refused(text, [line("a", 1), line("a", 2)], []) == {
        "a": ssh_keys.refused(text, [line("a", 2)], [])["a"]
    }


def test_merge_refuses_two_hosts_on_one_repository():
    with pytest.raises(ValueError, match=r"two hosts have the repository a: .*agent_repositories"):
        ssh_keys.merge("", [line("a", 1), line("a", 2)], [])
    assert ssh_keys.merge("", [line("a", 1), line("a", 1)], []) == f"{line('a', 1)}\n"


def test_merge_leaves_no_second_line_with_an_old_key():
    text = f"{line('a', 1)}\n{line('a', 2)}\n# mine\n# mine\n"
    assert ssh_keys.merge(text, [line("a", 3)], []) == f"{line('a', 3)}\n# mine\n# mine\n"


def test_a_refused_key_is_named_by_its_repository():
    with pytest.raises(ValueError, match=r"public key for repository a .* not one SSH public key"):
        ssh_keys.authorized_line("/opt/borg", "/srv/a", {"id": "a", "public_key": ["nonsense"]})


def test_a_comment_line_that_ends_like_ours_is_not_ours():
    text = "# see saveos:a\n"
    assert ssh_keys.merge(text, [], ["a"]) == text


def test_a_new_key_is_let_in_beside_the_old_one_and_then_alone():
    stranger, old, new = f"{key(9)} admin@desk", line("a", 1), line("a", 2)
    both = ssh_keys.merge(f"{old}\n{stranger}\n", [old], [], [new])
    assert both == f"{old}\n{new}\n{stranger}\n"
    assert ssh_keys.merge(both, [old], [], [new]) == both
    assert ssh_keys.merge(both, [new], []) == f"{new}\n{stranger}\n"
    assert list(ssh_keys.refused(f"{line('b', 2)}\n", [old, new], [])) == ["a"]
