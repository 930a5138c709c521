"""Borg is run as borgmatic would run it, and what is kept of that holds no secret."""

from tests.unit.agent.conftest import PASSPHRASE, REPOSITORY


def run(agent, backed, *words):
    said = []
    output = agent.Output(agent.Redactor([]), on_out=said.append)
    repository = backed.settings.repository(REPOSITORY)
    return agent.run_borg(backed.settings, repository, agent.new_run_id(), output, *words), said, output


def test_borg_runs_with_what_borgmatic_would_give_it(agent, backed):
    backed.configure("lock_wait: 7\n")
    how = agent.how_borg_runs(backed.settings, backed.settings.repository(REPOSITORY))
    assert how["flags"] == ["--lock-wait", "7"]
    assert how["environment"]["BORG_REPO"] == str(backed.base / "repository")
    assert how["environment"]["BORG_BASE_DIR"] == str(backed.base / "state/borg")
    kept = (backed.settings.state / "borg-runs" / f"{REPOSITORY}.json").read_text()
    assert PASSPHRASE not in kept and "PASSPHRASE" not in kept and "PASSCOMMAND" not in kept
    assert [path.suffix for path in (backed.settings.state / "borg-runs").iterdir()] == [".json"]
    assert backed.run("backup")[0] == 0
    status, said, _ = run(agent, backed, "list", "--short")
    assert status == 0 and len(said) == 1
    status, _, output = run(agent, backed, "list", "::no-such-archive", "--log-json")
    assert status == output.statuses[0] != 0
    assert "no-such-archive" in agent.classify(output)["message"]


def test_a_changed_configuration_is_asked_anew_and_a_secret_in_it_goes_by_borgmatic(agent, backed):
    repository = backed.settings.repository(REPOSITORY)
    assert agent.how_borg_runs(backed.settings, repository)["flags"] == []
    backed.configure("lock_wait: 9\n")
    assert agent.how_borg_runs(backed.settings, repository)["flags"] == ["--lock-wait", "9"]
    text = backed.config.read_text().splitlines()
    text = [f"encryption_passphrase: {PASSPHRASE}" if "credential" in line else line for line in text]
    backed.config.write_text("\n".join(text) + "\n")
    assert agent.how_borg_runs(backed.settings, repository) is None
    assert PASSPHRASE not in (backed.settings.state / "borg-runs" / f"{REPOSITORY}.json").read_text()
    assert run(agent, backed, "list", "--short")[0] == 0


def test_a_borgmatic_that_fails_is_no_reason_to_fail(agent, backed):
    backed.config.write_text("repositories: nonsense\n")
    assert agent.how_borg_runs(backed.settings, backed.settings.repository(REPOSITORY)) is None
