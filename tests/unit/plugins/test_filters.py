import uuid

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.saveos.fleet.plugins.filter import saveos

GROUPS = {"storage_servers": ["vault1"], "agents": ["web1", "web2"]}
POLICY = {
    "host": "web1",
    "etc": "/etc/saveos",
    "state": "/var/lib/saveos-agent",
    "sources": ["/etc"],
    "excludes": ["*.tmp"],
    "exclude_caches": True,
    "retention": {"keep_daily": 7, "keep_within": "7d", "keep_yearly": None},
    "compression": "zstd,3",
    "upload_rate_limit": 0,
    "hooks": {"before": [], "after": [], "on_error": []},
    "overrides": {},
}


def repository(**more):
    entries = [{"id": "r1", **more}]
    return saveos.agent_repositories(entries, "web1", {"vault1": {"ansible_host": "10.0.0.9"}}, GROUPS)[0]


def config(**changes):
    return saveos.borgmatic_config({**POLICY, **changes}, repository())


@pytest.mark.parametrize(
    ("cron", "calendars"),
    [
        ("0 2 * * *", ["*-*-* 02:00:00"]),
        ("*/20 * * * *", ["*-*-* *:00,20,40:00"]),
        ("30 3 * * 1-5", ["Mon,Tue,Wed,Thu,Fri *-*-* 03:30:00"]),
        ("0 0 1,15 * *", ["*-*-01,15 00:00:00"]),
        ("5 4 * jan,DEC sun", ["Sun *-01,12-* 04:05:00"]),
        ("0 1 * * 7", ["Sun *-*-* 01:00:00"]),
        ("0 1 * * 5-7", ["Sun,Fri,Sat *-*-* 01:00:00"]),
        ("0 22-23,1/12 * * *", ["*-*-* 01,13,22,23:00:00"]),
        ("0 0 13 * 5", ["*-*-13 00:00:00", "Fri *-*-* 00:00:00"]),
        ("@weekly", ["Sun *-*-* 00:00:00"]),
    ],
)
def test_cron_becomes_a_calendar(cron, calendars):
    assert saveos.cron_to_calendar(cron) == calendars


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "0 2 * *",
        "60 2 * * *",
        "0 24 * * *",
        "0 0 0 * *",
        "a * * * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "@reboot",
    ],
)
def test_a_wrong_schedule_is_refused_with_its_name(cron):
    with pytest.raises(AnsibleFilterError, match="agent_schedule"):
        saveos.check_cron(cron)


def test_a_repository_is_completed_from_its_server():
    found = repository()
    assert found["url"] == "ssh://saveos-borg@10.0.0.9:22/srv/saveos/repositories/r1"
    assert (found["server"], found["label"], found["exists"], found["host_keys"]) == ("vault1", "r1", None, [])


def test_a_repository_follows_what_the_server_play_found():
    server = {
        "ansible_host": "10.0.0.9",
        "server_address": "backup.example.org",
        "server_port": 2222,
        "__server_storage": {"saveos": {"server": {"root": "/big", "user": "keeper", "host_keys": ["k"]}}},
        "__server_repositories": {"repositories": {"r1": True}},
    }
    (found,) = saveos.agent_repositories([{"id": "r1"}], "web1", {"vault1": server}, GROUPS)
    assert found["url"] == "ssh://keeper@backup.example.org:2222/big/repositories/r1"
    assert (found["exists"], found["host_keys"]) == (True, ["k"])


@pytest.mark.parametrize(
    "told",
    [{"user": "-oProxyCommand=touch pwned;"}, {"user": "a b"}, {"root": "relative"}, {"root": "/a\n{b}"}],
)
def test_a_hostile_storage_server_cannot_put_options_on_hosts_command_lines(told):
    server = {"__server_storage": {"saveos": {"server": told}}}
    with pytest.raises(AnsibleFilterError, match="storage server vault1 told them"):
        saveos.agent_repositories([{"id": "r1"}], "web1", {"vault1": server}, GROUPS)


def test_a_tenants_repository_has_the_tenants_own_user_and_directory():
    (found,) = saveos.agent_repositories([{"id": "r1"}], "web1", {"vault1": {"server_tenant": "acme"}}, GROUPS)
    assert found["url"] == "ssh://saveos-borg-acme@vault1:22/srv/saveos/tenants/acme/repositories/r1"
    assert saveos.storage_place({"server_user": "", "server_root": ""}) == {
        "user": "saveos-borg",
        "root": "/srv/saveos",
        "instance": "",
        "tenant": "",
    }
    place = saveos.storage_place({"server_user": "keep", "server_instance": "i", "server_tenant": "acme"})
    assert (place["user"], place["instance"]) == ("keep-acme", "i-acme")
    with pytest.raises(AnsibleFilterError, match="too long for a tenant"):
        saveos.storage_place({"server_user": "k" * 24, "server_tenant": "acme"})


def test_an_ipv6_server_has_brackets_in_its_url():
    assert "@[fd00::9]:22/" in repository(address="fd00::9")["url"]


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([], "has no repository"),
        ([{"id": "../x"}], "repository id"),
        ([{"id": "a", "kind": "tape"}], "neither ssh nor local"),
        ([{"id": "a", "kind": "local", "path": "relative"}], "absolute path"),
        ([{"id": "a"}, {"id": "b"}], "two repositories on the server"),
    ],
)
def test_a_wrong_repository_is_refused_with_a_sentence(entries, sentence):
    with pytest.raises(AnsibleFilterError, match=sentence):
        saveos.agent_repositories(entries, "web1", {"vault1": {}}, GROUPS)


def test_without_a_storage_server_the_sentence_says_what_to_add():
    with pytest.raises(AnsibleFilterError, match="storage_servers"):
        saveos.agent_repositories([{"id": "a"}], "web1", {}, {})


def test_the_default_repository_has_the_id_that_to_uuid_makes():
    (entry,) = saveos.default_repositories("web1", GROUPS)
    assert entry["id"] == str(uuid.uuid5(uuid.UUID("361E6D51-FAEC-444A-9079-341386DA8E2E"), "web1"))
    assert saveos.default_repositories("web1", {}) == []


def test_a_host_cannot_claim_the_repository_of_another():
    lie = {
        "saveos": {"identity": {"public_key": "k2"}},
        "repositories": [{"id": "r1", "kind": "ssh", "server": "vault1"}],
    }
    hostvars = {
        "vault1": {},
        "web1": {
            "agent_repositories": [{"id": "r1", "quota": "5G"}],
            "__agent_enrol": {"saveos": {"identity": {"public_key": "k1"}}},
        },
        "web2": {"agent_repositories": [{"id": "r2"}], "__agent_enrol": lie},
    }
    assert saveos.server_repositories("vault1", hostvars, GROUPS) == [
        {"id": "r1", "public_key": "k1", "quota": "5G", "append_only": True},
        {"id": "r2", "public_key": "k2", "quota": "", "append_only": True},
    ]


def test_hosts_outside_the_run_and_other_servers_are_left_alone():
    hostvars = {
        "vault1": {},
        "web1": {},
        "web2": {
            "agent_repositories": [{"id": "r2", "server": "vault2"}],
            "__agent_enrol": {"saveos": {"identity": {"public_key": "k2"}}},
        },
    }
    assert saveos.server_repositories("vault1", hostvars, GROUPS) == []


def test_a_policy_becomes_borgmatics_configuration():
    found = config()
    assert found["source_directories"] == ["/etc"]
    assert found["encryption_passphrase"] == "{credential file /etc/saveos/repositories/r1/passphrase}"
    assert found["keep_daily"] == 7
    assert "keep_yearly" not in found
    assert "commands" not in found
    assert "StrictHostKeyChecking=yes" in found["ssh_command"]


def test_own_secrets_and_state_are_never_in_an_archive():
    excluded = config()["exclude_patterns"]
    assert {"pp:/etc/saveos/repositories", "pp:/etc/saveos/token", "pp:/var/lib/saveos-agent", "*.tmp"} <= set(
        excluded
    )


def test_hooks_become_commands_around_create():
    found = config(hooks={"before": ["a", "x"], "after": ["b"], "on_error": ["c"]})["commands"]
    folder = "sh /etc/saveos/hooks"
    assert found == [
        {"before": "action", "when": ["create"], "run": [f"{folder}/before-1", f"{folder}/before-2"]},
        {"after": "action", "when": ["create"], "states": ["finish"], "run": [f"{folder}/after-1"]},
        {"after": "error", "run": [f"{folder}/on_error-1"]},
    ]


def test_hooks_are_files_so_that_no_command_line_shows_them():
    policy = {**POLICY, "hooks": {"before": ["a", "x"], "on_error": ["c"]}}
    folder = "/etc/saveos/hooks"
    found = {f"{folder}/before-1": "a", f"{folder}/before-2": "x", f"{folder}/on_error-1": "c"}
    assert saveos.hook_files(policy) == found


def test_overrides_are_merged_last_and_deeply():
    found = config(overrides={"compression": "none", "bootstrap": {"x": 1}})
    assert found["compression"] == "none"
    assert found["bootstrap"] == {"store_config_files": False, "x": 1}


def test_database_dumps_keep_borgmatics_safety_checks():
    assert config()["unsafe_skip_path_validation_before_create"] is True
    assert "unsafe_skip_path_validation_before_create" not in config(overrides={"postgresql_databases": []})


@pytest.mark.parametrize(
    ("sources", "sentence"), [([], "has no sources: set agent_sources"), (["etc"], "absolute path")]
)
def test_a_policy_without_proper_sources_is_refused(sources, sentence):
    with pytest.raises(AnsibleFilterError, match=sentence):
        config(sources=sources)


def test_a_configuration_survives_being_written_and_read():
    policy = {**POLICY, "excludes": ["{{ 7*7 }}", "ü: #", "- x", "'"], "hooks": {"before": ["echo 'a: b' # c"]}}
    texts = saveos.borgmatic_configs([repository()], policy)
    assert yaml.safe_load(texts["r1"]) == saveos.borgmatic_config(policy, repository())


@pytest.mark.parametrize(
    ("hooks", "words"),
    [
        ({"before": "canary"}, "before must be a list"),
        ({"later": ["canary"]}, "no moment 'later'"),
        ({"after": [1]}, "after must be"),
    ],
)
def test_wrong_hooks_are_refused_without_quoting_them(hooks, words):
    with pytest.raises(AnsibleFilterError, match=words) as refusal:
        config(hooks=hooks)
    assert "canary" not in str(refusal.value)


def test_problems_are_found_before_anything_is_changed():
    def problems(schedule="@daily", **changes):
        return saveos.agent_problems([{"id": "r1"}], {**POLICY, **changes}, schedule, {"vault1": {}}, GROUPS)

    assert problems() == []
    assert "agent_schedule" in problems("often")[0]
    assert "agent_sources" in problems(sources=[])[0]


def test_databases_become_borgmatics_options_and_passwords_files_of_their_own():
    databases = [
        {"kind": "postgresql", "name": "shop"},
        {"kind": "postgresql", "hostname": "db", "username": "u", "password": "CANARY"},
        {"kind": "mariadb"},
        {"kind": "sqlite", "path": "/srv/app/notes.db"},
        {"kind": "mongodb", "hostname": "db", "port": 27017, "keep_password": True},
    ]
    policy = {**POLICY, "databases": databases}
    found = saveos.borgmatic_config(policy, repository())
    assert "CANARY" not in str(found)
    assert found["postgresql_databases"] == [
        {
            "name": "shop",
            "pg_dump_command": "runuser -u postgres -- pg_dump",
            "psql_command": "runuser -u postgres -- psql",
            "pg_restore_command": "runuser -u postgres -- pg_restore",
        },
        {
            "hostname": "db",
            "username": "u",
            "name": "all",
            "password": "{credential file /etc/saveos/databases/2}",
        },
    ]
    assert found["mariadb_databases"] == [{"name": "all"}]
    assert found["sqlite_databases"] == [{"path": "/srv/app/notes.db", "name": "notes.db"}]
    assert "unsafe_skip_path_validation_before_create" not in found
    assert any(pattern.endswith("/databases") for pattern in found["exclude_patterns"])
    files = {"/etc/saveos/databases/2": "CANARY", "/etc/saveos/databases/5": None}
    assert saveos.password_files(policy) == files


@pytest.mark.parametrize(
    "entry, words",
    [({"kind": "oracle"}, "kind"), ({"kind": "sqlite"}, "path"), ({"kind": "mysql", "pw": "x"}, "'?pw")],
)
def test_a_database_that_makes_no_sense_is_told_without_its_values(entry, words):
    with pytest.raises(AnsibleFilterError, match=words):
        saveos.password_files({**POLICY, "databases": [entry]})


def test_cron_is_asked_at_each_moment_that_some_zone_may_mean():
    assert saveos.cron_in_any_zone("30 2 * * *") == "0,15,30,45 * * * *"
    assert saveos.cron_in_any_zone("5 2 * * 1") == "5,20,35,50 * * * *"
    assert saveos.schedule_values("0 2 * * sun", "Europe/Paris") == {
        "zone": "Europe/Paris",
        "minute": [0],
        "hour": [2],
        "day": None,
        "month": None,
        "weekday": [0],
    }


def test_what_inventory_declares_of_a_server_needs_no_enrolment():
    hostvars = {
        "vault1": {},
        "web1": {
            "agent_public_key": "k1",
            "agent_repositories": [{"id": "r1", "server": "vault1", "quota": "5G"}],
        },
        "web2": {
            "agent_repositories": [
                {"id": "r2", "server": "vault2"},
                {"id": "r3", "kind": "local", "path": "/srv"},
                {"id": "r4", "address": "192.0.2.9"},
                {"id": "r5"},
            ]
        },
    }
    assert saveos.declared_repositories("vault1", hostvars, GROUPS) == [
        {"id": "r1", "quota": "5G", "public_key": "k1", "append_only": True},
        {"id": "r5", "quota": "", "public_key": "", "append_only": True},
    ]
