"""No secret of the host is left in text that leaves the agent."""

from __future__ import annotations

import pytest


def test_passphrase_and_token_are_known(agent, host):
    redactor = agent.Redactor.for_host(host.settings)
    assert redactor.clean("x canary-passphrase-7f3a y canary-token-11aa22bb z") == "x *** y *** z"


@pytest.mark.parametrize(
    ("hook", "secret"),
    [
        ("mysqldump -uroot -pS3cretWord db", "S3cretWord"),
        ("mysqldump --password=S3cretWord db", "S3cretWord"),
        ("PGPASSWORD='S3cretWord' pg_dump db", "S3cretWord"),
        ("curl -H 'Authorization: Bearer S3cretWord' https://x", "S3cretWord"),
        ("curl https://hooks.example/services/T00/S3cretWord", "S3cretWord"),
        ("pg_dump postgresql://me:S3cretWord@db/x", "S3cretWord"),
        ("echo $(cat S3cretWord)", "S3cretWord"),
    ],
)
def test_words_of_hooks_are_taken_for_secrets(agent, hook, secret):
    config = (
        f'source_directories:\n- /etc\ncommands:\n- before: action\n  when: [create]\n  run:\n  - "{hook}"\n'
    )
    redactor = agent.Redactor(agent.config_secrets(config))
    assert secret not in redactor.clean(f"Command '{hook}' returned non-zero; it said {secret}")


def test_options_with_secret_names_are_known_and_sources_stay_legible(agent):
    config = "ntfy:\n  access_token: tk_12345678\nsource_directories:\n- /home/important\n"
    redactor = agent.Redactor(agent.config_secrets(config))
    assert redactor.clean("tk_12345678 /home/important") == "*** /home/important"


def test_hooks_end_where_the_next_option_begins(agent):
    config = "commands:\n- before: action\n  run: [true]\nexclude_patterns:\n- something-long\n"
    assert "something-long" not in agent.config_secrets(config)


def test_a_password_in_a_url_is_hidden(agent):
    assert agent.Redactor(()).clean("ssh://me:secret@host/x") == "ssh://me:***@host/x"


def test_structures_are_cleaned_throughout(agent):
    redactor = agent.Redactor(["hunter22"])
    assert redactor.clean_all({"a": ["hunter22", 1], "b": None}) == {"a": ["***", 1], "b": None}
