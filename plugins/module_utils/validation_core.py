# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every validation check shares: findings, checks that run side by side within their time, and mending.

A check is a function that yields findings. One that waits holds up no other, one that hangs or breaks becomes
a finding itself, and nothing that another found is lost. Only `Mender` changes the host: each mend keeps what
was there below one directory of root's, and in check mode it only tells the difference.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import stat
import tempfile
import threading
import time

from ansible_collections.saveos.fleet.plugins.module_utils.converge import read, run
from ansible_collections.saveos.fleet.plugins.module_utils.findings import Findings

_IDS = {
    "config": """
        agent-not-configured repository-none config-missing config-invalid config-other-repository
        source-none source-missing source-empty source-excluded hook-missing retention-none
    """,
    "setup": """
        secret-permissions secret-link secret-missing state-permissions state-missing state-read-only
        program-missing unit-missing unit-not-reloaded timer-off timer-never cron-missing
        cron-permissions cron-stopped controller-unreachable controller-untrusted
        controller-certificate-expired controller-certificate-ends passphrase-wrong repository-missing
        repository-broken repository-unreachable server-host-key server-refuses-key key-export-stale
        key-export-missing escrow-stale escrow-missing retention-space disk-full inodes-full
        clock-unsynchronised clock-off dns-none dns-fails hostname-unknown time-zone-broken
        time-zone-differs time-zone-unknown sshd-config ssh-certificate-expired ssh-certificate-ends
        tls-certificate-unreadable tls-certificate-expired tls-certificate-ends temporary-directory
        server-not-set-up server-permissions authorized-key-missing authorized-key-differs
        authorized-key-second authorized-key-unknown authorized-key-foreign authorized-keys-broken
        repository-permissions repository-foreign server-program-missing quota-near quota-overcommitted
    """,
    "compose": """
        compose-root compose-invalid compose-variable-missing compose-password-default
        compose-file-missing compose-port-conflict compose-too-many env-invalid env-duplicate
        env-permissions
    """,
}
IDS = {kind: tuple(text.split()) for kind, text in _IDS.items()}
ALWAYS = ("check-timed-out", "check-failed", "more")
BACKUPS = "/var/lib/saveos-maintenance/validation"


class Finding:
    """One thing that is not as it must be. `mend`, where there is one, takes a Mender and puts it right."""

    def __init__(self, kind, severity, title, fix, subject="", evidence="", mend=None):  # noqa: PLR0917
        self.kind, self.severity, self.title, self.fix = kind, severity, title, fix
        self.subject = plain(subject).replace("\n", "?")[:1000]
        self.evidence, self.mend = plain(evidence), mend
        self.fixed, self.check = False, ""

    @property
    def identity(self):
        """What makes it the same finding in the next run."""
        return self.kind, self.subject


def plain(text):
    """Text that can travel: bytes that are no UTF-8, and control characters, shown as escapes."""
    text = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in text)


class Check:
    """A named function that yields findings, and the seconds it may take."""

    def __init__(self, name, function, seconds=30):
        self.name, self.function, self.seconds = name, function, seconds
        self.found, self.over = [], False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self):
        """Begin; findings gather as they come."""
        self._began = time.monotonic()
        self._thread.start()

    def wait(self):
        """Findings of the check, whether it ended or not."""
        self._thread.join(max(0.0, self._began + self.seconds - time.monotonic()))
        found = list(self.found)
        if not self.over:
            found.append(unfinished(self.name, self.seconds))
        return found

    def _run(self):
        try:
            for each in self.function():
                each.check = self.name
                self.found.append(each)
        except Exception as error:  # noqa: BLE001 - whatever a check meets becomes a finding
            self.found.append(
                Finding(
                    "check-failed",
                    "warning",
                    f"The check `{self.name}` could not be made.",
                    "The evidence says what was in its way; if that is no fault of this host, report it.",
                    self.name,
                    f"{type(error).__name__}: {error}",
                )
            )
        self.over = True


def unfinished(name, seconds):
    """A check, or a part of it, for which there was not enough time."""
    return Finding(
        "check-timed-out",
        "warning",
        f"The check `{name}` did not end in {seconds} s; what it found by then is told.",
        "See whether this host is overloaded or a file system hangs, and run the validation again.",
        name,
    )


def run_checks(checks):
    """Findings of all checks, which run side by side; in the order of the checks, each identity once."""
    for check in checks:
        check.start()
    found = {}
    for check in checks:
        for each in check.wait():
            found.setdefault(each.identity, each)
    return list(found.values())


class Mender:
    """Changes of this run: told as diffs, and carried out unless it is check mode, after keeping what was."""

    def __init__(self, check_mode, backups=BACKUPS):
        self.check_mode = check_mode
        self.diffs, self.changed = [], False
        self._place = f"{backups}/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        self._notes = []

    def note(self, header, before, after):
        """Tell a change; returns whether it is to be carried out now."""
        self.changed = True
        self.diffs.append({"before_header": header, "after_header": header, "before": before, "after": after})
        return not self.check_mode

    def _keep(self, **told):
        """Write down what was, before it changes."""
        os.makedirs(self._place, mode=0o700, exist_ok=True)
        self._notes.append({key: plain(value) for key, value in told.items()})
        with open(f"{self._place}/changes.json", "w", encoding="utf-8") as file:
            json.dump(self._notes, file, indent=1)

    def attributes(self, path, mode, uid, gid):
        """Mode and owner of a file or directory that is no symbolic link."""
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            now = os.fstat(handle)
            before = (stat.S_IMODE(now.st_mode), now.st_uid, now.st_gid)
            if before == (mode, uid, gid):
                return
            was, wanted = ("mode %04o, owner %d:%d\n" % each for each in (before, (mode, uid, gid)))
            if self.note(path, was, wanted):
                self._keep(path=path, was=was.strip())
                os.fchown(handle, uid, gid)
                os.fchmod(handle, mode)
        finally:
            os.close(handle)

    def directory(self, path, mode, uid=0, gid=0):
        """A directory that is missing."""
        if self.note(path, "", "directory, mode %04o, owner %d:%d\n" % (mode, uid, gid)):
            self._keep(path=path, was="absent")
            os.makedirs(path, mode=mode)
            os.chown(path, uid, gid)
            os.chmod(path, mode)

    def file(self, path, content, mode, uid=0, gid=0, *, show=None):
        """A file with this content, replaced atomically; the old one is kept. `show` False hides both texts."""
        before = read(path)
        hidden = ("(hidden)\n" if before else "", "(hidden, changed)\n")
        visible = hidden if show is False else (before or "", content)
        if not self.note(path, *visible):
            return
        self._keep(path=path, was="absent" if before is None else "kept beside this file")
        if before is not None:
            shutil.copy2(path, f"{self._place}/{len(self._notes)}-{os.path.basename(path)}")
        handle, fresh = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".saveos-")  # 0600 from the start
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.fchown(file.fileno(), uid, gid)
                os.fchmod(file.fileno(), mode)
            os.replace(fresh, path)
        except BaseException:
            os.unlink(fresh)
            raise

    def command(self, what, *argv, seconds=60):
        """A command that puts something right; raises OSError with its words."""
        if self.note(what, "", what + "\n"):
            self._keep(command=" ".join(argv))
            done = run(list(argv), timeout=seconds)
            if done.returncode:
                raise OSError(f"{what} failed: {(done.stderr or done.stdout).strip()[-300:]}")


def mend(found, wanted, mender):
    """Mend wanted findings (`ID`, `ID:SUBJECT` or `all`), each by itself; returns those that were carried out.

    A mend that fails leaves its finding, with the reason in its evidence.
    """
    done = []
    for each in found:
        if each.mend is None or not {"all", each.kind, f"{each.kind}:{each.subject}"} & set(wanted):
            continue
        try:
            each.mend(mender)
        except (OSError, ValueError) as error:
            each.evidence = f"{each.evidence}\nMending failed: {plain(error)}".strip()
            continue
        done.append(each)
    return done


def result(found, judged, summary):
    """What the operation returns: state, figures and findings; `judged` as `Findings.result` takes it."""
    kept = Findings()
    for each in found:
        kept.add(
            each.kind, each.severity, each.title, each.subject, each.evidence, each.fix,
            fixable=each.mend is not None, fixed=each.fixed,
        )  # fmt: skip
    return kept.result(summary, judged)


def owner(uid, gid):
    """A file's owner in words."""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return f"{user}:{group}"


def attributes(kind, path, mode, uid=0, gid=0, *, what="file", severity="warning", strict=False):
    """A finding where a path is too open, or another's; nothing where it is not there.

    Fewer rights than `mode` are no fault unless `strict`.
    """
    try:
        now = os.lstat(path)
    except OSError:
        return
    if stat.S_ISLNK(now.st_mode):
        yield Finding(
            "secret-link",
            "warning",
            f"{path} is a symbolic link, so its rights are those of another place.",
            "Put the file itself there.",
            path,
            f"-> {os.readlink(path)}",
        )
        return
    have = stat.S_IMODE(now.st_mode)
    wrong = have != mode if strict else have & ~mode
    if not wrong and (now.st_uid, now.st_gid) == (uid, gid):
        return
    yield Finding(
        kind,
        severity,
        f"The {what} {path} is open to others or owned by others than it must be.",
        f"chown {owner(uid, gid)} {path} && chmod {mode:04o} {path}, or let this operation fix it.",
        path,
        f"mode {have:04o}, owner {owner(now.st_uid, now.st_gid)}; wanted {mode:04o}, {owner(uid, gid)}",
        mend=lambda mender: mender.attributes(path, mode, uid, gid),
    )
