# ruff: noqa: PTH101, PTH102, PTH103, PTH115, PTH118, PTH123, PTH211 - paths are bytes here, whatever they mean
"""Make a tree of everything that backups get wrong, and describe any tree; runs on a lab host.

    python3 - make DIR < odd_tree.py        makes the tree
    python3 - describe DIR < odd_tree.py    prints its description as JSON, one entry a path

Standard library only and no word from Borg: a restore is judged by somebody else. Two trees are equal when
their descriptions are: kind, mode, owner, times, content, attributes, ACLs, links and holes of each path.
"""

import hashlib
import json
import os
import socket
import stat
import struct
import sys

LONG = b"n" * 255
NAMES = [
    b"plain",
    b"with space",
    b"new\nline",
    b"esc\x1b[31mred",
    b"tab\there",
    b"latin1-\xe9\xff",
    "zażółć-日本-🎒".encode(),
    b"{{ lookup('pipe', 'touch owned') }}",
    b"<img src=x onerror=alert(1)>",
    b"-rf",
    b"'quote\"",
    b"back\\slash",
    b"$(touch owned)",
    b"* ? [a]",
    LONG,
]
# version 2, then user::rw-, user:12345:r--, group::r--, mask::r--, other::---
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, who)
    for tag, permissions, who in (
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 4, 12345),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 4, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    )
)


def make(root):
    """Build the tree; the same bytes each time."""
    os.makedirs(root)
    join = lambda *parts: os.path.join(root, *parts)  # noqa: E731
    os.mkdir(join(b"names"))
    for number, name in enumerate(NAMES):
        write(join(b"names", name), b"%d %s" % (number, name))
    os.makedirs(join(b"modes", b"closed"), mode=0o700)
    for mode in (0o000, 0o400, 0o644, 0o755, 0o4755, 0o2755, 0o1777, 0o666):
        path = join(b"modes", b"%05o" % mode)
        write(path, b"mode")
        os.chmod(path, mode)
    os.chmod(join(b"modes", b"closed"), 0o1770)
    write(join(b"modes", b"owned"), b"somebody's")
    os.chown(join(b"modes", b"owned"), 12345, 54321)
    os.mkdir(join(b"kinds"))
    write(join(b"kinds", b"empty"), b"")
    write(join(b"kinds", b"big"), bytes(range(256)) * 20000)
    write(join(b"kinds", b"hard"), b"two names, one file")
    os.link(join(b"kinds", b"hard"), join(b"kinds", b"hard-too"))
    os.link(join(b"kinds", b"hard"), join(b"names", b"hard-elsewhere"))
    for name, target in ((b"link", b"hard"), (b"dangling", b"/no/such/\xff"), (b"up", b"../../../etc/passwd")):
        os.symlink(target, join(b"kinds", name))
    os.lchown(join(b"kinds", b"dangling"), 12345, 54321)
    os.mkfifo(join(b"kinds", b"fifo"), 0o640)
    os.mkdir(join(b"kinds", b"empty-directory"))
    with open(join(b"kinds", b"sparse"), "wb") as file:
        file.seek(20 << 20)
        file.write(b"in the middle")
        file.truncate(48 << 20)
    write(join(b"kinds", b"attributes"), b"xattr")
    os.setxattr(join(b"kinds", b"attributes"), b"user.saveos", b"\x00\x01 value \xff")
    os.setxattr(join(b"kinds", b"attributes"), b"user.empty", b"")
    os.setxattr(join(b"kinds"), b"user.directory", b"a directory's")
    write(join(b"kinds", b"acl"), b"acl")
    os.setxattr(join(b"kinds", b"acl"), b"system.posix_acl_access", ACL)
    os.makedirs(join(*[b"deep"] * 40))
    for number, (directory, names, files) in enumerate(os.walk(root, topdown=False)):
        for at, name in enumerate(sorted(names + files)):
            moment = (1_000_000_000 + number * 1000 + at) * 10**9 + 123_456_789
            os.utime(os.path.join(directory, name), ns=(moment, moment), follow_symlinks=False)
    os.utime(root, ns=(10**18, 10**18))


def write(path, content):
    """Write a file."""
    with open(path, "wb") as file:
        file.write(content)


def describe(root):
    """Return {path as Latin-1: what it is}; root itself is "."."""
    found, links = {}, {}
    paths = [root]
    for directory, names, files in os.walk(root):
        paths += [os.path.join(directory, name) for name in names + files]
    for path in sorted(paths):
        key = os.path.relpath(path, root).decode("latin-1")
        status = os.lstat(path)
        entry = {
            "kind": stat.S_IFMT(status.st_mode),
            "mode": oct(stat.S_IMODE(status.st_mode)),
            "owner": [status.st_uid, status.st_gid],
            "mtime": status.st_mtime_ns,
            "attributes": attributes(path),
        }
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                entry["content"] = hashlib.sha256(file.read()).hexdigest()
            entry["size"] = status.st_size
            entry["holes"] = status.st_size > (1 << 20) and status.st_blocks * 512 < status.st_size // 2
            entry["same_as"] = links.setdefault((status.st_dev, status.st_ino), key)
        elif stat.S_ISLNK(status.st_mode):
            entry["target"] = os.readlink(path).decode("latin-1")
        found[key] = entry
    return found


def attributes(path):
    """Return extended attributes, ACLs included, as hex."""
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in sorted(names)}


if __name__ == "__main__":
    verb, directory = sys.argv[1], os.fsencode(sys.argv[2])
    if verb == "make":
        make(directory)
        print(json.dumps({"host": socket.gethostname(), "made": sys.argv[2]}))
    else:
        print(json.dumps(describe(directory)))
