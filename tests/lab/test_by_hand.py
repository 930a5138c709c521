"""Playbooks by hand on real hosts: a storage server, a usual host and a bare Debian 13 host; no controller.

Registries are out of every host's reach from the start. The tests are one story and run in order.
"""

import ipaddress
import json
from types import SimpleNamespace

import pytest
from lab import Lab
from support import agent, archives, in_network, make_tree, on, play, records, tree

pytestmark = pytest.mark.lab

HOOK_CANARY = "CANARY-hook-7f3a9c"


@pytest.fixture(scope="module")
def hands():
    """A lab of three hosts that reach no registry, with an ordinary inventory."""
    with Lab({"vault": "bookworm", "web": "bookworm", "bare": "trixie"}) as lab:
        for host in lab.hosts.values():
            cut_off(host)
        for name in ("web", "bare"):
            make_tree(lab.hosts[name], "/srv/odd")
        inventory(lab)
        yield SimpleNamespace(lab=lab, **lab.hosts)


def cut_off(host):
    """Let a host reach its lab network only: no registry, no mirror."""
    network = ipaddress.ip_interface(f"{host.ip}/24").network
    rules = (
        "add table inet cut; add chain inet cut out { type filter hook output priority 0; }; "
        f"add rule inet cut out oifname != lo ip daddr != {network} reject; "
        "add rule inet cut out oifname != lo meta nfproto ipv6 reject"
    )
    in_network(host, "nft", rules)


def inventory(lab, sources=("/srv/odd",), **more):
    """Write the inventory with a policy; `more` is further role variables."""
    lab.inventory(("vault",), variables={"agent_sources": list(sources), **more})


def secrets_of(host):
    """Return every secret that lives on an agent."""
    script = (
        "cat /etc/saveos/token /etc/saveos/repositories/*/passphrase; "
        "sed -n 2p /etc/saveos/ssh/id_ed25519; grep -h . /etc/saveos/repositories/*/key-export | sed -n '3,4p'"
    )
    found = [line.strip() for line in on(host, script).splitlines() if len(line.strip()) > 15]
    assert len(found) >= 3, found
    return found


def test_a_bare_host_is_bare(hands):
    """The Debian 13 host has neither pip nor borg, and no host reaches a registry."""
    assert 'VERSION_ID="13"' in on(hands.bare, "cat /etc/os-release")
    for command in ("python3 -m pip --version", "borg --version", "borgmatic --version", "gcc --version"):
        on(hands.bare, f"! {command} 2>/dev/null")
    out = "import socket; socket.create_connection(('1.1.1.1', 443), 3)"
    for host in (hands.web, hands.bare):
        assert "rror" in on(host, 'python3 -c "$1"', out, code=1)


def test_site_converges_and_a_second_run_changes_nothing(hands):
    """Server and both agents converge; the second run has changed=0."""
    first = play(hands.lab, "site")
    assert first.total("failed") == first.total("unreachable") == 0
    assert first.recap["web"]["changed"] and first.recap["bare"]["changed"] and first.recap["vault"]["changed"]
    again = play(hands.lab, "site")
    assert again.total("changed") == 0, again.output
    for host in (hands.web, hands.bare):
        assert on(host, "systemctl is-enabled saveos-backup.timer && systemctl is-active saveos-backup.timer")
        assert (
            on(host, "stat -c '%a %U' /etc/saveos/token /etc/saveos/repositories/*/passphrase").split("\n")
            == ["600 root"] * 2
        )


def test_a_policy_change_shows_in_check_mode_without_a_secret(hands):
    """`--check --diff` tells what would change, changes nothing, and shows no secret."""
    hooks = {"before": [f"true {HOOK_CANARY}"], "after": [], "on_error": []}
    inventory(hands.lab, ["/srv/odd", "/etc/hosts"], agent_hooks=hooks)
    check = play(hands.lab, "site", "--check", "--diff", "-vvv")
    assert check.recap["web"]["changed"] and check.recap["bare"]["changed"]
    assert "/etc/hosts" in check.output, "the new source is not in the diff"
    for secret in [HOOK_CANARY, *secrets_of(hands.web), *secrets_of(hands.bare)]:
        assert secret not in check.output, f"shown: {secret[:12]}…"
    for host in (hands.web, hands.bare):
        assert "/etc/hosts" not in on(host, "cat /etc/saveos/borgmatic/*.yaml")
    inventory(hands.lab)
    clean = play(hands.lab, "site", "--check", "--diff")
    assert clean.total("changed") == 0, clean.output


def test_backup_leaves_one_archive_and_one_record(hands):
    """backup.yml makes exactly one archive and one run record on each host, the bare one too."""
    done = play(hands.lab, "backup")
    assert done.total("failed") == 0
    for host in (hands.web, hands.bare):
        assert len(archives(host)) == 1
        (record,) = records(host)
        assert (record["kind"], record["trigger"], record["state"]) == ("backup", "playbook", "succeeded"), (
            record
        )
        assert record["results"][0]["archive"]["nfiles"] > 20


@pytest.mark.parametrize("name", ["web", "bare"])
def test_a_restore_equals_its_source_with_all_metadata(hands, name):
    """The odd tree again: bytes, modes, owners, times, attributes, ACLs, links, holes, names."""
    host = getattr(hands, name)
    wanted = tree(host, "/srv/odd")
    assert wanted["kinds/sparse"]["holes"] and wanted["kinds/acl"]["attributes"], (
        "the lab's file system is too simple"
    )
    extra = {"maintenance_archive": "latest", "maintenance_destination": "/srv/back"}
    play(hands.lab, "restore", "--limit", name, "-e", json.dumps(extra))
    found = tree(host, "/srv/back/srv/odd")
    assert found.keys() == wanted.keys()
    assert {path: (wanted[path], found[path]) for path in wanted if wanted[path] != found[path]} == {}
    assert on(host, "test -e /tmp/owned -o -e /owned || echo no") == "no", "a file name was executed"


def test_restore_refuses_a_destination_with_something_in_it(hands):
    """A second restore to the same place ends with a sentence and leaves what is there."""
    before = tree(hands.web, "/srv/back")
    extra = {"maintenance_archive": "latest", "maintenance_destination": "/srv/back"}
    refused = play(hands.lab, "restore", "--limit", "web", "-e", json.dumps(extra), code=2)
    assert "/srv/back exists and is no empty directory" in refused.output
    assert tree(hands.web, "/srv/back") == before


def test_browse_and_health_say_what_is_there(hands):
    """browse.yml lists a directory with its odd names; health.yml has no complaint about the backup."""
    extra = {"maintenance_archive": "latest", "maintenance_path": "/srv/odd/kinds"}
    listing = play(hands.lab, "browse", "--limit", "web", "-e", json.dumps(extra), "-v")
    assert "hard-too" in listing.output and "fifo" in listing.output
    play(hands.lab, "health")


def test_a_run_by_hand_in_a_terminal_is_the_same_run(hands):
    """`saveos-agent backup` on the host itself uses the same lock and leaves one record more."""
    before = len(archives(hands.web))
    agent(hands.web, "backup", "--wait")
    assert len(archives(hands.web)) == before + 1
    assert records(hands.web)[-1]["trigger"] == "host"


def test_other_lines_of_authorized_keys_stay(hands):
    """The server role owns its own lines only, and each is a forced, append-only command."""
    keys = "/srv/saveos/.ssh/authorized_keys"
    stranger = (
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX8a7UZtq0sM1cF9d1mG2vWw7sXc2v5pE9p4qj0Q3aB admin@elsewhere"
    )
    on(hands.vault, f"echo '{stranger}' >> {keys}")
    assert play(hands.lab, "site", "--limit", "vault,web,bare").total("changed") == 0
    lines = on(hands.vault, f"cat {keys}").splitlines()
    assert stranger in lines
    ours = [line for line in lines if "saveos:" in line]
    assert len(ours) == 2
    assert all("--append-only --restrict-to-repository" in line and ",restrict " in line for line in ours)


ACME = "/srv/saveos/tenants/acme"
SSH = (
    "ssh -F none -o BatchMode=yes -o UserKnownHostsFile=/etc/saveos/ssh/known_hosts"
    " -i /etc/saveos/ssh/id_ed25519"
)


@pytest.fixture(scope="module")
def tenants(hands):
    """A second tenant's inventory has the same storage server, and `bare` as its host; both backed up there."""
    own = {
        "server_tenant": "acme",
        "agent_sources": ["/etc/hosts"],
        "agent_repositories": [{"id": "acme-bare"}],
    }
    hands.lab.inventory(("vault",), agents=("bare",), variables=own)
    play(hands.lab, "site")
    again = play(hands.lab, "site")
    assert again.total("changed") == 0, again.output
    agent(hands.bare, "backup", "--wait")
    yield hands
    inventory(hands.lab)


def test_each_tenant_of_a_server_has_its_own_user_and_guard(tenants):
    """The second tenant's hosts write as its user into its closed directory; the first one's address stays."""
    users = on(tenants.vault, "getent passwd | grep ^saveos-borg | cut -d: -f1,6,7").splitlines()
    shell = "/opt/saveos/server/serve-borg"
    assert set(users) == {f"saveos-borg:/srv/saveos:{shell}", f"saveos-borg-acme:{ACME}:{shell}"}
    modes = on(tenants.vault, 'stat -c "%a %U %G" "$1"/.. "$1" "$1"/.ssh "$1"/repositories/acme-bare', ACME)
    mine = "750 root saveos-borg-acme"
    assert modes.splitlines() == ["711 root root", mine, mine, "700 saveos-borg-acme saveos-borg-acme"]
    lines = on(tenants.vault, 'cat "$1"/.ssh/authorized_keys', ACME).splitlines()
    assert len(lines) == 1 and f"--restrict-to-repository {ACME}/repositories/acme-bare" in lines[0]
    assert "acme" not in on(tenants.vault, "cat /srv/saveos/.ssh/authorized_keys")
    on(
        tenants.vault,
        "systemctl start saveos-guard-acme.service && systemctl is-active saveos-guard-acme.timer",
    )
    copied = on(
        tenants.vault, 'find "$1"/repositories -user root -group saveos-borg-acme -perm 440 | wc -l', ACME
    )
    assert int(copied) > 0
    agent(tenants.bare, "backup", "--wait")
    agent(tenants.web, "backup", "--wait")
    assert len(archives(tenants.bare)) == 2


def test_no_tenant_reaches_into_anothers_repositories(tenants):
    """Not with its key, and not even with its user: the system itself stands between them."""
    theirs = on(tenants.vault, "ls -d /srv/saveos/repositories/*").splitlines()
    tried = 'BORG_RSH="$1" BORG_PASSPHRASE=x /opt/saveos/bin/borg list "ssh://$2@$3$4"'
    for path in theirs:
        said = on(tenants.bare, tried, SSH, "saveos-borg-acme", tenants.vault.ip, path, code=2)
        assert "not allowed" in said.lower() or "permission" in said.lower(), said
    # asked of ssh itself, because Borg may see the end of the connection before it has read why
    said = on(tenants.web, '$1 "$2@$3" true', SSH, "saveos-borg-acme", tenants.vault.ip, code=255)
    assert "Permission denied (publickey" in said, said
    denied = 'runuser -u "$1" -- ls "$2"'
    for user, place in (("saveos-borg-acme", "/srv/saveos/repositories"), ("saveos-borg-acme", theirs[0])):
        assert "Permission denied" in on(tenants.vault, denied, user, place, code=2)
    for place in (f"{ACME}/..", ACME, f"{ACME}/repositories/acme-bare"):
        assert "Permission denied" in on(tenants.vault, denied, "saveos-borg", place, code=2)


def test_the_users_have_no_shell(tenants):
    """A key without a forced command gets neither a command, a terminal nor files; nor does su."""
    file = f"{ACME}/.ssh/authorized_keys"
    key = on(tenants.web, "cat /etc/saveos/ssh/id_ed25519.pub")
    on(tenants.vault, 'cp -p "$1" /root/kept-keys && echo "$2" >> "$1"', file, key)
    try:
        there = f"saveos-borg-acme@{tenants.vault.ip}"
        for words in ("id", "", "/bin/sh -c id"):
            said = on(tenants.web, f'echo id | timeout 20 {SSH} "$1" {words}', there, code=1)
            assert "no shell" in said and "uid=" not in said, said
        # a server of files would answer this greeting
        greeting = r"(printf '\0\0\0\5\1\0\0\0\3'; sleep 1)"
        assert on(tenants.web, f'{greeting} | timeout 20 {SSH} -s "$1" sftp | wc -c', there) == "0"
        said = on(tenants.web, f'echo id | timeout 20 {SSH} -tt "$1"', there, code=1)
        assert "uid=" not in said, said  # what a terminal shows in its last moment may be lost
    finally:
        on(tenants.vault, 'cat /root/kept-keys > "$1" && rm /root/kept-keys', file)
    for user in ("saveos-borg", "saveos-borg-acme"):
        assert "no shell" in on(tenants.vault, 'su - "$1" -c id', user, code=1)
        assert on(tenants.vault, 'getent shadow "$1" | cut -d: -f2', user) in ("*", "!", "!*")
