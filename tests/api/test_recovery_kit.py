"""Escrow and recovery kit of a host: who gets them, what is in them, and what the command makes of them."""

import base64
import importlib.util
import io
import json
import stat
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest
import uvicorn
from saveos.cli.errors import FINDINGS, REFUSED, USAGE
from saveos.cli.main import main
from saveos.core import sealing
from saveos.core.clock import now
from saveos.secrets import service

ROOT = Path(__file__).resolve().parents[2]
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKs7gmC5uvmBXN8Q5V0gTtIQxKqsNwLkVWyUS0XUwVFr"
PASSPHRASE = 'c4n4ry "quoted" \\ ü%s'
KEY_EXPORT = "BORG_KEY 00ff\nhqlhbGdvcml0aG2m\nc2hhMjU2\n"


@pytest.fixture
def database_kind():
    return "sqlite"


def seal(plain, public):
    spec = importlib.util.spec_from_file_location("saveos_seal", ROOT / "roles/agent/files/saveos_seal.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return base64.b64decode(module.seal(plain, public))


@pytest.fixture
def pair(api):
    """A recovery key, and host <web1> with an escrow of its one repository."""
    public, private = sealing.new_pair()
    api.made("/recovery", {"public_key": public})
    api.made("/hosts", {"name": "vault", "is_agent": False, "is_storage_server": True})
    host = api.made("/hosts", {"name": "web1"})
    (repository,) = api.get("/repositories").json()["items"]
    url = f"ssh://borg@10.0.0.1:2222/srv/repositories/{repository['id']}"
    plain = {
        "schema": 1,
        "host": "web1",
        "repository_id": repository["id"],
        "url": url,
        "passphrase": PASSPHRASE,
        "key_export": KEY_EXPORT,
        "host_keys": [HOST_KEY],
    }
    text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
    import uuid

    with api.database.session() as session:
        service.store_escrow(
            session,
            api.tenant_id,
            uuid.UUID(host["id"]),
            uuid.UUID(repository["id"]),
            fingerprint=sealing.fingerprint(public),
            sealed=seal(text.encode(), public),
            url=url,
            host_keys=[HOST_KEY],
        )
    return public, private, repository["id"], text


def test_only_an_admin_gets_escrow_and_kit(api, pair):
    for path in ("/hosts/web1/escrow", "/hosts/web1/recovery-kit"):
        assert api.get(path, token=api.token_of("operator")).status_code == 403
        assert api.get(path).status_code == 200
    states = api.get("/recovery/escrows", token=api.token_of("viewer")).json()["items"]
    assert [(row["host"], row["state"]) for row in states] == [("web1", "fresh")]
    assert api.get("/recovery/escrows?state=none").json()["items"] == []


def test_a_host_without_escrow_says_what_to_do(api):
    api.made("/hosts", {"name": "web9"})
    answer = api.get("/hosts/web9/recovery-kit")
    assert answer.status_code == 409
    assert "saveos recovery init" in answer.json()["detail"]


def test_the_kit_holds_all_but_the_secret(api, pair):
    _, private, repository, _ = pair
    packed = zipfile.ZipFile(io.BytesIO(api.get("/hosts/web1/recovery-kit").content))
    names = {name.partition("/")[2]: packed.read(name).decode() for name in packed.namelist()}
    own = f"repositories/{repository}"
    assert set(names) == {
        "README.txt",
        "kit.html",
        "restore.sh",
        *(f"{own}/{name}" for name in ("url", "known_hosts", "sealed", "recovery-key")),
    }
    assert names[f"{own}/known_hosts"] == f"[10.0.0.1]:2222 {HOST_KEY}\n"
    assert "c4n4ry" not in "".join(names.values())
    plain = sealing.open_sealed(base64.b64decode(names[f"{own}/sealed"]), private)
    assert json.loads(plain)["passphrase"] == PASSPHRASE
    typed = "".join(names["README.txt"].partition("UTC:\n")[2].split())
    assert typed == names[f"{own}/sealed"].strip()  # what is on paper is the whole of it


def test_text_and_page_name_the_servers_key_as_ssh_shows_it(api, pair, tmp_path):
    (tmp_path / "key.pub").write_text(f"{HOST_KEY}\n")
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    page = api.get("/hosts/web1/recovery-kit?format=html")
    assert page.headers["content-disposition"].startswith("attachment")
    for text in (page.text, api.get("/hosts/web1/recovery-kit?format=text").text):
        assert shown in text
        assert "restore.sh ssh-key" in text
    assert "<script" not in page.text


@pytest.fixture
def served(api, application, monkeypatch, tmp_path):
    """The application on a port, with the command logged in to it."""
    config = uvicorn.Config(application, port=0, lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    monkeypatch.setenv("SAVEOS_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("SAVEOS_TOKEN", api.token)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    server.should_exit = True
    thread.join(10)


def run(capsys, *words):
    """Run the command; return exit code, standard output and error."""
    code = 0
    try:
        main(list(words))
    except SystemExit as ended:
        code = ended.code or 0
    said = capsys.readouterr()
    return code, said.out, said.err


def test_open_writes_private_files(served, pair, capsys):
    (served / "key").write_text(f"{pair[1]}\n")
    code, out, err = run(capsys, "recovery", "open", "web1", "--key", "key", "--output", "secrets")
    assert code == 0, err
    assert "c4n4ry" not in out
    own = served / "secrets" / pair[2]
    assert (own / "passphrase").read_text() == f"{PASSPHRASE}\n"
    assert (own / "key-export").read_text() == KEY_EXPORT
    assert {stat.S_IMODE(path.stat().st_mode) for path in own.iterdir()} == {0o600}
    assert stat.S_IMODE((served / "secrets").stat().st_mode) == 0o700


def test_another_key_is_refused_by_name(served, pair, capsys):
    (served / "key").write_text(sealing.new_pair()[1])
    code, _, err = run(capsys, "recovery", "open", "web1", "--key", "key")
    assert code == REFUSED
    assert sealing.fingerprint(pair[0])[:16] in err
    (served / "key").write_text("nonsense")
    assert run(capsys, "recovery", "open", "web1", "--key", "key")[0] == USAGE
    assert not (served / "saveos-secrets-web1").exists()


def test_what_a_host_sealed_before_it_was_broken_into_is_still_there(served, api, pair, capsys):
    """Whoever is root on a host can seal rubbish, which is the newest escrow from then on."""
    (served / "key").write_text(pair[1])
    broken_at = now()
    newest = api.get("/hosts/web1/escrow").json()["items"][0]
    body = {"repository_id": pair[2], "recovery_key": newest["recovery_key"], "url": newest["url"]}
    rubbish = body | {"sealed": base64.b64encode(b"rubbish").decode()}
    token = api.agent_token(api.get("/hosts/web1").json()["id"])
    assert api.post("/agents/escrow", rubbish, token=token).status_code == 200
    code, _, err = run(capsys, "recovery", "open", "web1", "--key", "key", "--output", "now")
    assert (code, "--before TIME" in err) == (1, True), err
    then = ("--before", broken_at.isoformat(), "--key", "key")
    code, _, err = run(capsys, "recovery", "open", "web1", *then, "--output", "before")
    assert code == 0, err
    assert (served / "before" / pair[2] / "passphrase").read_text() == f"{PASSPHRASE}\n"
    code, _, err = run(capsys, "recovery", "kit", "web1", *then, "--output", "kit")
    assert code == 0, err
    assert run(capsys, "recovery", "open", "web1", "--before", "2001-01-01T00:00:00Z", "--key", "key")[0] != 0


def test_a_sealed_kit_opens_without_any_controller(served, pair, capsys, monkeypatch):
    assert run(capsys, "recovery", "kit", "web1")[0] == 0
    kit = served / "saveos-recovery-web1"
    assert not list(kit.rglob("passphrase"))
    assert run(capsys, "recovery", "kit", "web1")[0] == USAGE  # never over one that is there
    (served / "key").write_text(pair[1])
    monkeypatch.setenv("SAVEOS_URL", "http://127.0.0.1:9")
    code, out, err = run(capsys, "recovery", "open", "--kit", str(kit), "--key", "key")
    assert code == 0, err
    assert "restore.sh" in out
    assert (kit / "repositories" / pair[2] / "passphrase").read_text() == f"{PASSPHRASE}\n"


def test_an_opened_kit_gives_borg_what_it_needs(served, pair, capsys, tmp_path):
    """restore.sh with a borg that says how it was called; the opened kit and `--opened` give the same."""
    (served / "key").write_text(pair[1])
    run(capsys, "recovery", "kit", "web1", "--output", "opened", "--key", "key")
    run(capsys, "recovery", "kit", "web1", "--output", "sealed")
    (served / "opened.json").write_text(pair[3])
    borg = served / "borg"
    borg.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$BORG_PASSPHRASE" "$BORG_RSH"\n')
    borg.chmod(0o755)

    def restore(kit, *words, code=0):
        done = subprocess.run(
            ["sh", served / kit / "saveos-recovery-web1" / "restore.sh", *words],
            env={"PATH": "/usr/bin:/bin", "BORG": str(borg)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert "still sealed" in restore("sealed", "list", code=1)
    first = restore("opened", "list").splitlines()
    second = restore("sealed", "list", "--opened", str(served / "opened.json")).splitlines()
    assert (
        first[:3] == second[:3] == ["list", f"ssh://borg@10.0.0.1:2222/srv/repositories/{pair[2]}", PASSPHRASE]
    )
    own = f"saveos-recovery-web1/repositories/{pair[2]}"
    assert (served / "sealed" / own / "key-export").read_text() == KEY_EXPORT
    line = restore("opened", "ssh-key")
    assert f"--restrict-to-repository /srv/repositories/{pair[2]}" in line
    assert "~borg/.ssh/authorized_keys" in line
    assert "id_ed25519" in restore("opened", "list")
    assert "there is no verb" in restore("opened", "explode", code=2)
    url = served / "opened" / own / "url"
    for hostile in (
        "ssh://borg@vault/srv'; id; echo '",
        "ssh://-oProxyCommand=id/srv",
        "ssh://borg@vault/$(id)",
    ):
        url.write_text(f"{hostile}\n")
        assert "the kit's URL" in restore("opened", "ssh-key", code=1), "the line is pasted as root"


def test_init_writes_or_shows_the_private_half_once(served, api, capsys):
    code, out, err = run(capsys, "recovery", "init", "--output", "key")
    assert code == 0, err
    private = (served / "key").read_text().strip()
    assert stat.S_IMODE((served / "key").stat().st_mode) == 0o600
    assert private not in out + err
    assert api.get("/recovery").json()["key"]["fingerprint"] == sealing.fingerprint(sealing.public_of(private))
    code, _, err = run(capsys, "recovery", "init")
    assert code == REFUSED
    assert "--replace" in err
    assert run(capsys, "recovery", "init", "--replace", "--output", "key")[0] == USAGE  # never over a key
    code, out, _ = run(capsys, "recovery", "init", "--replace")
    assert api.get("/recovery").json()["key"]["public_key"] == sealing.public_of(out.strip())


def test_status_finds_what_is_not_fresh(served, pair, capsys):
    assert run(capsys, "recovery", "status")[0] == 0
    run(capsys, "recovery", "init", "--replace", "--managed")
    code, out, _ = run(capsys, "recovery", "status")
    assert code == FINDINGS
    assert "stale" in out
    assert "managed" in run(capsys, "recovery", "show")[1]
