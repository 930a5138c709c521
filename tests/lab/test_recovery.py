"""The recovery kit alone restores on a bare Debian host, and the controller holds nothing that would."""

import base64
import io
import re
import sqlite3
import subprocess
import tarfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from lab import ENVIRONMENT, Host
from support import agent, on

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / ".build" / "bundle"
BORG = "BORG=/opt/tools/borg"
SHA = "find . -type f -print0 | sort -z | xargs -0 sha256sum"


def put(host: Host, source: Path, target: str) -> None:
    """Copy a directory of this machine to a host, as a stick would."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        packed.add(source, ".")
    command = [
        "podman",
        "exec",
        "-i",
        host.container,
        "sh",
        "-c",
        'mkdir -p "$1" && tar xf - -C "$1"',
        "sh",
        target,
    ]
    subprocess.run(command, env=ENVIRONMENT, input=buffer.getvalue(), check=True, capture_output=True)


@pytest.fixture(scope="module")
def story(fleet, tmp_path_factory):
    """A recovery key, a host that sealed and was backed up, and a bare host with borg and nothing of ours."""
    away = tmp_path_factory.mktemp("away")
    key = away / "recovery.key"
    made = fleet.controller.command(
        "recovery", "init", "--output", str(key), "--replace"
    )  # another test may have one
    on(
        fleet.web,
        "mkdir -p /srv/data && head -c 300000 /dev/urandom >/srv/data/random && echo é >'/srv/data/na me'",
    )
    provisioned = fleet.controller.done("provision", "web")
    fleet.controller.done("backup", "web")
    rescue = Host(fleet.lab, "rescue", str(fleet.web.ip).rpartition(".")[0] + ".99", "trixie")
    rescue.start()
    rescue.wait_ssh()
    fleet.lab.hosts.pop("rescue", None)  # the fleet's other tests do not know it
    (archive,) = BUNDLE.glob("*.tar.gz")
    (away / "tools").mkdir()
    subprocess.run(["tar", "xf", archive, "-C", away / "tools"], check=True)
    put(rescue, away / "tools", "/opt/tools")
    entry = Path(fleet.controller.home)
    secrets = {
        name: on(fleet.web, f"cat /etc/saveos/repositories/*/{name}") for name in ("passphrase", "key-export")
    }
    return SimpleNamespace(
        fleet=fleet, away=away, key=key, made=made, job=provisioned, rescue=rescue, home=entry, secrets=secrets
    )


def test_every_repository_that_was_provisioned_is_in_escrow(story):
    items = story.fleet.controller.items("/recovery/escrows")
    states = {item["host"]: item["state"] for item in items}
    assert states["web"] == "fresh"
    assert states["bare"] == "none"  # not provisioned since: the command says so
    assert story.fleet.controller.command("recovery", "status", code=3)
    shown = story.fleet.controller.command("recovery", "show")
    assert (shown["key"]["mode"], shown["repositories"]["fresh"]) == ("offline", 1)


def test_a_second_provisioning_seals_nothing_anew(story):
    written = "stat -c %y /etc/saveos/repositories/*/sealed"
    before = story.fleet.controller.get("/hosts/web/escrow"), on(story.fleet.web, written)
    job = story.fleet.controller.done("provision", "web")
    assert (story.fleet.controller.get("/hosts/web/escrow"), on(story.fleet.web, written)) == before
    log = story.fleet.controller.http("GET", f"/jobs/{job['id']}/log?format=text").text
    assert "ok web [Seal what restoring needs to the recovery key]" in log


def test_the_opened_kit_restores_over_ssh(story):
    """Nothing but the kit, sh, borg and ssh on the rescue host; the storage server lets its new key in."""
    controller = story.fleet.controller
    controller.command(
        "recovery", "kit", "web", "--output", str(story.away / "opened"), "--key", str(story.key)
    )
    put(story.rescue, story.away / "opened" / "saveos-recovery-web", "/root/kit")
    restore = "sh /root/kit/restore.sh"
    said = on(story.rescue, f"{BORG} {restore} ssh-key")
    line = said.partition("echo ")[2].replace("\\\n", "")
    on(story.rescue, f"{BORG} {restore} list", code=2)  # not let in yet
    on(story.fleet.vault, f"echo {line}")
    newest = agent(story.fleet.web, "snapshots")["items"][-1]
    assert newest["name"] in on(story.rescue, f"{BORG} {restore} list")
    on(story.rescue, f"cd / && {BORG} {restore} restore --target /mnt/restored /srv/data")
    assert on(story.rescue, f"cd /mnt/restored/srv/data && {SHA}") == on(
        story.fleet.web, f"cd /srv/data && {SHA}"
    )
    on(story.rescue, f"{BORG} {restore} restore --target /mnt/restored", code=1)  # never over what is there


def test_the_sealed_kit_restores_from_a_copy_of_the_repository(story):
    """Stored kit, the bundle's saveos-seal and the private half: no command of ours, no server."""
    story.fleet.controller.command("recovery", "kit", "web", "--output", str(story.away / "sealed"))
    kit = story.away / "sealed" / "saveos-recovery-web"
    put(story.rescue, kit, "/root/sealed kit")
    assert "still sealed" in on(story.rescue, f"{BORG} sh '/root/sealed kit/restore.sh' list", code=1)
    (own,) = (kit / "repositories").iterdir()
    (story.away / "copy").mkdir()
    packed = subprocess.run(
        ["podman", "exec", story.fleet.vault.container, "tar", "c", "-C", "/srv/saveos/repositories", own.name],
        env=ENVIRONMENT,
        capture_output=True,
        check=True,
    ).stdout
    subprocess.run(["tar", "x", "-C", story.away / "copy"], input=packed, check=True)
    put(story.rescue, story.away / "copy" / own.name, "/mnt/copy")
    on(story.rescue, "cat >/root/key", stdin=story.key.read_text())
    opened = f"/opt/tools/saveos-seal open --key /root/key <'/root/sealed kit/repositories/{own.name}/sealed'"
    on(story.rescue, f"umask 077; {opened} >/root/opened.json")
    command = (
        f"{BORG} sh '/root/sealed kit/restore.sh' restore --repository /mnt/copy --opened /root/opened.json"
    )
    on(story.rescue, f"{command} --target /mnt/second srv/data/random")
    assert on(story.rescue, "cd /mnt/second && find . -type f") == "./srv/data/random"
    assert on(story.rescue, "sha256sum </mnt/second/srv/data/random") == on(
        story.fleet.web, "sha256sum </srv/data/random"
    )
    key = on(story.rescue, f"cat '/root/sealed kit/repositories/{own.name}/key-export'")
    assert key == story.secrets["key-export"]


def test_import_key_mends_a_repository_whose_key_was_changed(story):
    """Whoever holds a host can change the passphrase of its repository; the kit's key export undoes it."""
    put(story.rescue, story.away / "copy", "/mnt/harmed")
    (own,) = (path.name for path in (story.away / "copy").iterdir())
    known = "BORG_PASSPHRASE=$(cat /root/kit/repositories/*/passphrase) BORG_RELOCATED_REPO_ACCESS_IS_OK=yes"
    change = f"/opt/tools/borg key change-passphrase /mnt/harmed/{own}"
    on(story.rescue, f"export {known}; BORG_NEW_PASSPHRASE=other BORG_BASE_DIR=/root/other {change}")
    restore = f"{BORG} sh /root/kit/restore.sh"
    assert "passphrase" in on(story.rescue, f"{restore} list --repository /mnt/harmed/{own}", code=2).lower()
    on(story.rescue, f"{restore} import-key --repository /mnt/harmed/{own}")
    on(story.rescue, f"{restore} list --repository /mnt/harmed/{own}")


def test_the_private_half_and_the_secrets_are_nowhere_on_the_controller(story):
    """Every file of the home and every value of the database, packed ones unpacked, in several spellings."""
    wanted = {"recovery key": story.key.read_text().strip(), "passphrase": story.secrets["passphrase"]}
    body = "".join(story.secrets["key-export"].splitlines()[1:])
    wanted["key export"] = body[40:104]
    spelled = {
        f"{name} as {form}": text
        for name, value in wanted.items()
        for form, text in {
            "it is": value.encode(),
            "base64": base64.b64encode(value.encode())[:40],
            "hex": value.encode().hex().encode(),
        }.items()
    }
    control = story.made["public_key"].encode()  # the public half is there: so the search finds what is
    places = set()

    def clean(content: bytes, where: str) -> None:
        for name, text in spelled.items():
            assert text not in content, f"{name} is in {where}"
        if control in content:
            places.add(where)

    for path in [story.fleet.controller.log, *story.home.rglob("*")]:
        if path.is_file():
            clean(path.read_bytes(), str(path))
    with sqlite3.connect(f"file:{story.home / 'saveos.db'}?mode=ro", uri=True) as database:
        tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            for row in database.execute(f'select * from "{table}"'):
                for value in row:
                    raw = value if isinstance(value, bytes) else str(value).encode(errors="replace")
                    clean(raw, table)
                    try:
                        clean(zlib.decompress(raw), f"{table}, unpacked")
                    except zlib.error:
                        continue
    assert "recovery_keys" in places
    assert any(place.startswith(str(story.home / "saveos.db")) for place in places)
    assert re.search("[A-Za-z0-9_-]{40}", wanted["passphrase"])  # what was looked for is what is there
