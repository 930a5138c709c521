# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks of a storage server: who may write what, with which quota, and whether there is room for it."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat

from ansible_collections.saveos.fleet.plugins.module_utils.converge import read, run
from ansible_collections.saveos.fleet.plugins.module_utils.ownership import is_foreign
from ansible_collections.saveos.fleet.plugins.module_utils.ssh_keys import (
    ID,
    authorized_line,
    check_id,
    comment_of,
    merge,
    refused,
)
from ansible_collections.saveos.fleet.plugins.module_utils.validation_core import Check, Finding, attributes

PROVISION = "Provision the storage server: saveos maintenance provision (playbooks/site.yml)."
FOREIGN = 20_000  # entries of a repository that are looked at


class Server:
    """What inventory declares of a storage server. `complete`: it names every repository there is.
    `private`: its directory is closed to users of other tenants."""

    def __init__(self, user, root, borg, repositories, complete, private=False):  # noqa: PLR0917
        self.root, self.borg, self.complete = os.path.normpath(root), borg, complete
        self.private = private
        self.user = user
        self.declared = repositories
        try:
            self.entry = pwd.getpwnam(user)
        except KeyError:
            self.entry = None
        self.keys = f"{self.entry.pw_dir}/.ssh/authorized_keys" if self.entry else ""

    def path(self, repository_id):
        """Where a repository lies."""
        return f"{self.root}/repositories/{check_id(repository_id)}"


def checks(server):
    """Checks of a storage server; kind `setup`."""
    if server.entry is None or not os.path.isdir(server.root):
        return [Check("storage server", lambda: not_set_up(server))]
    return [
        Check("authorized keys", lambda: authorized(server)),
        Check("storage", lambda: storage(server), 120),
        Check("server programs", lambda: program(server), 90),
        Check("quotas", lambda: quotas(server), 120),
    ]


def not_set_up(server):
    """There is no user or no directory."""
    missing = f"the user {server.user}" if server.entry is None else f"the directory {server.root}"
    yield Finding(
        "server-not-set-up",
        "critical",
        f"This storage server lacks {missing}: no host can back up to it.",
        f"Mount what should be there. {PROVISION}",
        server.root,
    )


def program(server):
    """The borg that serves repositories can be started."""
    done = run([server.borg, "--version"], timeout=60)
    if done.returncode not in (0, 124):
        yield Finding(
            "server-program-missing",
            "critical",
            f"{server.borg} cannot be started, so no host can back up to this server.",
            PROVISION,
            server.borg,
            (done.stderr or done.stdout).strip()[-300:],
        )


# ---- who may do what ----------------------------------------------------------------------------------------


def authorized(server):
    """authorized_keys says what is declared: one key, one repository, append-only, its quota, nothing else."""
    gid = server.entry.pw_gid
    yield from attributes("server-permissions", server.keys, 0o640, 0, gid, what="file", severity="critical")
    yield from attributes(
        "server-permissions", os.path.dirname(server.keys), 0o750, 0, gid, what="directory", severity="critical"
    )
    text = read(server.keys) or ""
    lines = {}
    for line in text.splitlines():
        if comment_of(line):
            lines.setdefault(comment_of(line), []).append(line)
        elif line.strip() and not line.lstrip().startswith("#"):
            yield foreign_line(server, line)
    known = set()
    for item in server.declared:
        known.add(item["id"])
        yield from declared(server, item, lines.get(item["id"], []))
    for repository in sorted(set(lines) - known) if server.complete else ():
        yield Finding(
            "authorized-key-unknown",
            "warning",
            f"A key may write to the repository {repository}, which no host of the inventory has.",
            f"If it is not needed, take it away: server_repositories_absent: [{repository}]",
            repository,
        )


def foreign_line(server, line):
    """A line that is not ours: with a forced command it is somebody's choice, without one it is a shell."""
    forced = re.match(r"\s*(restrict,)?\S*command=", line)
    words = line.split()
    return Finding(
        "authorized-key-foreign",
        "warning" if forced else "critical",
        f"{server.user} lets in a key that SaveOS did not put there"
        + ("." if forced else ", without a forced command: it can remove every archive."),
        f"Remove the line from {server.keys} unless it is yours.",
        " ".join(words[-1:]) if len(words) > 2 else "a key without a comment",
    )


def declared(server, item, lines):
    """The lines of one declared repository against what they must be."""
    path = server.path(item["id"])
    if not lines:
        if item.get("public_key"):
            yield key_finding(
                server, item, "authorized-key-missing", "critical", "has no key that may write to it", ""
            )
        return
    key = item.get("public_key") or " ".join(lines[0].split()[-3:-1])
    try:
        wanted = authorized_line(server.borg, path, {**item, "public_key": key})
    except ValueError as error:
        yield Finding(
            "authorized-keys-broken", "critical", f"The line of the repository {item['id']} cannot be judged.",
            PROVISION, item["id"], str(error),
        )  # fmt: skip
        return
    if lines == [wanted]:
        return
    if wanted in lines and all(without_key(line) == without_key(wanted) for line in lines):
        yield Finding(
            "authorized-key-second",
            "warning",
            f"{len(lines)} keys may write to the repository {item['id']}.",
            "If no rotation of the host's key goes on: saveos maintenance secrets rotate finishes it.",
            item["id"],
        )
        return
    said, grave = difference(lines, wanted, path)
    yield key_finding(
        server, {**item, "public_key": key}, "authorized-key-differs", "critical" if grave else "warning",
        "is not served as declared", said,
    )  # fmt: skip


def difference(lines, wanted, path):
    """(what is other than declared, whether that endangers archives) of the lines of a repository."""
    said, grave = [], False
    if len(lines) > 1:
        said.append(f"{len(lines)} keys may write to it")
        grave = True
    for line in lines:
        command = "".join(re.findall(r'command="([^"]*)"', line)[:1])
        if not command:
            said.append("no forced command")
            grave = True
            continue
        if "--append-only" in wanted and "--append-only" not in command.split():
            said.append("not append-only: the host can remove its archives for good")
            grave = True
        if path not in command.split():
            said.append("serves another path")
            grave = True
        if ",restrict " not in line:
            said.append("not restricted")
            grave = True
        have, want = (re.findall(r'--storage-quota ([^\s"]+)', text) for text in (command, wanted))
        if have != want:
            said.append(f"quota {' '.join(have) or 'none'}, declared {' '.join(want) or 'none'}")
        if line.split()[-3:-1] != wanted.split()[-3:-1]:
            said.append("another key than the host's")
            grave = True
    return "; ".join(dict.fromkeys(said)) or "the line differs: " + lines[0].split(" ssh-")[0][:300], grave


def without_key(line):
    """A line's options and repository."""
    words = line.split()
    return words[:-3] + words[-1:]


def key_finding(server, item, kind, severity, what, said):  # noqa: PLR0917
    """A finding about a repository's line, which is mended by writing the declared one."""

    def put_right(mender):
        line = authorized_line(server.borg, server.path(item["id"]), item)
        before = read(server.keys) or ""
        if reason := refused(before, [line], []).get(item["id"]):
            raise ValueError(reason)
        content = merge(before, [line], [])
        mender.file(server.keys, content, 0o640, 0, server.entry.pw_gid)

    return Finding(
        kind,
        severity,
        f"The repository {item['id']} {what}.",
        f"Let this operation fix it. {PROVISION}",
        item["id"],
        said,
        mend=put_right,
    )


# ---- storage ------------------------------------------------------------------------------------------------


def storage(server):
    """Directories of repositories are there and the user's alone; their files are its own."""
    uid, gid = server.entry.pw_uid, server.entry.pw_gid
    mode, group = (0o750, gid) if server.private else (0o755, 0)
    yield from attributes("server-permissions", server.root, mode, 0, group, what="directory")
    parent = f"{server.root}/repositories"
    yield from attributes("server-permissions", parent, 0o750, 0, gid, what="directory")
    for name in sorted(os.listdir(parent) if os.path.isdir(parent) else []):
        path = f"{parent}/{name}"
        if not ID.fullmatch(name) or not os.path.isdir(path) or os.path.islink(path):
            continue
        yield from attributes(
            "repository-permissions", path, 0o700, uid, gid, what="repository", severity="critical"
        )
        found = foreign(path, uid)
        if found:
            yield Finding(
                "repository-foreign",
                "critical",
                f"Files of the repository {name} do not belong to {server.user}, so it cannot be written.",
                f"find {path} ! -user {server.user} ! \\( -user root -perm 0440 \\) "
                f"-exec chown -h {server.user}: {{}} +",
                name,
                f"such as {found}",
            )


def foreign(path, uid):
    """A file of a repository that is another's; "" where there is none (of the first so many)."""
    seen = 0
    for directory, below, files in os.walk(path):
        for name in [*below, *files]:
            seen += 1
            try:
                if is_foreign(os.lstat(os.path.join(directory, name)), uid):
                    return os.path.join(directory, name)
            except OSError:
                continue
        if seen > FOREIGN:
            break
    return ""


def quotas(server):
    """Repositories near their quota, and quotas that together promise more than the disk has."""
    total = shutil.disk_usage(server.root).total
    promised = 0
    for item in server.declared:
        quota = bytes_of(item.get("quota") or "")
        promised += quota
        used = size(server.path(item["id"])) if quota else 0
        if quota and used > quota * 0.9:
            yield Finding(
                "quota-near",
                "critical" if used > quota * 0.97 else "warning",
                f"The repository {item['id']} has nearly used up its quota: backups will soon fail.",
                "Raise its quota, or keep fewer archives.",
                item["id"],
                f"{used} of {quota} bytes",
            )
    if promised > total:
        yield Finding(
            "quota-overcommitted",
            "info",
            "The quotas together promise more than the disk of this server has.",
            "Lower quotas, or add disk before hosts use what they were promised.",
            server.root,
            f"{promised} bytes promised, {total} there",
        )


def size(path):
    """Bytes of the files of a directory."""
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            try:
                found = os.lstat(os.path.join(directory, name))
            except OSError:
                continue
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def bytes_of(quota):
    """A quota such as 500G in bytes, as Borg counts (powers of 1000); 0 where there is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", str(quota).strip(), re.IGNORECASE)
    return round(float(match[1]) * 1000 ** " KMGTP".index(match[2].upper() or " ")) if match else 0
