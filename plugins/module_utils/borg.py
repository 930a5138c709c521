# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Borg on a host: run it as the backup does, and say what its errors mean."""

from __future__ import annotations

import json
import re
import shlex

from ansible_collections.saveos.fleet.plugins.module_utils.converge import run
from ansible_collections.saveos.fleet.plugins.module_utils.policy import ssh_command

CONNECT_SECONDS = 120

MEANING = {
    "Repository.DoesNotExist": "there is no repository at {url}",
    "Repository.PathPermissionDenied": (
        "the storage server's user may not write at {url}: run playbooks/server.yml"
    ),
    "Repository.ParentPathDoesNotExist": "the parent directory of {url} does not exist: make it",
    "Repository.AlreadyExists": "there is something else at {url}, which is no empty directory: move it away",
    "Repository.InvalidRepository": (
        "what lies at {url} is no valid repository: move it away, or restore it from a copy"
    ),
    "PassphraseWrong": (
        "the passphrase on this host does not open {url}, which was made with another one: put the right "
        "passphrase in "
        "{secrets}/passphrase (recovery kit), or choose another id or path for the repository"
    ),
    "PasscommandFailure": "the passphrase in {secrets}/passphrase cannot be read: run playbooks/site.yml again",
    "Cache.RepositoryAccessAborted": (
        "borg knows {url} by another address or its repository was replaced: if you moved it on purpose, run "
        "`BORG_RELOCATED_REPO_ACCESS_IS_OK=yes borg info {url}` on the host once"
    ),
    "LockTimeout": "another borg holds the lock of {url}: let it end and run this again",
}
SSH_MEANING = (
    (
        "Host key verification failed",
        "the storage server shows another SSH host key than the one pinned in known_hosts",
    ),
    (
        "REMOTE HOST IDENTIFICATION",
        "the storage server shows another SSH host key than the one pinned in known_hosts",
    ),
    ("Permission denied", "the storage server refuses this host's SSH key: run playbooks/site.yml for both"),
    ("No space left", "the disk of the storage server is full: free some space there"),
    (
        "Could not resolve",
        "the storage server's name cannot be resolved on this host: set server_address to what it can reach",
    ),
    (
        "Connection refused",
        "nothing listens for SSH on the storage server's port: check server_port and sshd there",
    ),
    ("timed out", "the storage server cannot be reached from this host: check address, route and firewall"),
    (
        "No route to host",
        "the storage server cannot be reached from this host: check address, route and firewall",
    ),
)

# what borgmatic's validation says after the value it quotes
REASON = re.compile(
    r"(?:is not of type .*|is not one of .*|is too \w+|does not match .*|'\w+' is a required property"
    r"|Additional properties are not allowed .*)$"
)


class BorgError(Exception):
    """A borg command that failed: borg's own code (or an empty string) and a sentence."""

    def __init__(self, code, sentence):
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


def explain(stderr, url, secrets):
    """Borg's JSON log as (code, sentence)."""
    code, said = "", []
    for line in stderr.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            said.append(line)
            continue
        if not isinstance(entry, dict):
            continue
        said.append(str(entry.get("message", "")))
        if entry.get("levelname") in ("ERROR", "CRITICAL") and entry.get("msgid"):
            code = code or entry["msgid"]
    text = "\n".join(said)
    sentence = next((meaning for word, meaning in SSH_MEANING if word in text), "")
    if code in MEANING:
        sentence = MEANING[code].format(url=url, secrets=secrets)
    return code, sentence or f"borg says about {url}: {text.strip()[-400:] or 'nothing'}"


def complaint(output):
    """borgmatic's reasons by option, without the values that it quotes: they may be secret."""
    told = []
    for line in output.splitlines():
        place, _, reason = line.strip().partition(": ")
        if place.startswith("At ") and reason:
            told.append(f"{place[3:]} {next(iter(REASON.findall(reason)), 'is not valid')}")
    return "; ".join(dict.fromkeys(told)) or "it gives no reason that can be shown without showing values"


class Borg:
    """Borg for one repository of this host."""

    def __init__(self, binary, etc, state, repository):
        self.binary = binary
        self.url = repository["url"]
        self.ssh = []
        if repository["kind"] == "ssh":
            target = f"{repository['user']}@{repository['address']}"
            self.ssh = [*shlex.split(ssh_command(etc)), "-T", "-p", str(repository["port"]), "--", target]
        self.secrets = f"{etc}/repositories/{repository['id']}"
        self.environment = {
            "BORG_PASSCOMMAND": shlex.join(["cat", f"{self.secrets}/passphrase"]),
            "BORG_BASE_DIR": f"{state}/borg",
            "BORG_RSH": ssh_command(etc),
            "BORG_EXIT_CODES": "modern",
            "BORG_DISPLAY_PASSPHRASE": "no",
        }

    def __call__(self, *arguments):
        """Standard output of a borg command; raises BorgError."""
        result = run([self.binary, "--log-json", *arguments], env=self.environment, timeout=CONNECT_SECONDS)
        if result.returncode == 0:
            return result.stdout
        told = result.stderr
        if self.ssh and "ConnectionClosed" in told:  # borg often closes before it has read ssh's words
            told += run(self.ssh, timeout=30).stderr
        raise BorgError(*explain(told, self.url, self.secrets))
