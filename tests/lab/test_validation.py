"""Validation finds each of the planted faults and nothing else, and mends those that it says it can.

One story on a fleet that no other test has touched, because what others leave, such as a foreign key, is a true
finding (conftest.py puts this file first): healthy, all faults at once, mended. FAULTS is the list. By
which doors it is asked for is in test_operation_doors.py.
"""

import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support import on

pytestmark = pytest.mark.lab

HOSTS = ("bare", "cron", "vault", "web")
ASKED = {"roots": ["/srv/stacks"], "names": ["registry.lab"], "certificates": ["/etc/letsencrypt/live"]}
STACKS = "/srv/stacks"
PASSPHRASE, KEYS = "/etc/saveos/repositories/{web}/passphrase", "/srv/saveos/.ssh/authorized_keys"
STORE = "/srv/saveos/repositories"
CONFIG = "/etc/saveos/borgmatic/{web}.yaml"
# (host, the finding's id, its subject, how the fault is planted, whether --fix mends it); {web}, {bare} and
# {cron} are the hosts' repositories
FAULTS = [
    ("web", "passphrase-wrong", "{web}", f"echo wrong > {PASSPHRASE}", False),
    ("web", "secret-permissions", PASSPHRASE, f"chmod 0644 {PASSPHRASE}", True),
    ("web", "secret-missing", "/etc/saveos/token", "rm /etc/saveos/token", False),
    (
        "web",
        "source-missing",
        "/srv/gone",
        f"sed -i 's|^source_directories:|&\\n- /srv/gone\\n- /srv/hollow|' {CONFIG}",
        False,
    ),
    ("web", "source-empty", "/srv/hollow", "mkdir /srv/hollow", False),
    ("web", "timer-off", "saveos-backup.timer", "systemctl disable --quiet --now saveos-backup.timer", True),
    (
        "web",
        "timer-never",
        "saveos-heartbeat.timer",
        "mkdir -p /etc/systemd/system/saveos-heartbeat.timer.d; printf "
        "'[Timer]\\nOnCalendar=\\nOnCalendar=2001-01-01\\n' "
        "> /etc/systemd/system/saveos-heartbeat.timer.d/lab.conf; systemctl daemon-reload; "
        "systemctl restart saveos-heartbeat.timer",
        False,
    ),
    (
        "web",
        "unit-not-reloaded",
        "saveos-heartbeat.service",  # an active timer keeps it loaded
        "sleep 1; echo '# by hand' >> /etc/systemd/system/saveos-heartbeat.service",
        True,
    ),
    (
        "web",
        "disk-full",
        "/srv/full",
        "mkdir /srv/full; mount -t tmpfs -o size=1m none /srv/full; cat /dev/zero > "
        "/srv/full/zero 2>/dev/null || true",
        False,
    ),
    (
        "web",
        "inodes-full",
        "/srv/nodes",
        "mkdir /srv/nodes; mount -t tmpfs -o size=4m,nr_inodes=8 none /srv/nodes; touch "
        "/srv/nodes/1 /srv/nodes/2 "
        "/srv/nodes/3 /srv/nodes/4 /srv/nodes/5 /srv/nodes/6 /srv/nodes/7 /srv/nodes/8 2>/dev/null || true",
        False,
    ),
    (
        "web",
        "sshd-config",
        "/etc/ssh/sshd_config",
        "echo 'Nonsense yes' > /etc/ssh/sshd_config.d/99-lab.conf",
        False,
    ),
    (
        "web",
        "ssh-certificate-expired",
        "/etc/ssh/ssh_host_ed25519_key-cert.pub",
        "ssh-keygen -q -t ed25519 -N '' -f /root/lab-ca; ssh-keygen -q -s /root/lab-ca -I lab -h -V -3d:-1d "
        "/etc/ssh/ssh_host_ed25519_key.pub",
        False,
    ),
    ("web", "tls-certificate-expired", "/etc/letsencrypt/live/old/cert.pem", "certificate:old:-1", False),
    ("web", "tls-certificate-ends", "/etc/letsencrypt/live/soon/cert.pem", "certificate:soon:5", False),
    (
        "web", "dns-fails", "registry.lab",
        "grep -v registry.lab /etc/hosts > /root/h; cat /root/h > /etc/hosts",
        False,
    ),
    (
        "web",
        "compose-invalid",
        f"{STACKS}/broken/compose.yml",
        f"mkdir {STACKS}/broken; printf 'services:\\n  web:\\n\\timage: nginx\\n' > "
        f"{STACKS}/broken/compose.yml",
        False,
    ),
    (
        "web",
        "compose-variable-missing",
        f"{STACKS}/shop/compose.yml: TAG",
        f"sed -i 's|nginx:1|nginx:$TAG|' {STACKS}/shop/compose.yml",
        False,
    ),
    (
        "web",
        "compose-password-default",
        f"{STACKS}/shop/compose.yml: POSTGRES_PASSWORD",
        f"sed -i 's|POSTGRES_PASSWORD: .*|POSTGRES_PASSWORD: changeme|' {STACKS}/shop/compose.yml",
        False,
    ),
    (
        "web",
        "compose-port-conflict",
        f"{STACKS}/shop/compose.yml: 8080/tcp",
        f"sed -i 's|8081:80|8080:80|' {STACKS}/shop/compose.yml",
        False,
    ),
    ("web", "compose-file-missing", f"{STACKS}/shop/compose.yml: ./site", f"rmdir {STACKS}/shop/site", False),
    ("web", "env-permissions", f"{STACKS}/shop/.env", f"chmod 0644 {STACKS}/shop/.env", True),
    ("web", "env-invalid", f"{STACKS}/shop/.env", f"echo 'no assignment' >> {STACKS}/shop/.env", False),
    ("bare", "config-invalid", "/etc/saveos/borgmatic/{bare}.yaml", "echo 'nonsense: 1' >> {subject}", False),
    (
        "bare",
        "server-host-key",
        "{bare}",
        "ssh-keygen -q -t ed25519 -N '' -f /root/other; read name key < /etc/saveos/ssh/known_hosts; "
        'echo "$name $(cut -d" " -f1,2 /root/other.pub)" > /etc/saveos/ssh/known_hosts',
        False,
    ),
    (
        "bare", "time-zone-broken", "/etc/localtime",
        "ln -sf /usr/share/zoneinfo/Mars/Base /etc/localtime",
        False,
    ),
    ("bare", "dns-none", "/etc/resolv.conf", "cp /etc/resolv.conf /root/r; echo > /etc/resolv.conf", False),
    ("bare", "state-missing", "/var/lib/saveos-agent/restores", "mv {subject} /root/restores", True),
    ("bare", "temporary-directory", "/var/tmp", "chmod 0755 /var/tmp", True),
    ("cron", "cron-missing", "/etc/cron.d/saveos-backup", "mv /etc/cron.d/saveos-backup /root/", False),
    ("cron", "cron-stopped", "cron", "pkill -x cron; sleep 1", True),
    ("cron", "config-missing", "/etc/saveos/borgmatic/{cron}.yaml", "rm {subject}", False),
    (
        "cron", "program-missing", "/opt/saveos/bin/borgmatic",
        "mv /opt/saveos/bin/borgmatic /root/borgmatic",
        False,
    ),
    ("cron", "key-export-missing", "/etc/saveos/repositories/{cron}/key-export", "rm {subject}", True),
    ("vault", "authorized-key-missing", "{bare}", f"sed -i /saveos:{{bare}}/d {KEYS}", True),
    ("vault", "authorized-key-differs", "{web}", f"sed -i '/saveos:{{web}}/s/ --append-only//' {KEYS}", True),
    ("vault", "authorized-key-foreign", "lab@foreign", f"cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub | "
     f"sed 's/$/ lab@foreign/' >> {KEYS}", False),
    ("vault", "server-permissions", KEYS, f"chmod 0644 {KEYS}", True),
    ("vault", "repository-permissions", f"{STORE}/{{cron}}", f"chmod 0755 {STORE}/{{cron}}", True),
    ("vault", "repository-foreign", "{web}", f"touch {STORE}/{{web}}/lab", False),
]  # fmt: skip
COMPOSE = """\
services:
  web:
    image: nginx:1
    ports: ["8080:80"]
    volumes: [./site:/usr/share/nginx/html:ro]
    depends_on: [database]
  admin:
    image: nginx:1
    ports:
      - "8081:80"
  database:
    image: postgres:17   # the shop's
    environment:
      POSTGRES_PASSWORD: ${SHOP_PASSWORD}
    volumes:
      - data:/var/lib/postgresql/data
volumes:
  data:
"""
KEEP = {
    "agent": "cp -a /etc/saveos /root/kept-saveos",
    "web": "cp -a /etc/systemd/system/saveos-heartbeat.service /root/",
    "vault": f"cp -a {KEYS} /root/kept-keys",
}
PUT_BACK = {
    "agent": "[ ! -e /root/kept-saveos ] || { rm -rf /etc/saveos && mv /root/kept-saveos /etc/saveos; }",
    "web": f"umount /srv/full /srv/nodes; rm -rf /srv/full /srv/nodes /srv/hollow {STACKS}/* "
    "/etc/letsencrypt /root/lab-ca* "
    "/etc/ssh/sshd_config.d/99-lab.conf /etc/ssh/*-cert.pub "
    "/etc/systemd/system/saveos-heartbeat.timer.d /root/h; "
    "mv /root/saveos-heartbeat.service /etc/systemd/system/; systemctl daemon-reload; "
    "systemctl enable -q --now saveos-backup.timer; systemctl restart saveos-heartbeat.timer",
    "bare": "ln -sf /usr/share/zoneinfo/Etc/UTC /etc/localtime; [ ! -e /root/r ] || cat /root/r "
    "> /etc/resolv.conf; "
    "chmod 1777 /var/tmp; rm -rf /root/other* /root/r /root/restores; mkdir -p -m 700 "
    "/var/lib/saveos-agent/restores",
    "cron": "[ ! -e /root/saveos-backup ] || mv /root/saveos-backup /etc/cron.d/; "
    "[ ! -L /root/borgmatic ] || mv /root/borgmatic /opt/saveos/bin/; service "
    "cron start > /dev/null",
    "vault": f"mv /root/kept-keys {KEYS}; chmod 0640 {KEYS}; chmod 0700 {STORE}/*; rm -f {STORE}/*/lab",
}
# contents, rights and owners of what validation looks at; not what heartbeats, Borg's cache and the guard write
LOOK = (
    "find /etc /opt /srv /root /var/spool /var/tmp /var/lib/saveos-agent /var/lib/saveos-maintenance "
    "-xdev \\( -path /root/.ansible -o -path /root/.ssh -o -path /var/lib/saveos-agent/borg -o "
    "-path /var/lib/saveos-agent/spool -o -path '/var/lib/saveos-agent/*.json' -o -path /srv/saveos/.guard -o "
    "-name 'tmp*' \\) -prune -o "
)
CHECKSUM = (
    f"{{ {LOOK} -type f -exec sha256sum {{}} + ; {LOOK} -printf '%p %m %U %l\\n'; }} "
    "2>/dev/null | sort | sha256sum"
)


@pytest.fixture(scope="module")
def ground(fleet):
    """The fleet, with a healthy stack on web; whatever a test broke is whole again afterwards."""
    for name in HOSTS:
        host = getattr(fleet, name)
        on(host, f"echo '127.0.0.1 registry.lab' >> /etc/hosts; mkdir -p {STACKS}")
        for kind in (*(["agent"] if name != "vault" else []), name):
            on(host, KEEP.get(kind, "true"))
    on(fleet.web, f"mkdir -p {STACKS}/shop/site && cat > {STACKS}/shop/compose.yml", stdin=COMPOSE)
    on(fleet.web, f"umask 077; echo SHOP_PASSWORD=$(openssl rand -hex 12) > {STACKS}/shop/.env")
    yield fleet
    for name in HOSTS:
        host = getattr(fleet, name)
        for kind in (*(["agent"] if name != "vault" else []), name):
            on(host, PUT_BACK[kind], code=None)
        on(host, "grep -v registry.lab /etc/hosts > /root/h; cat /root/h > /etc/hosts; rm /root/h", code=None)


def certificate(days):
    """Return a certificate that ends in so many days, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=90))
    built = built.not_valid_after(now + datetime.timedelta(days=days))
    return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def told(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a host's record in a job."""
    record: dict[str, Any] = job["by_host"][name]["result"]["validation"]
    return record


def validated(ground, mode="run", **more):
    """Run the operation on every host and return the job."""
    job = ground.controller.ended(ground.controller.ask("validation", *HOSTS, mode=mode, **(ASKED | more)))
    assert job["state"] == "succeeded", ground.controller.story(job)
    return job


def found(job: dict[str, Any]) -> dict[tuple[str, str, str], bool]:
    """Return the findings of a job, by host, id and subject, with whether they were fixed."""
    return {
        (name, each["id"], each["subject"]): each["fixed"]
        for name in HOSTS
        for each in told(job, name)["findings"]
    }


def wanted(ground) -> dict[tuple[str, str, str], bool]:
    """Return the faults as findings, with whether they are fixable."""
    ids = {name: on(getattr(ground, name), "ls /etc/saveos/repositories") for name in ("web", "bare", "cron")}
    return {(host, kind, subject.format(**ids)): fixable for host, kind, subject, _, fixable in FAULTS}


def plant_all(ground) -> None:
    """Plant every fault, with one script for each host."""
    ids = {name: on(getattr(ground, name), "ls /etc/saveos/repositories") for name in ("web", "bare", "cron")}
    scripts: dict[str, list[str]] = {name: [] for name in HOSTS}
    for host, _, subject, plant, _ in FAULTS:
        place = subject.format(**ids)
        if plant.startswith("certificate:"):
            pem = certificate(int(plant.split(":")[2]))
            script = f"mkdir -p $(dirname {place}) && echo '{pem}' > {place}"
        else:
            script = plant.replace("{subject}", place)
            for name, identity in ids.items():
                script = script.replace(f"{{{name}}}", identity)
        scripts[host].append(f"(\n{script}\n) || {{ echo 'not planted: {place}'; exit 1; }}")
    for name, lines in scripts.items():
        on(getattr(ground, name), "\n".join(lines))


def test_healthy_hosts_have_no_finding(ground):
    """A fleet that was provisioned, with a healthy stack; the look leaves everything as it was."""
    before = {name: on(getattr(ground, name), CHECKSUM) for name in HOSTS}
    job = validated(ground, "check", fixes=["all"])
    assert found(job) == {}, found(job)
    assert all(told(job, name)["state"] == "ok" for name in HOSTS)
    for name in HOSTS:
        assert on(getattr(ground, name), CHECKSUM) == before[name], name


def test_each_planted_fault_is_found_and_what_can_be_is_mended(ground):
    """All faults at once are exactly what is found; a check shows the fixes, a run makes them, once."""
    controller, expected = ground.controller, wanted(ground)
    assert len(expected) == len(FAULTS) >= 25
    plant_all(ground)
    before = {name: on(getattr(ground, name), CHECKSUM) for name in HOSTS}
    foreseen = validated(ground, "check", fixes=["all"])
    assert found(foreseen) == expected, set(found(foreseen).items()) ^ set(expected.items())
    for name in HOSTS:
        assert on(getattr(ground, name), CHECKSUM) == before[name], name
    diff = controller.http("GET", f"/jobs/{foreseen['id']}/log?format=text").text
    assert "mode 0644" in diff
    assert "+command=" in diff.replace(" ", "")
    open_ = controller.items("/maintenance/findings?operation=validation")
    assert {(each["host"], each["kind"], each["subject"]) for each in open_} == set(expected)

    mended = validated(ground, fixes=["all"])
    assert found(mended) == expected
    again = validated(ground, fixes=["all"])
    assert set(found(again)) == {key for key, fixable in expected.items() if not fixable}
    assert all(row["counts"].get("changed", 0) == 0 for row in again["by_host"].values())
    assert on(ground.web, f"stat -c %a {STACKS}/shop/.env") == "640"
    assert on(ground.vault, f"grep -c -- --append-only {KEYS}") == "3"
    assert on(ground.web, "systemctl is-active saveos-backup.timer") == "active"
    assert "authorized_keys" in on(ground.vault, "ls /var/lib/saveos-maintenance/validation/*/")

    for name in HOSTS:
        for kind in (*(["agent"] if name != "vault" else []), name):
            on(getattr(ground, name), PUT_BACK[kind], code=None)
    on(ground.web, "echo '127.0.0.1 registry.lab' >> /etc/hosts")
    assert found(validated(ground, roots=["/srv"])) == {}
    assert controller.items("/maintenance/findings?operation=validation") == []
