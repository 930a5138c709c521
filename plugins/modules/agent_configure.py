#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.borg import Borg, BorgError, complaint
from ansible_collections.saveos.fleet.plugins.module_utils.converge import Converge, init_system, read, run
from ansible_collections.saveos.fleet.plugins.module_utils.ssh_keys import parse_key

DOCUMENTATION = r"""
module: agent_configure
short_description: Put a host's policy in place and its repositories at its disposal
version_added: 0.1.0
author: The SaveOS contributors (@saveos)
description:
  - Pins the storage server's host keys, writes the borgmatic configurations once borgmatic finds them valid,
    makes each repository
    that does not exist yet, and exports its key.
  - A repository that existed once and is gone is never made anew; the module fails and says what to do.
options:
  etc:
    description: The agent's configuration directory.
    type: str
    required: true
  state:
    description: The agent's state directory.
    type: str
    required: true
  agent:
    description: Contents of agent.json less what the host knows itself.
    type: dict
    required: true
  repositories:
    description: The host's repositories, as the filter P(saveos.fleet.agent_repositories#filter) completes
      them.
    type: list
    elements: dict
    required: true
  configs:
    description: By repository id, the text of its borgmatic configuration. It may hold secrets.
    type: dict
    required: true
  hooks:
    description: By path, the commands that the configurations run around a backup. They may hold secrets.
    type: dict
    default: {}
  passwords:
    description: By path, the passwords of databases; null keeps the one that is there.
    type: dict
    default: {}
attributes:
  check_mode: {support: full, description: Says what would be made; a diff shows no value that may be secret.}
"""

EXAMPLES = r"""
- name: Put the policy in place
  saveos.fleet.agent_configure:
    etc: /etc/saveos
    state: /var/lib/saveos-agent
    agent: {schema: 1, host: web1}
    repositories: "{{ repositories }}"
    configs: "{{ repositories | saveos.fleet.borgmatic_configs(policy) }}"
"""

RETURN = r"""
saveos:
  description: State of each repository.
  returned: success
  type: dict
  sample: {repositories: [{id: 0198c5f0, url: ssh://saveos-borg@vault1:22/srv/saveos, initialised: true,
    key_exported: true}]}
"""

BORG = "/opt/saveos/bin/borg"
BORGMATIC = "/opt/saveos/bin/borgmatic"
# top-level options whose values a diff may show; any other may hold a secret (hooks, passwords, ping addresses)
SHOWN = re.compile(
    r"(source_directories|repositories|exclude_\w+|compression|keep_\w+|archive_name_format|match_archives|checks"
    r"|local_path|ssh_command|upload_rate_limit|lock_wait|borg_base_directory|user_state_directory|bootstrap"
    r"|unsafe_skip_path_validation_before_create):|encryption_passphrase: .?\{credential file "
)


def showable(text):
    """A borgmatic configuration with the values of all but the harmless options hidden."""
    shown, hidden = [], False
    for line in text.splitlines():
        if line[:1] not in ("", " ", "-", "#"):
            hidden = not SHOWN.match(line)
            if hidden:
                shown.append(line.partition(":")[0] + ": (hidden)")
        if not hidden:
            shown.append(line)
    return "".join(line + "\n" for line in shown)


def known_hosts_name(repository):
    """How OpenSSH names the server in known_hosts."""
    address, port = repository["address"], int(repository["port"])
    return address if port == 22 else f"[{address}]:{port}"


def pinned(text, repositories):
    """known_hosts with the keys this run knows; keys pinned earlier stay for servers that were not part of it.

    Raises ValueError for a server whose key nobody knows.
    """
    earlier = {}
    for line in text.splitlines():
        name, _, key = line.partition(" ")
        earlier.setdefault(name, []).append(key)
    lines = []
    for repository in repositories:
        if repository["kind"] != "ssh":
            continue
        name = known_hosts_name(repository)
        keys = [parse_key(key) for key in repository["host_keys"]] or earlier.get(name)
        if not keys:
            raise ValueError(
                f"the SSH host key of {name} is not known: run playbooks/site.yml for this host and its "
                "storage server together, "
                "or give the repository its host_keys"
            )
        lines += [f"{name} {key}\n" for key in keys]
    return "".join(dict.fromkeys(lines))


def write_configs(host, configs):
    """Have borgmatic judge what changed; only then put it in place."""
    changed = {file: text for file, text in configs.items() if read(file) != text}
    if changed and os.path.exists(BORGMATIC):
        with tempfile.TemporaryDirectory(prefix="saveos-") as directory:  # 0700: the texts may hold secrets
            for number, text in enumerate(changed.values()):
                trial = f"{directory}/{number}.yaml"
                with open(trial, "w", encoding="utf-8") as file:
                    file.write(text)
                verdict = run([BORGMATIC, "config", "validate", "--config", trial], timeout=180)
                if verdict.returncode == 124:
                    host.fail(
                        "borgmatic did not judge the policy in three minutes: the host is too busy, try later"
                    )
                if verdict.returncode:
                    host.fail(
                        "borgmatic refuses the policy; correct agent_* or agent_borgmatic_overrides: "
                        f"{complaint(verdict.stdout + verdict.stderr)}"
                    )
    for file, text in configs.items():
        host.file(file, text, 0o600, show=showable)


def write_hooks(host, directory, hooks):
    """Put the hooks' files in place; they are run by their names."""
    if hooks or os.path.isdir(directory):
        host.directory(directory, 0o700)
    for file, command in hooks.items():
        host.file(file, command + "\n", 0o600, show=False)


def write_passwords(host, directory, passwords):
    """Put the databases' passwords in place; fails where one is to stay that is not there."""
    if passwords or os.path.isdir(directory):
        host.directory(directory, 0o700)
    for file, password in passwords.items():
        if password is not None:
            host.file(file, password + "\n", 0o600, show=False)
        elif not os.path.exists(file):
            host.fail(
                f"the password of a database is not known here and {file} does not exist: provision this host "
                "from the controller, or set its password in agent_databases"
            )


def ensure_repository(host, borg, repository):
    """Make the repository, unless it is there; returns whether it is initialised.

    The marker remembers which passphrase opened the repository, so that another one is noticed without asking
    the server.
    """
    marker, exists = f"{borg.secrets}/initialised", repository["exists"]
    if repository["kind"] == "local":
        exists = os.path.exists(f"{repository['path']}/config")
    passphrase = read(f"{borg.secrets}/passphrase") or ""
    seen = f"{repository['url']} {hashlib.sha256(passphrase.encode()).hexdigest()}\n"
    made = read(marker)
    if made is not None and exists is False:
        host.fail(
            f"repository {repository['id']} is gone: it was made at {made.split()[0]} and is not there "
            "any more. Put it back (a copy, a mount, the old server); or, if its archives are lost, remove "
            f"{marker} on the host to begin anew"
        )
    if made == seen:
        return True
    if host.module.check_mode:
        host.note(
            repository["url"],
            "",
            "Borg repository, repokey-blake2\n" if made is None else "opened with a new passphrase\n",
        )
        return made is not None
    if made is not None or exists or not make(host, borg, repository):
        borg("info", borg.url)  # there already: does our passphrase open it?
    host.file(marker, seen, 0o600, show=False)
    return True


def make(host, borg, repository):
    """Run borg init; returns False where there is a repository already."""
    quota = (
        ["--storage-quota", str(repository["quota"])]
        if repository["kind"] == "local" and repository["quota"]
        else []
    )
    parents = ["--make-parent-dirs"] if repository["kind"] == "local" else []
    try:
        borg("init", "--encryption", "repokey-blake2", *quota, *parents, borg.url)
    except BorgError as error:
        if error.code == "Repository.AlreadyExists" and repository["exists"] is None:
            return False
        raise
    host.note(repository["url"], "", "Borg repository, repokey-blake2\n")
    return True


def export_key(host, borg):
    """Keep the repository's key beside its passphrase, for escrow and the recovery kit."""
    file = f"{borg.secrets}/key-export"
    if os.path.exists(file):
        return True
    if host.module.check_mode:
        host.note(file, "", "(hidden)\n")
        return False
    host.file(file, borg("key", "export", borg.url), 0o600, show=False)
    return True


def main():
    module = AnsibleModule(
        argument_spec={
            "etc": {"required": True},
            "state": {"required": True},
            "agent": {"type": "dict", "required": True},
            "repositories": {"type": "list", "elements": "dict", "required": True, "no_log": False},
            "configs": {"type": "dict", "required": True, "no_log": True},
            "hooks": {"type": "dict", "default": {}, "no_log": True},
            "passwords": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    host = Converge(module)
    etc, state, repositories = module.params["etc"], module.params["state"], module.params["repositories"]
    for directory in (
        f"{etc}/ssh",
        f"{etc}/borgmatic",
        state,
        *(f"{state}/{name}" for name in ("spool", "runs", "borg", "restores", "canary")),
    ):
        host.directory(directory, 0o700)
    known_hosts = f"{etc}/ssh/known_hosts"
    try:
        pins = pinned(read(known_hosts) or "", repositories)
    except ValueError as error:
        if not module.check_mode:
            host.fail(str(error))
        pins = read(known_hosts) or ""
    host.file(known_hosts, pins, 0o644)
    hooks = module.params["hooks"]
    write_hooks(host, f"{etc}/hooks", hooks)
    passwords = module.params["passwords"]
    write_passwords(host, f"{etc}/databases", passwords)
    configs = module.params["configs"]
    write_configs(host, {f"{etc}/borgmatic/{key}.yaml": text for key, text in configs.items()})
    for file in set(glob.glob(f"{etc}/hooks/*") + glob.glob(f"{etc}/databases/*")) - {*hooks, *passwords}:
        host.absent(file)
    agent = {**module.params["agent"], "init": init_system(), "borg": BORG, "borgmatic": BORGMATIC}
    host.file(f"{etc}/agent.json", json.dumps(agent, indent=1) + "\n", 0o600)

    states = []
    for repository in repositories:
        borg = Borg(BORG, etc, state, repository)
        try:
            initialised = ensure_repository(host, borg, repository)
            exported = export_key(host, borg)
        except BorgError as error:
            host.fail(f"repository {repository['id']}: {error.sentence}", saveos={"repositories": states})
        states.append(
            {
                "id": repository["id"],
                "url": repository["url"],
                "initialised": initialised,
                "key_exported": exported,
            }
        )
    version = module.params["agent"].get("policy_version")
    host.exit(saveos={"repositories": states, **({"policy_version": version} if version else {})})


if __name__ == "__main__":
    main()
