# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What our modules share on a host: converge files, links and directories, with check mode and a diff."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile

SYSTEMD = "/run/systemd/system"


def init_system():
    """systemd where it is PID 1, else none."""
    return "systemd" if os.path.isdir(SYSTEMD) else "none"


def read(path):
    """Text of a file, or None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_bytes(path):
    """Content of a file, or None where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def fingerprint(content):
    """A line that names bytes by their hash."""
    return f"sha256 {hashlib.sha256(content).hexdigest()}\n" if content else ""


def run(argv, env=None, timeout=None, stdin=None):
    """Run a program with a plain environment; returns the completed process, output as text. rc 127: not
    there."""
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
    }
    environment.update(env or {})
    try:
        return subprocess.run(
            argv,
            env=environment,
            input=stdin or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(argv, 127, "", str(error))
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"{argv[0]} did not finish in {timeout} s")


class Converge:
    """Brings a host to a state and remembers what it changed. In check mode nothing is written."""

    def __init__(self, module):
        self.module = module
        self.changed = False
        self._diffs = []

    def fail(self, sentence, **results):
        """End the module; the sentence says what is wrong and how to fix it."""
        self.module.fail_json(msg=sentence, changed=self.changed, **results)

    def exit(self, **results):
        """End the module with what was found and changed."""
        self.module.exit_json(changed=self.changed, diff=self._diffs if self.module._diff else [], **results)

    def note(self, header, before, after):
        """Record a change and its diff; returns whether it is to be carried out now."""
        self.changed = True
        self._diffs.append({"before_header": header, "after_header": header, "before": before, "after": after})
        return not self.module.check_mode

    def do(self, what, *argv, **options):
        """Carry out a command as a change; fails the module with `what` when it does not succeed."""
        if not self.note(what, "", what + "\n"):
            return None
        result = run(list(argv), **options)
        if result.returncode:
            self.fail(f"{what} failed: {(result.stderr or result.stdout).strip()[-500:]}")
        return result

    def directory(self, path, mode, uid=0, gid=0):
        """A directory with this mode and owner; parents that are missing become 0755 root."""
        if not os.path.isdir(path):
            if os.path.lexists(path):
                self.fail(f"{path} is in the way: it is not a directory; move it away")
            if self.note(path, "", f"directory {mode:04o}\n"):
                os.makedirs(path, mode=0o755, exist_ok=True)
        self._attributes(path, mode, uid, gid)

    def file(self, path, content, mode, uid=0, gid=0, *, show=None):
        """A file with this content, text or bytes, replaced atomically. `show` maps content to what a diff may
        show; False hides it; of bytes a diff shows their hash."""
        before = read(path) if isinstance(content, str) else read_bytes(path)
        show = show if isinstance(content, str) else fingerprint
        if before != content and self.note(path, *self._visible(before, content, show)):
            self._write(path, content, mode, uid, gid)
        self._attributes(path, mode, uid, gid)

    def link(self, path, target):
        """A symbolic link to target; a plain file in its place is replaced, a directory is not."""
        before = os.readlink(path) if os.path.islink(path) else ""
        if before == target:
            return
        if os.path.isdir(path) and not os.path.islink(path):
            self.fail(f"{path} is in the way: it is a directory; move it away")
        if self.note(path, f"{before}\n" if before else "", f"{target}\n"):
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            fresh = f"{path}.saveos-new"
            if os.path.lexists(fresh):
                os.unlink(fresh)
            os.symlink(target, fresh)
            os.replace(fresh, path)

    def absent(self, path):
        """No file of this name."""
        if os.path.lexists(path) and self.note(path, "present\n", ""):
            os.unlink(path)

    @staticmethod
    def _visible(before, after, show):
        if show is False:
            return "(hidden)\n" if before is not None else "", "(hidden, changed)\n"
        change = show or (lambda text: text)
        return change(before or ""), change(after)

    @staticmethod
    def _write(path, content, mode, uid, gid):
        handle, fresh = tempfile.mkstemp(
            dir=os.path.dirname(path), prefix=".saveos-"
        )  # mode 0600 from the start
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
                os.fchown(file.fileno(), uid, gid)
                os.fchmod(file.fileno(), mode)
            os.replace(fresh, path)
        except BaseException:
            os.unlink(fresh)
            raise

    def _attributes(self, path, mode, uid, gid):
        try:
            now = os.stat(path)
        except FileNotFoundError:
            return  # check mode: it would be made
        before = (stat.S_IMODE(now.st_mode), now.st_uid, now.st_gid)
        if before == (mode, uid, gid):
            return
        if self.note(path, "mode %04o, owner %d:%d\n" % before, "mode %04o, owner %d:%d\n" % (mode, uid, gid)):
            os.chown(path, uid, gid)
            os.chmod(path, mode)
