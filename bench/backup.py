"""A backup through HTTP against bare `borg create` of the same files, by the same borg over the same SSH."""

import argparse

from fleet import Fleet, start_fleet
from support import on

from bench.common import Table, more, ratio, seconds, timed

MAKE = """
mkdir -p /srv/data && cd /srv/data && python3 - "$1" "$2" <<'END'
import os, random, sys
random.seed(1)
for number in range(int(sys.argv[1])):
    if number % 500 == 0:
        folder = f"{number // 500:04d}"
        os.mkdir(folder)
    size = int(int(sys.argv[2]) * random.uniform(0.5, 1.5))
    with open(f"{folder}/{number:06d}", "wb") as file:
        file.write(random.randbytes(size // 2) + b"the same text again and again " * (size // 60))
END
"""
BARE = """
export BORG_REPO=ssh://root@$1/srv/bare BORG_PASSPHRASE=bench BORG_BASE_DIR=/root/bare LANG=C.UTF-8
known=/root/bare/known_hosts
export BORG_RSH="ssh -i /etc/saveos/ssh/id_ed25519 -o BatchMode=yes -o UserKnownHostsFile=$known"
export BORG_REMOTE_PATH=$2
exec /opt/saveos/bin/borg
"""


def flags(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's flags."""
    parser.add_argument("--files", type=int, default=50_000, help="files to back up")
    parser.add_argument("--file-size", type=int, default=18_000, help="mean bytes of a file")
    parser.add_argument("--repeats", type=int, default=3, help="backups of the unchanged tree")


def run(options: argparse.Namespace) -> Table:
    """Measure both, first and unchanged, in turn."""
    aim = "Aim: unchanged at most 3 s more; first at most 1.25 times."
    title = f"Backup of {options.files:,} files: HTTP job against bare borg create"
    table = Table(title, ("backup", "bare borg", "HTTP job", "ratio", "more"), aim)
    with start_fleet({"vault": "bookworm", "web": "bookworm"}) as fleet:
        on(fleet.web, "rm -rf /srv/data")
        on(fleet.web, MAKE, str(options.files), str(options.file_size), seconds=600)
        bare_borg = prepare_bare(fleet)
        on(
            fleet.web, "find /srv/data -type f -exec cat {} + | wc -c", seconds=600
        )  # both start with warm pages
        bare, job = [bare_backup(fleet, bare_borg)], [http_backup(fleet)]
        table.add("first", seconds(bare), seconds(job), ratio(job, bare), more(job, bare))
        bare, job = [], []
        for _ in range(options.repeats):
            bare.append(bare_backup(fleet, bare_borg))
            job.append(http_backup(fleet))
        table.add("unchanged", seconds(bare), seconds(job), ratio(job, bare), more(job, bare))
    return table


def prepare_bare(fleet: Fleet) -> str:
    """Make a repository of the same kind, reached as root with the agent's key; return the server's borg."""
    borg = on(fleet.vault, r"""sed -n 's/^command="\([^ ]*\) serve.*/\1/p' /srv/saveos/.ssh/authorized_keys""")
    key = on(fleet.web, "cat /etc/saveos/ssh/id_ed25519.pub")
    on(fleet.vault, 'echo "$1" >> /root/.ssh/authorized_keys2', key)
    known = f"{fleet.vault.ip} {fleet.vault.host_key()}\n"
    on(fleet.web, "mkdir -p /root/bare && cat > /root/bare/known_hosts", stdin=known)
    on(fleet.web, f"{BARE.strip()} init --encryption repokey-blake2", fleet.vault.ip, borg)
    return borg


def bare_backup(fleet: Fleet, borg: str) -> float:
    """Time `borg create` with the options that the policy has."""
    create = f"{BARE.strip()} create --compression zstd,3 --exclude-caches ::{{now:%Y%m%dT%H%M%S.%f}} /srv/data"
    return timed(lambda: on(fleet.web, create, fleet.vault.ip, borg, seconds=3000))


def http_backup(fleet: Fleet) -> float:
    """Time a job from its POST to the final frame of its event stream."""

    def act() -> None:
        job = fleet.controller.ask("backup", "web")
        state = ""
        for _, event, data in fleet.controller.events(job["id"], 3000):
            state = data["state"] if event == "state" else state
        assert state == "succeeded", fleet.controller.story(fleet.controller.ended(job))

    return timed(act)
