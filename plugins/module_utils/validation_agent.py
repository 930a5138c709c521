# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks of a host that backs itself up: its configuration, its secrets, its timers and its repository."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import urllib.parse

from ansible_collections.saveos.fleet.plugins.module_utils.borg import (
    CONNECT_SECONDS,
    Borg,
    BorgError,
    complaint,
)
from ansible_collections.saveos.fleet.plugins.module_utils.converge import init_system, read, run
from ansible_collections.saveos.fleet.plugins.module_utils.escrow import known_escrow, material
from ansible_collections.saveos.fleet.plugins.module_utils.validation_core import (
    Check,
    Finding,
    attributes,
    unfinished,
)
from ansible_collections.saveos.fleet.plugins.module_utils.validation_host import ending
from ansible_collections.saveos.fleet.plugins.module_utils.validation_server import bytes_of

PROVISION = "Provision the host again: saveos maintenance provision (playbooks/site.yml)."
STATE = ("spool", "runs", "borg", "restores", "canary")
# what each failure of a repository is called, by Borg's code or words of the sentence about it
FAILURES = (
    ("PassphraseWrong", "passphrase-wrong"),
    ("PasscommandFailure", "secret-missing"),
    ("Repository.DoesNotExist", "repository-missing"),
    ("Repository.ParentPathDoesNotExist", "repository-missing"),
    ("Repository.InvalidRepository", "repository-broken"),
    ("another SSH host key", "server-host-key"),
    ("refuses this host's SSH key", "server-refuses-key"),
)


class Agent:
    """The agent's configuration as it is on the host; `fault` says why there is none."""

    def __init__(self, etc, state, expected):
        self.etc, self.state, self.fault = etc, state, ""
        self.data, self.repositories = {}, []
        try:
            self.data = json.loads(read(f"{etc}/agent.json") or "")
            self.repositories = [dict(each) for each in self.data["repositories"]]
            for each in self.repositories:
                each.setdefault("config", f"{etc}/borgmatic/{each['id']}.yaml")
        except (ValueError, KeyError, TypeError, OSError) as error:
            self.fault = f"{type(error).__name__}: {error}"
            self.data, self.repositories = {}, []
        quotas = {str(each.get("id")): each.get("quota") for each in expected}
        for each in self.repositories:
            each["quota"] = quotas.get(each["id"]) or ""
        self.state = self.data.get("state_dir") or state
        self.unit = self.data.get("unit") or "saveos-backup.service"
        self.systemd = init_system() == "systemd"
        controller = self.data.get("controller") or {}
        self.controller, self.ca = controller.get("url") or "", controller.get("ca") or ""

    @property
    def zone(self):
        """The time zone that the policy names; "" is the host's own."""
        return (self.data.get("schedule") or {}).get("zone") or ""

    def names(self):
        """Names that this host must be able to resolve."""
        addresses = [self.controller, *(each.get("url", "") for each in self.repositories)]
        return [urllib.parse.urlsplit(each).hostname or "" for each in addresses if "://" in each]


def config_checks(agent):
    """Checks of what the host is told to do: kind `config`."""
    if agent.fault:
        return [Check("agent configuration", lambda: not_configured(agent))]
    return [
        Check(f"borgmatic {each['id']}", lambda each=each: borgmatic(agent, each), 200)
        for each in agent.repositories
    ] + [Check("repositories", lambda: no_repository(agent))]


def setup_checks(agent, host, recovery_key):
    """Checks of whether the host can do it: kind `setup`."""
    checks = [
        Check("secrets", lambda: secrets(agent)),
        Check("directories", lambda: directories(agent)),
        Check("programs", lambda: programs(agent)),
        Check("schedule", lambda: schedule(agent)),
    ]
    if agent.controller:
        checks.append(Check("controller", lambda: controller(agent), 40))
    for each in agent.repositories:
        checks.append(Check(f"repository {each['id']}", lambda each=each: repository(agent, each), 260))
        if recovery_key:
            checks.append(
                Check(f"escrow {each['id']}", lambda each=each: escrow(agent, each, host, recovery_key))
            )
    return checks


def not_configured(agent):
    """The agent's own configuration cannot be read."""
    yield Finding(
        "agent-not-configured",
        "critical",
        f"{agent.etc}/agent.json is missing or broken: this host backs nothing up.",
        PROVISION,
        f"{agent.etc}/agent.json",
        agent.fault,
    )


def no_repository(agent):
    """A host without a repository backs nothing up."""
    if not agent.repositories:
        yield Finding("repository-none", "critical", "This host has no repository to back up to.", PROVISION)


# ---- config -------------------------------------------------------------------------------------------------


def borgmatic(agent, each):
    """borgmatic's configuration of a repository: there, valid, for this repository, and with real sources."""
    file = each["config"]
    if read(file) is None:
        yield Finding(
            "config-missing", "critical", f"The repository {each['id']} has no borgmatic configuration.",
            PROVISION, file,
        )  # fmt: skip
        return
    program = agent.data.get("borgmatic") or "borgmatic"
    shown = run([program, "--config", file, "--no-color", "config", "show", "--json"], timeout=90)
    if shown.returncode == 124:
        yield unfinished(f"borgmatic {each['id']}", 90)
    if shown.returncode in (124, 126, 127):
        return  # the program itself is another check's matter
    try:
        config = json.loads(shown.stdout)[0] if not shown.returncode else None
    except (ValueError, LookupError):
        config = None
    if not isinstance(config, dict):
        done = run([program, "config", "validate", "--config", file], timeout=90)
        yield Finding(
            "config-invalid",
            "critical",
            f"borgmatic refuses the configuration {file}.",
            f"Correct the policy (agent_*, overrides). {PROVISION}",
            file,
            complaint(done.stdout + done.stderr),
        )
        return
    yield from right_repository(each, config, file)
    yield from sources(config, file)
    yield from hooks(agent, config)
    yield from retention(config, file)


def right_repository(each, config, file):
    """The configuration and agent.json must name one and the same place."""
    places = [entry.get("path") for entry in config.get("repositories") or [] if isinstance(entry, dict)]
    if each.get("url") not in places:
        yield Finding(
            "config-other-repository",
            "critical",
            f"The configuration of the repository {each['id']} writes to another place than its address.",
            PROVISION,
            file,
            f"address {each.get('url')}; configuration: {', '.join(map(str, places)) or 'none'}",
        )


def sources(config, file):
    """Sources that are not there, hold nothing, or are excluded again."""
    wanted = [str(path) for path in config.get("source_directories") or []]
    if not wanted and not any(key.endswith("_databases") for key in config):
        yield Finding(
            "source-none", "critical", "The policy names no source: nothing is backed up.", PROVISION, file
        )
    excludes = [str(pattern) for pattern in config.get("exclude_patterns") or []]
    for path in wanted:
        found = glob.glob(path) if any(char in path for char in "*?[") else [path]
        there = [each for each in found if os.path.lexists(each)]
        if not there:
            yield Finding(
                "source-missing",
                "warning",
                f"The source {path} does not exist on this host.",
                "Take it out of the policy, or mount or make what should be there.",
                path,
            )
        elif all(holds_nothing(each) for each in there):
            yield Finding(
                "source-empty",
                "warning",
                f"The source {path} is empty: is something not mounted?",
                "Mount what should be there, or take it out of the policy.",
                path,
            )
        elif pattern := next((each for each in excludes if covers(each, path)), None):
            yield Finding(
                "source-excluded",
                "warning",
                f"An exclude of the policy leaves out the whole source {path}.",
                "Take the source or the exclude out of the policy.",
                path,
                pattern,
            )


def holds_nothing(path):
    """An empty directory; a file is something."""
    try:
        if not os.path.isdir(path):
            return False
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def covers(pattern, path):
    """Does an exclude pattern match a source as a whole? Only what is certain counts."""
    style, colon, text = pattern.partition(":")
    path = path.rstrip("/") or "/"
    if colon and style in ("pp", "pf"):
        text = text.rstrip("/")
        return path == text or (style == "pp" and path.startswith(f"{text}/"))
    if colon and style in ("re", "sh", "fm"):
        return style == "fm" and fnmatch.fnmatchcase(path, text)
    return fnmatch.fnmatchcase(path, pattern.rstrip("/"))


def hooks(agent, config):
    """Files of hooks that the configuration runs and that are not there."""
    text = json.dumps(
        [value for key, value in config.items() if key == "commands" or key.startswith(("before_", "after_"))]
    )
    for file in sorted(set(re.findall(re.escape(f"{agent.etc}/hooks/") + r"[\w.-]+", text))):
        if not os.path.isfile(file):
            yield Finding(
                "hook-missing", "critical", f"The hook {file} is not there, so each backup fails or lacks it.",
                PROVISION, file,
            )  # fmt: skip


def retention(config, file):
    """A policy that keeps nothing lets the repository grow for ever; one that keeps too little is no backup."""
    keeps = {key: config.get(key) for key in config if key.startswith("keep_") and config.get(key)}
    if not keeps:
        yield Finding(
            "retention-none",
            "warning",
            "The policy says nothing about how long archives are kept: the repository grows for ever.",
            "Set a retention in the policy.",
            file,
        )


# ---- setup --------------------------------------------------------------------------------------------------


def secrets(agent):
    """Secrets are there, root's alone, and no links."""
    etc = agent.etc
    for path in (
        etc,
        f"{etc}/ssh",
        f"{etc}/repositories",
        f"{etc}/borgmatic",
        f"{etc}/hooks",
        f"{etc}/databases",
    ):
        yield from attributes("secret-permissions", path, 0o700, what="directory")
    private = [f"{etc}/agent.json", f"{etc}/token", f"{etc}/ssh/id_ed25519"]
    for pattern in ("borgmatic/*.yaml", "hooks/*", "databases/*"):
        private += sorted(glob.glob(f"{etc}/{pattern}"))
    for each in agent.repositories:
        place = f"{etc}/repositories/{each['id']}"
        yield from attributes("secret-permissions", place, 0o700, what="directory")
        private += [f"{place}/{name}" for name in ("passphrase", "key-export", "sealed", "initialised")]
    for path in private:
        yield from attributes("secret-permissions", path, 0o600, what="secret", severity="critical")
    yield from missing_secrets(agent)


def missing_secrets(agent):
    """What nothing works without."""
    place = f"{agent.etc}/repositories"
    wanted = [(f"{place}/{each['id']}/passphrase", "from the recovery kit") for each in agent.repositories]
    if any(each.get("kind") == "ssh" for each in agent.repositories):
        wanted.append((f"{agent.etc}/ssh/id_ed25519", "by provisioning the host again"))
    if agent.controller:
        wanted.append((f"{agent.etc}/token", "by provisioning the host again"))
    for path, how in wanted:
        try:
            empty = os.path.getsize(path) == 0
        except OSError:
            empty = True
        if empty:
            yield Finding(
                "secret-missing", "critical", f"{path} is missing or empty.", f"Bring it back {how}.", path
            )


def directories(agent):
    """The agent's state has its place, and can be written."""
    for path in (agent.state, *(f"{agent.state}/{name}" for name in STATE)):
        if os.path.isdir(path):
            yield from attributes("state-permissions", path, 0o700, what="directory")
        elif not os.path.lexists(path):
            yield Finding(
                "state-missing",
                "warning",
                f"The agent's directory {path} is not there.",
                "Let this operation fix it, or provision the host again.",
                path,
                mend=lambda mender, path=path: mender.directory(path, 0o700),
            )
    try:
        read_only = os.path.isdir(agent.state) and os.statvfs(agent.state).f_flag & os.ST_RDONLY
    except OSError:
        read_only = False
    if read_only:
        yield Finding(
            "state-read-only",
            "critical",
            f"The file system of {agent.state} is read-only: no backup can run.",
            "See dmesg for what happened to the disk, and mount it anew.",
            agent.state,
        )


def programs(agent):
    """borg, borgmatic and the agent itself are there and executable."""
    wanted = [("borg", agent.data.get("borg")), ("borgmatic", agent.data.get("borgmatic"))]
    wanted.append(("saveos-agent", "/opt/saveos/bin/saveos-agent"))
    for name, path in wanted:
        if not shutil.which(path or name):
            yield Finding(
                "program-missing", "critical", f"{name} cannot be started on this host.", PROVISION,
                path or name, "not found, or not executable",
            )  # fmt: skip


def schedule(agent):
    """The host starts its backups by itself: timer or cron."""
    if agent.systemd:
        yield from timers(agent)
    else:
        yield from cron(agent)


def timers(agent):
    """systemd: units installed, loaded as they are on disk, enabled, active, and with a next time."""
    names = [agent.unit[: -len(".service")] + ".timer"]
    if agent.controller:
        names.append(names[0].replace("backup", "heartbeat", 1))
    for name in names:
        unit = unit_state(name)
        service = unit_state(name.replace(".timer", ".service"))
        for each, told in ((name, unit), (name.replace(".timer", ".service"), service)):
            if told.get("LoadState") != "loaded":
                yield Finding(
                    "unit-missing", "critical", f"The unit {each} is not installed, or cannot be loaded.",
                    PROVISION, each, told.get("LoadState", "unknown"),
                )  # fmt: skip
            elif told.get("NeedDaemonReload") == "yes":
                yield Finding(
                    "unit-not-reloaded",
                    "warning",
                    f"systemd does not know the present text of {each} yet.",
                    "systemctl daemon-reload, or let this operation fix it.",
                    each,
                    mend=lambda mender: mender.command("reload systemd's units", "systemctl", "daemon-reload"),
                )
        if unit.get("LoadState") == "loaded":
            yield from firing(name, unit)


def unit_state(name):
    """systemd's properties of a unit."""
    wanted = "LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload"
    shown = run(["systemctl", "show", "-p", wanted, name], timeout=20)
    return dict(line.partition("=")[::2] for line in shown.stdout.splitlines())


def firing(name, unit):
    """A timer is on, stays on after a restart, has a next time, and did fire."""
    if unit.get("ActiveState") != "active" or unit.get("UnitFileState") != "enabled":
        yield Finding(
            "timer-off",
            "critical",
            f"The timer {name} is not enabled and active: nothing is backed up or told by itself.",
            f"systemctl enable --now {name}, or let this operation fix it.",
            name,
            f"{unit.get('ActiveState')}, {unit.get('UnitFileState')}",
            mend=lambda mender: mender.command(f"start {name}", "systemctl", "enable", "--now", name),
        )
        return
    if unit.get("SubState") == "elapsed":  # `waiting` has a next time, `running` gets one after its service
        yield Finding(
            "timer-never",
            "critical",
            f"The timer {name} is on, but has no next time: it will never fire.",
            f"systemctl cat {name} shows what was changed. {PROVISION}",
            name,
        )


def cron(agent):
    """Without systemd: the file in /etc/cron.d, and cron itself."""
    file = f"/etc/cron.d/{agent.unit[: -len('.service')]}"
    text = read(file)
    lines = [line for line in (text or "").splitlines() if " backup" in line and not line.startswith("#")]
    if not lines:
        yield Finding(
            "cron-missing",
            "critical",
            f"{file} starts no backup: nothing is backed up by itself.",
            PROVISION,
            file,
        )
    else:
        yield from attributes("cron-permissions", file, 0o644, what="file", severity="critical")
    if not any(is_running(name) for name in ("cron", "crond")):
        service = "cron" if os.path.exists("/etc/init.d/cron") else "crond"
        yield Finding(
            "cron-stopped",
            "critical",
            "cron does not run, so nothing is backed up by itself.",
            f"service {service} start, or let this operation fix it.",
            service,
            mend=lambda mender: mender.command(f"start {service}", "service", service, "start"),
        )


def is_running(program):
    """Is there a process of that name that is not just a dead one waiting for its parent?"""
    for file in glob.glob("/proc/[0-9]*/stat"):
        try:
            name, _, rest = (read(file) or "").partition("(")[2].rpartition(")")
        except OSError:
            continue  # it ended meanwhile
        if name == program and rest.split()[:1] not in ([], ["Z"], ["X"]):
            return True
    return False


def controller(agent):
    """The controller answers, its certificate is the one expected, and does not end soon."""
    address = urllib.parse.urlsplit(agent.controller)
    port = address.port or (443 if address.scheme == "https" else 80)
    place = f"{address.hostname}:{port}"
    try:
        connection = socket.create_connection((address.hostname, port), 10)
    except (OSError, TypeError) as error:
        yield Finding(
            "controller-unreachable",
            "warning",
            f"The controller at {agent.controller} cannot be reached from here; backups run on without it.",
            "Check address, route and firewall.",
            place,
            str(error),
        )
        return
    with connection:
        if address.scheme != "https":
            return
        context = ssl.create_default_context()
        try:
            if agent.ca:
                pem = agent.ca if "-----BEGIN" in agent.ca else read(agent.ca) or ""
                context.load_verify_locations(cadata=pem)
            with context.wrap_socket(connection, server_hostname=address.hostname) as shown:
                end = ssl.cert_time_to_seconds(shown.getpeercert()["notAfter"])
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            yield Finding(
                "controller-untrusted",
                "critical",
                f"This host does not trust the certificate of the controller at {agent.controller}.",
                f"Renew the certificate, or tell hosts the new CA. {PROVISION}",
                place,
                str(error),
            )
            return
    yield from ending("controller-certificate", place, end, "Renew the controller's certificate.")


def repository(agent, each):
    """The repository opens with the host's own key and passphrase, and its key export is the present one."""
    place = complete(each)
    borg = Borg(agent.data.get("borg") or "borg", agent.etc, agent.state, place)
    try:
        told = json.loads(borg("info", "--json", borg.url))
    except BorgError as error:
        if "did not finish in" in error.sentence:
            yield unfinished(f"repository {each['id']}", CONNECT_SECONDS)
        elif not error.code.startswith("Lock"):  # a backup goes on, so it opens
            yield failure(each, error)
        return
    except ValueError:
        told = {}
    yield from key_export(agent, each, borg)
    yield from fits(agent, each, told)


def complete(each):
    """A repository of agent.json with the parts of its address."""
    url = urllib.parse.urlsplit(each.get("url") or "")
    if each.get("kind") != "ssh":
        return {**each, "kind": "local"}
    return {**each, "user": url.username or "root", "address": url.hostname or "", "port": url.port or 22}


def failure(each, error):
    """A repository that does not open, as the finding that tells why."""
    kind = next(
        (kind for word, kind in FAILURES if word in (error.code, "") or word in error.sentence),
        "repository-unreachable",
    )
    return Finding(
        kind,
        "critical",
        f"The repository {each['id']} cannot be opened by this host.",
        error.sentence[:1].upper() + error.sentence[1:] + ".",
        each["id"],
        error.code,
    )


def key_export(agent, each, borg):
    """The key export beside the passphrase, which escrow and recovery kit hold, opens the repository now."""
    file = f"{agent.etc}/repositories/{each['id']}/key-export"
    kept = read(file)
    try:
        now = borg("key", "export", borg.url)
    except BorgError:
        return
    if kept == now or (kept or "").split() == now.split():
        return
    yield Finding(
        "key-export-stale" if kept else "key-export-missing",
        "critical",
        f"The key export of the repository {each['id']} "
        + (
            "is not that of its present key."
            if kept
            else "is not there: a lost repository key could not be put back."
        ),
        "Let this operation fix it (it exports the key anew), then provision the host, so that it is sealed.",
        file,
        mend=lambda mender: mender.file(file, now, 0o600, show=False),
    )


def escrow(agent, each, host, recovery_key):
    """What is sealed to the recovery key is there and holds the present passphrase and key."""
    file = f"{agent.etc}/repositories/{each['id']}/sealed"
    known = known_escrow(file)
    text = material(agent.etc, host, complete(each))
    if text is None:
        return  # the missing secret is a finding of its own
    digest = hashlib.sha256(f"{recovery_key}\n{text}".encode("utf-8", "surrogateescape")).hexdigest()
    if known.get("digest") == digest:
        return
    yield Finding(
        "escrow-stale" if known else "escrow-missing",
        "critical",
        f"The escrow of the repository {each['id']} "
        + ("does not hold its present passphrase and key." if known else "was never made, or is gone."),
        f"{PROVISION} It seals passphrase and key to the recovery key again.",
        file,
    )


# ---- retention against space --------------------------------------------------------------------------------


def fits(agent, each, told):
    """Will what the retention keeps fit into the quota (or, of a local repository, onto its disk)?"""
    stats = (told.get("cache") or {}).get("stats") or {}
    used, growth, kept, there = int(stats.get("unique_csize") or 0), *history(agent, each)
    limit = bytes_of(each.get("quota") or "")
    if not limit and each.get("kind") == "local":
        try:
            limit = used + shutil.disk_usage(each["url"]).free
        except (OSError, KeyError):
            limit = 0
    if not limit or not used:
        return
    wanted = used + growth * max(0, kept - there)
    if wanted <= limit:
        return
    yield Finding(
        "retention-space",
        "critical" if used > limit * 0.95 else "warning",
        f"What the retention keeps will not fit into the repository {each['id']}.",
        "Raise the quota, or keep fewer archives: saveos policies.",
        each["id"],
        f"{used} bytes now, about {growth} more with each of {kept} archives (now {there}); room for {limit}",
    )


def history(agent, each):
    """(bytes that an archive adds on average, archives that the retention keeps, archives there are) as the
    host's own records and configuration tell them."""
    sizes, names = [], set()
    for file in sorted(glob.glob(f"{agent.state}/runs/*.json"), key=modified, reverse=True)[:100]:
        try:
            results = json.loads(read(file) or "").get("results") or []
        except (ValueError, AttributeError):
            continue
        for result in results:
            archive = result.get("archive") or {}
            if result.get("repository_id") == each["id"] and archive.get("name"):
                names.add(archive["name"])
                sizes.append(int(archive.get("deduplicated_size") or archive.get("deduplicated_bytes") or 0))
    text = read(each["config"]) or ""
    keeps = re.findall(r"^keep_(daily|weekly|monthly|yearly|hourly): (\d+)", text, re.MULTILINE)
    within = re.search(r"^keep_within: ['\"]?(\d+)d", text, re.MULTILINE)
    kept = sum(int(number) for _, number in keeps) + (int(within[1]) if within else 0)
    later = sizes[:-1] or sizes  # the first archive holds everything
    return (sum(later) // len(later) if later else 0), kept, len(names)


def modified(path):
    """When a file was written; one that is gone long ago."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
