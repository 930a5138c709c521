#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import configparser
import os
import pwd
import random
import re
import shutil
import stat
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils.ownership import is_foreign
from ansible_collections.saveos.fleet.plugins.module_utils.ssh_keys import ID

DOCUMENTATION = r"""
module: server_report
short_description: What a storage server itself sees of its repositories
version_added: 0.2.0
author: The SaveOS contributors (@saveos)
description:
  - For each repository the age of its last commit, its size, and files that are not owned as they must be; and
    how full the file system is. No host, Borg or key is asked, so it tells what a host cannot invent.
  - It only reads, follows no symbolic link inside a repository, and takes no lock.
options:
  user:
    description: The user that owns the repositories.
    type: str
    required: true
  root:
    description: The storage directory.
    type: str
    required: true
  seconds:
    description: How long to add up sizes. Repositories for which there was no time have none; each time others.
    type: int
    default: 120
attributes:
  check_mode: {support: full, description: It changes nothing.}
"""

EXAMPLES = r"""
- name: See what really arrived
  saveos.fleet.server_report:
    user: saveos-borg
    root: /srv/saveos
"""

RETURN = r"""
saveos:
  description: C(storage) holds the file system in bytes and, where it counts them, inodes.
    For each repository it holds C(commit_age) in seconds by
    this server's clock (absent where nothing was ever committed), C(bytes), and C(foreign), how many files
    belong to others.
  returned: success
  type: dict
  sample: {storage: {at: 2026-01-01T00:00:00Z, root: /srv/saveos, user: saveos-borg, free: 1000, total: 2000,
    inodes: 100, inodes_free: 50,
    repositories: [{id: 0198c5f0-0000-7000-8000-000000000001, initialised: true, commit_age: 120, bytes: 4096,
    foreign: 0}]}}
"""

COMMIT = bytes.fromhex("40f43c250900000002")  # how a committed segment of Borg 1 ends
INDEX = re.compile(r"index\.(\d{1,18})")
SEGMENT = re.compile(r"\d{1,18}")


def numbers(path, pattern=SEGMENT):
    """The numbers in the names of a directory, greatest first."""
    try:
        names = os.listdir(path)
    except OSError:
        return []
    found = (pattern.fullmatch(name) for name in names)
    return sorted((int(match.group(match.lastindex or 0)) for match in found if match), reverse=True)


def segments_per_directory(path):
    """Borg's own setting of a repository; None where there is no repository."""
    config = configparser.ConfigParser(interpolation=None)
    try:
        with open(f"{path}/config", encoding="utf-8") as file:
            config.read_string(file.read(65536))
        return config.getint("repository", "segments_per_dir")
    except (OSError, ValueError, configparser.Error):
        return None


def committed_at(path):
    """When the last transaction of a repository was committed, by the time of its segment; None for never.

    An index is written after each commit. Segments after it may hold a newer one (a client that died
    between the two), or belong to a backup that goes on.
    """
    per_directory = segments_per_directory(path)
    if not per_directory:
        return None
    indexed = next(iter(numbers(path, INDEX)), -1)
    for directory in numbers(f"{path}/data"):
        if directory < indexed // per_directory:
            break
        for number in numbers(f"{path}/data/{directory}"):
            when = commit_time(f"{path}/data/{directory}/{number}", known=number == indexed)
            if when is not None:
                return when
            if number <= indexed:
                break
    return None


def commit_time(segment, known=False):
    """When a segment was written, if it ends in a commit or is known to; else None."""
    try:
        handle = os.open(segment, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size < len(COMMIT):
            return None
        ends = known or os.pread(handle, len(COMMIT), found.st_size - len(COMMIT)) == COMMIT
        return found.st_mtime if ends else None
    finally:
        os.close(handle)


def walk(path):
    """(entry, lstat) of everything in a directory; what vanishes meanwhile is passed over."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                yield entry, found
                if stat.S_ISDIR(found.st_mode):
                    yield from walk(entry.path)
    except OSError:
        return


def measured(path, uid, deadline):
    """(bytes, files that are not the user's) of a repository; None when the time is over before its end."""
    size = foreign = 0
    for _entry, found in walk(path):
        size += found.st_size if stat.S_ISREG(found.st_mode) else 0
        foreign += is_foreign(found, uid)
        if time.monotonic() > deadline:
            return None
    return size, foreign


def report(root, uid, seconds):
    """What there is of each repository, by id."""
    parent = f"{root}/repositories"
    found = {}
    for name in sorted(os.listdir(parent) if os.path.isdir(parent) else []):
        path = f"{parent}/{name}"
        if not ID.fullmatch(name) or not os.path.isdir(path):
            continue
        found[name] = {"id": name, "initialised": os.path.isfile(f"{path}/config")}
        when = committed_at(path)
        if when is not None:
            found[name]["commit_age"] = max(0, round(time.time() - when))
    deadline = time.monotonic() + seconds
    order = list(found)
    random.shuffle(order)  # where time is short, others come next time
    for name in order:
        size = measured(f"{parent}/{name}", uid, deadline)
        if size is None:
            break
        found[name]["bytes"], found[name]["foreign"] = size
    return list(found.values())


def main():
    module = AnsibleModule(
        argument_spec={
            "user": {"required": True},
            "root": {"required": True},
            "seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    user, root = module.params["user"], os.path.normpath(module.params["root"])
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        module.fail_json(msg=f"there is no user {user}: provision this storage server first")
    if not os.path.isdir(root):
        module.fail_json(msg=f"{root} is not there: mount it, or provision this storage server")
    os.nice(10)
    disk, counts = shutil.disk_usage(root), os.statvfs(root)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    storage = {"at": at, "root": root, "user": user, "free": disk.free, "total": disk.total}
    if counts.f_files:  # some file systems do not count them
        storage |= {"inodes": counts.f_files, "inodes_free": counts.f_favail}
    storage["repositories"] = report(root, uid, module.params["seconds"])
    for each in storage["repositories"]:
        if each.get("foreign"):
            own = f"chown -R {user}: {root}/repositories/{each['id']}"
            module.warn(f"repository {each['id']}: {each['foreign']} files do not belong to {user}: {own}")
    module.exit_json(changed=False, saveos={"storage": storage})


if __name__ == "__main__":
    main()
