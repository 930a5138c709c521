"""What hosts tell, in the reader's language: they speak English, and name a stable code beside it.

Pages show the sentence of the code, and below it what was told, since that names paths, packages and numbers.
English pages show what was told alone: it says the same, and more. What has no code here stays as it is.
"""

import re
from dataclasses import dataclass

from saveos.core.i18n import DEFAULT, gettext, language, mark
from saveos.dashboard import sentences, words


@dataclass(frozen=True)
class Told:
    """A sentence, and the teller's own English words where the sentence is not those already."""

    text: str
    detail: str = ""


ERRORS = {  # code of a failed run or job → what went wrong, and what to do
    "hook_failed": mark(
        "A hook command failed, so the run stopped. Run it by hand on the host and correct it."
    ),
    "source_missing": mark("A path to work on does not exist. Correct the policy, or create the path."),
    "repository_gone": mark(
        "The repository is gone from the storage server. Bring it back from a copy;"
        " it is never made anew silently."
    ),
    "passphrase_wrong": mark(
        "The repository's passphrase on this host does not open it. Put the right one in place."
    ),
    "lock_timeout": mark("The repository is in use by another borg process. Wait for it to end."),
    "quota_exceeded": mark(
        "The repository's quota is used up. Raise it, or back up less; earlier archives are intact."
    ),
    "disk_full": mark("A disk is full. Free space there and run again; earlier archives are intact."),
    "host_key_changed": mark(
        "The storage server shows another SSH host key than the pinned one. If it was rebuilt on purpose,"
        " provision this host again; else treat it as an attack."
    ),
    "permission_denied": mark(
        "The storage server or a directory refused access. Provision server and host again."
    ),
    "server_unreachable": mark(
        "The storage server could not be reached, or closed the connection."
        " Check that it is up and open to this host."
    ),
    "not_configured": mark("This host is not set up for it. Provision it again."),
    "archive_missing": mark("The repository does not have this archive."),
    "canceled": mark("Canceled. Start it again when it suits."),
    "delivery": mark("The controller could not be told of it. Check its address and the host's token."),
    "dump_missing": mark("The archive has no dump of this database."),
    "dump_broken": mark("The dump of the database is broken."),
    "database_failed": mark("The database server refused it."),
    "clock": mark("The host's clock is wrong, so nothing was deleted by age. Run an NTP service."),
    "unit_failed": mark("The host's service manager could not start the run. Provision the host again."),
    "timeout": mark("It took too long and was ended."),
    "unknown": mark("The run failed. Its log says more."),
    "refused": mark("The host cannot do this now. What it told says why, and what to do."),
    "transfer": mark("The transfer between the hosts broke off. Start it again."),
    "rotation": mark("The rotation was not finished; the old secret stays in force. Rotate again."),
    "not_local": mark(
        "The database is not on this host. Get the archive's dump, and bring it back where the database is."
    ),
    "safety_failed": mark(
        "The present database could not be dumped first, so it was not replaced."
        " See that its server runs, and that the host has room."
    ),
    "compare_failed": mark("The host's files could not be walked in time. Compare a single directory."),
    "no_text": mark("The file is no text. Restore it to look at it."),
    "too_large": mark("The file is too large to be shown. Restore it to a directory to look at it."),
    "measure_failed": mark("The sources could not be measured. Correct the excludes, or measure fewer."),
    "not_protectable": mark(
        "The host's configuration would prune protected archives as any other. Provision the host again."
    ),
    "tool_missing": mark("The host lacks a program that this needs. Install it."),
    "key_export_missing": mark("There is no key export of the repository. Take it from the recovery kit."),
    "mend_failed": mark("The repository's key could not be put back. Take it from the recovery kit."),
    "catalogue": mark("The controller did not take the listing over. The host sends it again by itself."),
    # the controller's own, of a backup that lacks something
    "incomplete": mark("The backup lacks something that should be in it."),
    # the worker's, of a job
    "hosts-failed": mark("Hosts failed. Look at their lines below, then retry them."),
    "hosts-gone": mark("None of its hosts was left for it."),
    "lost": mark("Canceled, but it may go on at its hosts: look there."),
    "nothing-done": mark("The play did nothing on any of its hosts."),
    "play-failed": mark("Ansible could not do it. The log says why."),
    "worker-lost": mark(
        "The controller was interrupted. What it began may go on at its hosts: look there, then retry."
    ),
}
CHECKS = {  # what a rebuild looked at
    "counts": mark("Number of files"),
    "hashes": mark("Files compared by hash"),
    "failures": mark("Files that could not be restored"),
    "sandbox": mark("Health of the other host"),
}
FINDINGS = {  # kind of a finding → its title
    # cleanup
    "apt-archives": mark("Package files of apt"),
    "dnf-cache": mark("Caches of dnf"),
    "dnf5-cache": mark("Caches of dnf"),
    "yum-cache": mark("Caches of yum"),
    "man-cache": mark("Formatted manual pages"),
    "npm-cache": mark("Caches of npm"),
    "borg-cache": mark("Borg caches that are not used any more"),
    "borg-cache-users": mark("Borg caches that are not used any more"),
    "pip-cache": mark("Caches of pip"),
    "uv-cache": mark("Caches of uv"),
    "pipx-cache": mark("Caches of pipx"),
    "npm-logs": mark("Logs of npm"),
    "yarn-cache": mark("Caches of yarn"),
    "pnpm-cache": mark("Caches of pnpm"),
    "go-build-cache": mark("Compiler caches of Go"),
    "go-download-cache": mark("Downloads of Go"),
    "cargo-cache": mark("Downloads of cargo"),
    "composer-cache": mark("Caches of composer"),
    "gradle-cache": mark("Caches of gradle"),
    "thumbnails": mark("Preview pictures"),
    "old-kernels": mark("Old kernels"),
    "podman-images": mark("Untagged images of podman"),
    "docker-images": mark("Untagged images of docker"),
    "saveos-leftovers": mark("Leftovers of interrupted writes of the agent"),
    "journal": mark("Archived journal files"),
    "rotated-logs": mark("Rotated logs"),
    "core-dumps": mark("Core dumps"),
    "crash-reports": mark("Crash reports"),
    "tmp": mark("Temporary files"),
    "var-tmp": mark("Temporary files"),
    "rule-refused": mark("A cleanup rule is not carried out"),
    "unknown-rule": mark("There is no such cleanup rule"),
    "protected-path": mark("A path is protected from cleanup"),
    "allowed-path": mark("A path may not be cleaned"),
    "root-refused": mark("A cleanup rule leaves a directory alone"),
    "not-cleaned": mark("Not all could be cleaned"),
    # dependencies
    "update-failed": mark("The update failed"),
    "package-manager-busy": mark("Another program holds the package manager's lock"),
    "health-check-failed": mark("The host is not in order after the update"),
    "not-as-planned": mark("What was installed differs from the plan"),
    "updates-installed": mark("Packages were installed"),
    "package-manager-unknown": mark("The host's package manager is not known"),
    "package-lists-unreachable": mark("Package lists could not be fetched"),
    "update-interrupted": mark("An earlier update was interrupted"),
    "dependencies-unmet": mark("Installed packages miss what they depend on"),
    "plan-failed": mark("The package manager finds no way to update"),
    "security-update": mark("A security update is waiting"),
    "held-security-update": mark("A security update is held back by hand"),
    "held-update": mark("An update is held back by hand"),
    "updates-pending": mark("Updates are waiting that are not about security"),
    "updates-kept-back": mark("Updates are kept back"),
    "reboot-needed": mark("The host needs a restart"),
    "restart-needed": mark("A service still runs replaced code"),
    "projects-left-out": mark("Not all directories were looked into"),
    "project-unreadable": mark("A project's lock file cannot be read"),
    "unpinned-libraries": mark("Libraries are not pinned to a version"),
    "vulnerable-library": mark("A library has known weaknesses"),
    "libraries-not-judged": mark("Libraries are listed, not judged"),
    "agent-outdated": mark("A part of the agent is not the version that is offered"),
    # secrets, drift
    "secret-missing": mark("A secret is missing"),
    "secret-readable": mark("A secret can be read by others"),
    "secret-permissions": mark("A secret has too wide permissions"),
    "secret-link": mark("A secret is a symbolic link"),
    "secret-old": mark("A secret is too old"),
    "rotation-open": mark("A rotation was interrupted"),
    "differs": mark("A file or service differs from what provisioning would make"),
    # health
    "never-backed-up": mark("Nothing was ever saved to a repository"),
    "retention": mark("Archives could not be pruned"),
    "clock": mark("The clock is not synchronised"),
    "spool": mark("Run records wait for the controller"),
    "load-high": mark("The load is high"),
    "memory-low": mark("Little memory is available"),
    "storage-disk-full": mark("The storage server's disk is nearly full: backups will soon fail"),
    "finding": mark("Something is not in order"),
    "more": mark("There are more findings than can be told: mend these first"),
    # the controller itself
    "worker-none": mark("No worker is alive: no job runs, no alert is raised, no schedule fires"),
    "queue-waits": mark("Jobs wait in the queue for long"),
    "sweep-late": mark("Alerts were not judged for a while"),
    "database-slow": mark("The database answers slowly"),
    "own-backup-late": mark("The controller's own backup is late"),
    "certificate-ends": mark("The controller's certificate ends soon"),
    # validation
    "agent-not-configured": mark("The agent is not configured: the host backs nothing up"),
    "repository-none": mark("The host has no repository"),
    "repository-missing": mark("The repository is not on its server"),
    "repository-broken": mark("The repository is broken"),
    "repository-unreachable": mark("The repository cannot be opened"),
    "repository-permissions": mark("A repository has the wrong permissions"),
    "repository-foreign": mark("Files of a repository belong to somebody else"),
    "passphrase-wrong": mark("The passphrase does not open the repository"),
    "server-host-key": mark("The storage server shows another SSH host key"),
    "server-refuses-key": mark("The storage server refuses the host's SSH key"),
    "key-export-missing": mark("The key export of a repository is missing"),
    "key-export-stale": mark("The key export of a repository is not of its present key"),
    "escrow-missing": mark("The escrow of a repository is missing"),
    "escrow-stale": mark("The escrow of a repository is out of date"),
    "config-missing": mark("A repository or its configuration is missing"),
    "config-invalid": mark("borgmatic refuses its configuration"),
    "config-other-repository": mark("A configuration writes to another place"),
    "source-none": mark("The policy names no source: nothing is backed up"),
    "source-missing": mark("A source of the policy does not exist"),
    "source-empty": mark("A source of the policy is empty"),
    "source-excluded": mark("An exclude leaves out a whole source"),
    "hook-missing": mark("A hook is not there"),
    "retention-none": mark("The policy keeps archives for ever"),
    "retention-space": mark("What the policy keeps will not fit into the repository"),
    "state-missing": mark("The agent's directory is not there"),
    "state-permissions": mark("The agent's directory has the wrong permissions"),
    "state-read-only": mark("The agent's file system is read-only"),
    "program-missing": mark("A program cannot be started"),
    "unit-missing": mark("A unit is not installed"),
    "units-unknown": mark("systemd does not answer"),
    "unit-not-reloaded": mark("systemd does not know a unit's present text"),
    "timer-off": mark("A timer is off: nothing runs by itself"),
    "timer-never": mark("A timer will never fire"),
    "cron-missing": mark("cron starts no backup"),
    "cron-permissions": mark("A file of cron has the wrong permissions"),
    "cron-stopped": mark("cron does not run"),
    "controller-unreachable": mark("The controller cannot be reached from the host"),
    "controller-untrusted": mark("The host does not trust the controller's certificate"),
    "controller-key-elsewhere": mark("The controller's key is kept in an unusual place"),
    "compose-password-default": mark("A compose file has a password that everybody tries first"),
    "compose-variable-missing": mark("A compose file uses a variable that is not set"),
    "compose-file-missing": mark("A compose file names a file that is not there"),
    "compose-invalid": mark("A compose file is broken"),
    "compose-root": mark("A directory of compose files is not there"),
    "compose-too-many": mark("There are too many compose files"),
    "compose-port-conflict": mark("Two services want the same port"),
    "env-invalid": mark("An environment file has lines that are no assignment"),
    "env-duplicate": mark("An environment file sets a variable twice"),
    "env-permissions": mark("Everybody can read a secret in an environment file"),
    "check-timed-out": mark("A check took too long"),
    "check-failed": mark("A check could not be made"),
    "temporary-directory": mark("The directory of temporary files is not usable"),
    "disk-full": mark("A file system is nearly full"),
    "inodes-full": mark("A file system has nearly no inodes left"),
    "clock-unsynchronised": mark("The clock is not synchronised"),
    "clock-off": mark("The clock is wrong"),
    "dns-none": mark("The host has no name server"),
    "dns-fails": mark("A name cannot be resolved"),
    "hostname-unknown": mark("The host cannot resolve its own name"),
    "time-zone-broken": mark("The time zone does not exist"),
    "time-zone-differs": mark("Two time zones are named"),
    "time-zone-unknown": mark("The policy's time zone is not known there"),
    "sshd-config": mark("sshd would not start again with its configuration"),
    "tls-certificate-expired": mark("A certificate has ended"),
    "tls-certificate-ends": mark("A certificate ends soon"),
    "tls-certificate-unreadable": mark("A certificate cannot be read"),
    "ssh-certificate-expired": mark("An SSH certificate has ended"),
    "ssh-certificate-ends": mark("An SSH certificate ends soon"),
    "controller-certificate-expired": mark("The controller's certificate has ended"),
    "controller-certificate-ends": mark("The controller's certificate ends soon"),
    "server-not-set-up": mark("The storage server is not set up"),
    "server-program-missing": mark("A program of the storage server cannot be started"),
    "server-permissions": mark("A file of the storage server has the wrong permissions"),
    "authorized-key-unknown": mark("A key may write that no host has"),
    "authorized-key-foreign": mark("A key is let in that SaveOS did not put there"),
    "authorized-key-missing": mark("A repository has no key that may write to it"),
    "authorized-key-second": mark("Several keys may write to a repository"),
    "authorized-key-differs": mark("The key of a repository is not that of its host"),
    "authorized-keys-broken": mark("A line of the storage server's keys cannot be judged"),
    "quota-near": mark("A quota is nearly used up"),
    "quota-overcommitted": mark("Quotas promise more than the disk has"),
}


def error(code: str, text: str) -> Told:
    """Return what a failed run tells: `code` is the agent's, `text` its English sentences."""
    return _told(ERRORS.get(code, ""), text)


def waits(text: str) -> str:
    """Return what a queued job waits for: "host web: backup ID" as "host web (Backup)"."""
    match = re.fullmatch(r"(?:host (\S+)|(\S+?))(?:: (\S+) \S+)?", text)
    if not match:
        return text
    host, other, operation = match.groups()
    name = gettext("host %(name)s") % {"name": host} if host else other
    return f"{name} ({gettext(words.operations.get(operation, operation))})" if operation else name


def check(name: str, text: str) -> Told:
    """Return what a rebuild looked at, and what it saw."""
    found = _told(CHECKS.get(name, ""), text)
    return Told(found.text, parts(found.detail))


def parts(text: str) -> str:
    """Return what went wrong, one thing after another, as "PATH: why; PATH: why"; what nobody knows stays."""
    if language() == DEFAULT:
        return text
    found = [_part(each) for each in text.split("; ")]
    return " ; ".join(found) if found != text.split("; ") else text


def _part(text: str) -> str:
    """Translate what is known of "where: what: why": a step, a check, a host, a reason."""
    parts = text.split(": ")
    for place in range(len(parts)):  # a reason may have a colon of its own
        if known := sentences.told(": ".join(parts[place:])):
            parts[place:] = [known]
            break
    found = [_word(each) or each for each in parts]
    return " : ".join(found) if found != text.split(": ") else text


def _word(text: str) -> str:
    word = words.operations.get(text) or CHECKS.get(text, "")
    return gettext(word) if word else sentences.told(text)


def finding(kind: str, title: str) -> Told:
    """Return a finding's title."""
    return _told(_title(kind), title)


def alert(rule: str, summary: str) -> Told:
    """Return what an alert is about: its rule's sentence for who does not read English."""
    sentence = words.rules.get(rule, ("", ""))[1]
    return Told(gettext(sentence)) if sentence else _told(words.judged.get(rule, ""), summary)


def kind(name: str) -> str:
    """Return what a kind of finding is called; its own name where it is not known."""
    return gettext(_title(name) or name)


def _title(kind: str) -> str:
    """Return a kind's title; a health check tells of a repository's last error by that one's code."""
    return FINDINGS.get(kind) or ERRORS.get(kind.replace("-", "_"), "")


def _told(sentence: str, text: str) -> Told:
    if not sentence or language() == DEFAULT or not text:
        return Told(text)
    return Told(gettext(sentence), "" if text.rstrip(".") == sentence.rstrip(".") else text)
